package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// LogCmd is `s4 log`.
type LogCmd struct {
	lookFlags

	Path    string `arg:"" optional:"" help:"Only the snapshots in which this path changed."`
	Number  int    `short:"n" placeholder:"N" help:"Show the newest N only."`
	Refresh bool   `help:"Ask the remotes for news first."`
}

// Help is the paragraph under --help.
func (LogCmd) Help() string {
	return `Lists the volume's snapshots from all its remotes on one time line, newest first; with a path, its versions. The index answers; no remote is asked unless told to.

Examples:

  s4 log -n 10
  s4 log notes.txt`
}

// Run does it.
func (c *LogCmd) Run(ctx context.Context, a *app) error {
	return a.withPast(ctx, c.lookFlags, func(v *volume.Volume, past *volume.Past) error {
		if c.Refresh {
			if err := past.Refresh(ctx); err != nil {
				return err
			}
		}
		line, err := past.Timeline(ctx)
		if err != nil {
			return err
		}
		if c.Path != "" {
			path, err := a.inVolume(v, c.Path)
			if err != nil {
				return err
			}
			return c.versions(ctx, a, past, line, path)
		}
		line = slices.Clone(line)
		slices.Reverse(line)
		if c.Number > 0 && len(line) > c.Number {
			line = line[:c.Number]
		}
		return printTimeline(a, line)
	})
}

func printTimeline(a *app, line []snapshot.Info) error {
	if a.JSON {
		list := make([]snapshotJSON, len(line))
		for i, s := range line {
			list[i] = toJSON(s)
		}
		return a.printJSON(list)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, s := range line {
		what := s.Message
		if what == "" {
			what = s.Name
		}
		files, bytes := "", ""
		if s.Files > 0 {
			files, bytes = count(s.Files, "file"), size(s.Size)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Dir, s.Time.Local().Format("Mon 2006-01-02 15:04:05"), files, bytes, quote.Text(what))
	}
	return w.Flush()
}

// versionJSON is one version of a path.
type versionJSON struct {
	entryJSON
	First snapshotJSON `json:"first"`
	Last  snapshotJSON `json:"last"`
}

func (c *LogCmd) versions(ctx context.Context, a *app, past *volume.Past, line []snapshot.Info, path string) error {
	versions, err := allVersions(ctx, past, line, path)
	if err != nil {
		return err
	}
	if c.Number > 0 && len(versions) > c.Number {
		versions = versions[:c.Number]
	}
	dirs := map[string]string{}
	for _, s := range line {
		dirs[s.ID] = s.Dir
	}
	if a.JSON {
		list := make([]versionJSON, len(versions))
		for i, v := range versions {
			v.First.Dir, v.Last.Dir = dirs[v.First.ID], dirs[v.Last.ID]
			list[i] = versionJSON{entryToJSON(path, v.Entry), toJSON(v.First), toJSON(v.Last)}
		}
		return a.printJSON(list)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for _, v := range versions {
		first, last := dirs[v.First.ID], dirs[v.Last.ID]
		span := first
		if first != last {
			span += " … " + last
		}
		fmt.Fprintf(w, "%s\t%s\t%s\tmodified %s\n", span, modeString(v.Mode), size(v.Size),
			time.Unix(0, v.Mtime).Local().Format("2006-01-02 15:04:05"))
	}
	return w.Flush()
}

// allVersions gives the versions that path has in every series on the time
// line, newest first, what two sources hold once.
func allVersions(ctx context.Context, past *volume.Past, line []snapshot.Info, path string) ([]index.PathVersion, error) {
	type series struct{ source, name string }
	asked := map[series]bool{}
	held := map[string]bool{}
	var all []index.PathVersion
	for _, s := range slices.Backward(line) {
		if key := (series{s.Source, s.Series}); asked[key] {
			continue
		} else {
			asked[key] = true
		}
		versions, err := past.Versions(ctx, s.Num, path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, v := range versions {
			if !held[v.First.ID] {
				held[v.First.ID] = true
				all = append(all, v)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no snapshot has %q: %w", path, fs.ErrNotExist)
	}
	slices.SortStableFunc(all, func(x, y index.PathVersion) int { return y.First.Time.Compare(x.First.Time) })
	return all, nil
}
