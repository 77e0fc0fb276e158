package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
	"github.com/s4-storage/s4/worktree"
)

// RestoreCmd is `s4 restore`.
type RestoreCmd struct {
	When   string   `arg:"" name:"time" help:"Moment to bring back; TIME:PATH names one path."`
	Paths  []string `arg:"" optional:"" name:"path" help:"Paths to bring back (default: the whole volume)."`
	To     string   `placeholder:"DIR" help:"Write below DIR instead of over the volume."`
	DryRun bool     `short:"n" help:"Show what would change and change nothing."`
	Force  bool     `help:"Also over changes that no snapshot holds."`
}

// Help is the paragraph under --help.
func (RestoreCmd) Help() string {
	return `Brings paths back as they were, each whole or not at all; what the snapshot does not have stays. It shows what it changes. What no snapshot holds is never overwritten without --force.

Examples:

  s4 restore yesterday -- notes.txt photos/2024
  s4 restore 2026-11-01 --to /tmp/november`
}

// Run does it.
func (c *RestoreCmd) Run(ctx context.Context, a *app) error {
	return a.withMoment(ctx, lookFlags{}, c.When, func(v *volume.Volume, past *volume.Past, s snapshot.Info, path string) error {
		report, done := a.reporter()
		o := volume.RestoreOptions{When: s.Dir, Force: c.Force, Report: report}
		if path != "" {
			o.Paths = append(o.Paths, path)
		}
		for _, p := range c.Paths {
			rel, err := a.inVolume(v, p)
			if err != nil {
				return err
			}
			o.Paths = append(o.Paths, rel)
		}
		if c.To != "" {
			o.To = c.To
			if !filepath.IsAbs(o.To) {
				o.To = filepath.Join(a.here(), o.To)
			}
		}
		r, err := v.PlanRestore(ctx, past, o)
		if err != nil {
			return err
		}
		defer r.Close()
		if c.DryRun {
			return c.show(a, r, nil)
		}
		if !a.JSON && !a.Quiet {
			if err := c.show(a, r, nil); err != nil {
				return err
			}
		}
		result, err := r.Apply(ctx)
		done()
		if err != nil {
			return err
		}
		if a.JSON {
			return c.show(a, r, &result)
		}
		a.say("From %s: %s", r.Snapshot.Dir, summary(&result))
		return nil
	})
}

func (c *RestoreCmd) show(a *app, r *volume.Restore, result *worktree.Result) error {
	if a.JSON {
		actions := r.Plan.Actions
		if actions == nil {
			actions = []worktree.Action{}
		}
		return a.printJSON(struct {
			Snapshot snapshotJSON      `json:"snapshot"`
			Actions  []worktree.Action `json:"actions"`
			Result   *worktree.Result  `json:"result,omitempty"`
		}{toJSON(r.Snapshot), actions, result})
	}
	for _, action := range r.Plan.Actions {
		name := shownName(a.stdout, strings.TrimSuffix(action.Path, "/"))
		if name == "" {
			name = "."
		}
		if err := a.print("%-8s %s\n", action.Op, name); err != nil {
			return err
		}
	}
	return nil
}
