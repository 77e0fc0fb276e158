package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/volume"
	"github.com/s4-storage/s4/worktree"
)

// RestoreCmd is `s4 restore`.
type RestoreCmd struct {
	lookFlags

	When    string   `arg:"" optional:"" name:"time" help:"Moment to bring back; TIME:PATH names one path. Without it, as in: s4 restore -- PATH, the newest."`
	Paths   []string `arg:"" optional:"" name:"path" help:"Paths or patterns to bring back (default: the whole volume)."`
	Deleted bool     `help:"Bring paths back from the newest snapshot that has them; no TIME is given."`
	To      string   `placeholder:"DIR" help:"Write below DIR instead of over the volume."`
	DryRun  bool     `short:"n" help:"Show what would change and change nothing."`
	Keep    bool     `help:"Move files with changes that no snapshot holds to .s4/local/replaced instead of refusing."`
	Force   bool     `help:"Also over changes that no snapshot holds, which are then lost."`
	nameFlags
}

// Help is the paragraph under --help.
func (RestoreCmd) Help() string {
	return `Brings paths back as they were, each whole or not at all; what the snapshot does not have stays. It shows what it changes, in the letters of s4 diff. What no snapshot holds is never overwritten: see --keep and --force.

Examples:

  s4 restore yesterday -- notes.txt photos/2024
  s4 restore latest -- 'photos/**/*.jpg'
  s4 restore --deleted old-letter.txt
  s4 restore 2026-11-01 --to /tmp/november`
}

// Run does it.
func (c *RestoreCmd) Run(ctx context.Context, a *app) error {
	return a.withPast(ctx, c.lookFlags, func(v *volume.Volume, past *volume.Past) error {
		jobs, err := c.jobs(ctx, a, v, past)
		if err != nil {
			return err
		}
		var results []restoreJSON
		var failed []error
		for _, o := range jobs {
			r, err := c.restore(ctx, a, v, past, o)
			if r != nil {
				results = append(results, *r)
			}
			if err != nil {
				failed = append(failed, err)
			}
			if ctx.Err() != nil {
				break
			}
		}
		switch {
		case !a.JSON || len(results) == 0:
		case c.Deleted:
			failed = append(failed, a.printJSON(struct {
				Restores []restoreJSON `json:"restores"`
			}{results}))
		default:
			failed = append(failed, a.printJSON(results[0]))
		}
		return errors.Join(failed...)
	})
}

// jobs are the restores that are asked for, one for each moment.
func (c *RestoreCmd) jobs(ctx context.Context, a *app, v *volume.Volume, past *volume.Past) ([]volume.RestoreOptions, error) {
	o := volume.RestoreOptions{When: "latest", To: c.To, DryRun: c.DryRun, Force: c.Force, Keep: c.Keep}
	if o.To != "" && !filepath.IsAbs(o.To) {
		o.To = filepath.Join(a.here(), o.To)
	}
	before, paths := a.dashed(c.When, "", c.Paths)
	switch {
	case c.Deleted:
		paths = append(before, paths...)
		if len(paths) == 0 {
			return nil, usage("--deleted needs paths")
		}
	case len(before) > 0:
		s, path, err := moment(ctx, past, before[0])
		if err != nil {
			return nil, err
		}
		o.When = s.Dir
		if path != "" {
			o.Paths = append(o.Paths, path)
		}
		paths = append(before[1:len(before):len(before)], paths...)
	case len(paths) == 0:
		return nil, usage("say which moment to bring back, such as: latest")
	}
	for _, p := range paths {
		rel, err := a.inVolume(v, p)
		if err != nil {
			return nil, err
		}
		o.Paths = append(o.Paths, rel)
	}
	if !c.Deleted {
		return []volume.RestoreOptions{o}, nil
	}
	var there func(path string) bool
	if v != nil {
		there = v.Has
	}
	held, err := past.LastHeld(ctx, o.Paths, there)
	if err != nil {
		return nil, err
	}
	jobs := make([]volume.RestoreOptions, len(held))
	for i, h := range held {
		jobs[i] = o
		jobs[i].When, jobs[i].Paths = h.Snapshot.Dir, h.Paths
	}
	return jobs, nil
}

func (c *RestoreCmd) restore(ctx context.Context, a *app, v *volume.Volume, past *volume.Past, o volume.RestoreOptions) (*restoreJSON, error) {
	report, done := a.reporter()
	o.Report = report
	r, err := past.PlanRestore(ctx, v, o)
	done()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if !c.DryRun {
		if err := r.Refusal(); err != nil {
			return nil, err
		}
	}
	out := &restoreJSON{Snapshot: toJSON(r.Snapshot), Actions: r.Plan.Actions, Refused: r.Refused}
	if out.Actions == nil {
		out.Actions = []worktree.Action{}
	}
	if !a.JSON && (c.DryRun || !a.Quiet) {
		if err := c.show(a, r); err != nil {
			return nil, err
		}
	}
	if c.DryRun {
		return out, r.Refusal()
	}
	result, err := r.Apply(ctx)
	done()
	out.Result = &result
	if result.Kept > 0 {
		out.Kept = r.Kept
		a.say("Kept %s with changes that no snapshot holds in %s", count(int64(result.Kept), "file"), shownName(a.stderr, filepath.Join(v.Shown, r.Kept)))
	}
	if err == nil && !a.JSON {
		a.say("From %s: %s", r.Snapshot.Dir, summary(&result))
	}
	return out, err
}

// restoreJSON is what a restore did, or would do.
type restoreJSON struct {
	Snapshot snapshotJSON      `json:"snapshot"`
	Actions  []worktree.Action `json:"actions"`
	Refused  []string          `json:"refused,omitempty"`
	Kept     string            `json:"kept,omitempty"`
	Result   *worktree.Result  `json:"result,omitempty"`
}

// show lists what changes, in the letters of s4 diff.
func (c *RestoreCmd) show(a *app, r *volume.Restore) error {
	refused := map[string]bool{}
	for _, p := range r.Refused {
		refused[p] = true
	}
	for i := range r.Plan.Actions {
		action := &r.Plan.Actions[i]
		letters := r.What(action).Letters()
		if refused[action.Path] {
			letters += "!"
		}
		name := c.nameFlags.show(a.stdout, shownPath(strings.TrimSuffix(action.Path, "/")))
		format := "%-4s %s%s"
		if c.Null {
			format = "%s\x00%s%s"
		}
		if err := a.print(format, letters, name, c.end()); err != nil {
			return err
		}
	}
	return nil
}
