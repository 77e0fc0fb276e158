package main

import (
	"context"
	"errors"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/volume"
)

// FindCmd is `s4 find`.
type FindCmd struct {
	lookFlags

	Patterns   []string `arg:"" name:"pattern" help:"Pattern for the name; one with a slash is for the path."`
	Regex      bool     `help:"Patterns are regular expressions that match anywhere in it."`
	IgnoreCase bool     `short:"i" help:"Upper and lower case are the same."`
	Type       string   `enum:"f,d,l," default:"" placeholder:"f|d|l" help:"Only files, directories or symlinks."`
	At         string   `placeholder:"TIME" help:"Only what this one snapshot holds."`
	Deleted    bool     `help:"Only what the newest snapshot no longer has."`
	Since      string   `placeholder:"TIME" help:"Only what was there since then; with --deleted, what was deleted since then."`
	Until      string   `placeholder:"TIME" help:"Likewise, until then."`
	nameFlags
}

// Help is the paragraph under --help.
func (FindCmd) Help() string {
	return `Finds paths by name in all snapshots, and tells from which to which snapshot each was there; one that still is has no end. The index answers; what it lacks is read into it first. Names are matched whole: * and ? within a name, ** across directories, [a-z]. A pattern with a slash is relative to where you are.

Examples:

  s4 find 'letter*.odt'
  s4 find --deleted --since 2w -i '*.jpg'
  s4 find -r nas:/backups/repo --at yesterday --regex '^etc/.*\.conf$'`
}

// Run does it.
func (c *FindCmd) Run(ctx context.Context, a *app) error {
	if c.At != "" && (c.Deleted || c.Since != "" || c.Until != "") {
		return usage("--at is one moment: --deleted, --since and --until do not go with it")
	}
	return a.withPast(ctx, c.lookFlags, func(v *volume.Volume, past *volume.Past) error {
		names, err := c.names(a, v)
		if err != nil {
			return err
		}
		g := gaps{Missing: []string{}}
		if c.At == "" {
			if g, err = a.complete(ctx, past); err != nil {
				return err
			}
		}
		report, done := a.reporter()
		defer done()
		o := query.FindOptions{Names: names, At: c.At, Since: c.Since, Until: c.Until, Deleted: c.Deleted, Note: report.Note,
			Type: map[string]uint32{"f": unix.S_IFREG, "d": unix.S_IFDIR, "l": unix.S_IFLNK}[c.Type]}
		p := findPrinter{FindCmd: c, app: a}
		if err := p.begin(g); err != nil {
			return err
		}
		for t, err := range past.FindPaths(ctx, o) {
			if err == nil {
				err = p.print(&t)
			}
			if err != nil {
				return err
			}
		}
		return errors.Join(p.close(), g.broken)
	})
}

// names are the patterns, those with a slash from the volume's root on.
func (c *FindCmd) names(a *app, v *volume.Volume) (*pathspec.Names, error) {
	expressions := make([]string, len(c.Patterns))
	for i, e := range c.Patterns {
		if expressions[i] = e; c.Regex || !strings.Contains(e, "/") {
			continue
		}
		var err error
		if filepath.IsAbs(e) || v == nil {
			expressions[i], err = a.inVolume(v, e)
		} else {
			var here string
			if here, err = a.inVolume(v, "."); err == nil {
				expressions[i] = path.Join(pathspec.Literal(here), e)
			}
		}
		if err == nil && strings.HasPrefix(expressions[i], "../") {
			err = usage("%s is outside the volume", e)
		}
		if err != nil {
			return nil, err
		}
	}
	return pathspec.NewNames(expressions, pathspec.NamesOptions{Regexp: c.Regex, Fold: c.IgnoreCase})
}

// findPrinter prints what was found.
type findPrinter struct {
	*FindCmd
	app  *app
	list *listJSON
}

func (p *findPrinter) begin(g gaps) (err error) {
	if p.app.JSON {
		p.list, err = p.app.listJSON(g, "paths")
	}
	return err
}

func (p *findPrinter) close() error {
	if p.list == nil {
		return nil
	}
	return p.list.end()
}

// print shows one path: a line for each period in which it was there.
func (p *findPrinter) print(t *history.Trace) error {
	if p.list != nil {
		return p.list.add(foundToJSON(t))
	}
	name := p.show(p.app.stdout, t.Path)
	if p.Null || p.At != "" {
		return p.app.print("%s%s", name, p.end())
	}
	for _, s := range t.Periods() {
		last := ""
		if s.To < len(t.Line)-1 {
			last = t.Line[s.To].Dir
		}
		if err := p.app.print("%s … %-20s  %s\n", t.Line[s.From].Dir, last, name); err != nil {
			return err
		}
	}
	return nil
}

// foundJSON is a path over time: its newest version, and when it was there.
type foundJSON struct {
	entryJSON
	Gone     bool         `json:"deleted"`
	Versions int          `json:"versions"`
	Periods  []periodJSON `json:"periods"`
}

// periodJSON is a time in which a path was there without a gap.
type periodJSON struct {
	First string `json:"first"` // snapshots by their names under .s4/history
	Last  string `json:"last"`
}

func foundToJSON(t *history.Trace) foundJSON {
	j := foundJSON{entryJSON: entryToJSON(t.Path, t.Newest().Entry), Gone: t.Gone, Versions: len(t.Versions)}
	for _, s := range t.Periods() {
		j.Periods = append(j.Periods, periodJSON{t.Line[s.From].Dir, t.Line[s.To].Dir})
	}
	return j
}
