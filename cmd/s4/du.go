package main

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/volume"
)

// DuCmd is `s4 du`.
type DuCmd struct {
	lookFlags

	Path   string `arg:"" optional:"" help:"Only what lies in this directory."`
	Depth  int    `short:"d" default:"-1" placeholder:"N" help:"Show directories, down to so many levels, instead of snapshots."`
	At     string `placeholder:"TIME" help:"Only what this one snapshot added."`
	Since  string `placeholder:"TIME" help:"Only what was added since then."`
	Until  string `placeholder:"TIME" help:"Only what was added until then."`
	Number int    `short:"n" placeholder:"N" help:"Show the first N lines only."`
	nameFlags
}

// Help is the paragraph under --help.
func (DuCmd) Help() string {
	return `Tells which snapshots added how much, newest first: the bytes that no earlier snapshot of the repository has, and how many of them no later one has, which is what deleting this one alone would free. With --depth it tells the same of directories, the largest first. What is stored once counts once, before compression. The index answers; what it lacks is read into it first.

Examples:

  s4 du -n 10
  s4 du --depth 1
  s4 du --depth 2 --at yesterday photos`
}

// Run does it.
func (c *DuCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.At != "" && (c.Since != "" || c.Until != ""):
		return usage("--at is one moment: --since and --until do not go with it")
	case c.Depth < -1:
		return usage("--depth counts from 0, the directory itself")
	}
	return a.withPast(ctx, c.lookFlags, func(v *volume.Volume, past *volume.Past) error {
		path := ""
		if c.Path != "" {
			var err error
			if path, err = a.inVolume(v, c.Path); err != nil {
				return err
			}
		}
		g, err := a.complete(ctx, past)
		if err != nil {
			return err
		}
		if err := c.copies(ctx, a, past); err != nil {
			return err
		}
		u, err := past.Usage(ctx, query.UsageOptions{Path: path, At: c.At, Since: c.Since, Until: c.Until, Depth: max(c.Depth, 0)})
		if err == nil {
			err = c.print(a, g, u)
		}
		return errors.Join(err, g.broken)
	})
}

// copies indexes what only du needs.
func (c *DuCmd) copies(ctx context.Context, a *app, past *volume.Past) error {
	report, done := a.reporter()
	missing, why := past.CompleteCopies(ctx, report.Note)
	done()
	if missing > 0 {
		text, _, _ := strings.Cut(why.Error(), "\n")
		a.warn("%s of a repository left out that another has, too, not indexed yet: %s", count(int64(missing), "snapshot"), text)
		return nil
	}
	return why
}

// usageJSON is a snapshot with what it added.
type usageJSON struct {
	snapshotJSON
	bytesAdded
}

// directoryJSON is a directory with what was added in it.
type directoryJSON struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
	bytesAdded
}

type bytesAdded struct {
	Added int64 `json:"added"` // bytes
	Only  int64 `json:"only"`
}

func (c *DuCmd) print(a *app, g gaps, u *query.Usage) error {
	if c.Number > 0 {
		u.Snapshots = u.Snapshots[:min(c.Number, len(u.Snapshots))]
		u.Dirs = u.Dirs[:min(c.Number, len(u.Dirs))]
	}
	if a.JSON {
		return c.printJSON(a, g, u)
	}
	if c.Depth >= 0 {
		for _, d := range u.Dirs {
			if err := a.print("%10s  %10s only there  %s%s", "+"+size(d.Added), size(d.Only), c.show(a.stdout, shownPath(d.Path)), c.end()); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range u.Snapshots {
		what := cmp.Or(s.Message, s.Name)
		if err := a.print("%s  %10s  %10s only there  %s%s", s.Dir, "+"+size(s.Added), size(s.Only), quote.Text(what), c.end()); err != nil {
			return err
		}
	}
	return nil
}

func (c *DuCmd) printJSON(a *app, g gaps, u *query.Usage) error {
	name := "snapshots"
	if c.Depth >= 0 {
		name = "directories"
	}
	list, err := a.listJSON(g, name)
	if err != nil {
		return err
	}
	if c.Depth >= 0 {
		for _, d := range u.Dirs {
			if err := list.add(directoryJSON{d.Path, bytesJSON(d.Path), bytesAdded{d.Added, d.Only}}); err != nil {
				return err
			}
		}
		return list.end()
	}
	for _, s := range u.Snapshots {
		if err := list.add(usageJSON{toJSON(s.Info), bytesAdded{s.Added, s.Only}}); err != nil {
			return err
		}
	}
	return list.end()
}
