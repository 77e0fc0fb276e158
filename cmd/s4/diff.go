package main

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/volume"
)

// DiffCmd is `s4 diff`.
type DiffCmd struct {
	lookFlags

	From      string   `arg:"" optional:"" name:"from" help:"Moment to start from (default: the one last pushed or pulled)."`
	To        string   `arg:"" optional:"" name:"to" help:"Moment to compare with (default: the live files)."`
	Paths     []string `arg:"" optional:"" name:"path" help:"After --: paths or patterns to keep to."`
	Stat      bool     `help:"Show sums only."`
	Patch     bool     `short:"p" help:"Show the changes in text files as git and patch understand them."`
	NameOnly  bool     `help:"Show paths only."`
	NoRenames bool     `help:"Show a renamed file as deleted and added."`
	ExitCode  bool     `help:"End with exit code 1 when there are differences."`
	nameFlags
}

// Help is the paragraph under --help.
func (DiffCmd) Help() string {
	return `Shows how two snapshots, or a snapshot and the live files, differ. Letters say how: A added, D deleted, R renamed, M other content, T another type, ? touched and not to be compared; and where that is all or comes on top, p permissions, o owner, t time, x attributes, l links.

Examples:

  s4 diff
  s4 diff yesterday -- notes.txt 'photos/**/*.jpg'
  s4 diff -p latest~1 latest`
}

// errDiffers ends a run with exit code 1 and without a word.
var errDiffers = errors.New("there are differences")

// Run does it.
func (c *DiffCmd) Run(ctx context.Context, a *app) error {
	return a.withPast(ctx, c.lookFlags, func(v *volume.Volume, past *volume.Past) error {
		report, done := a.reporter()
		o, err := c.options(ctx, a, v, past)
		if err != nil {
			return err
		}
		o.Note = report.Note
		d, err := past.Diff(ctx, o)
		done()
		if err != nil {
			return err
		}
		defer d.Close()
		p := &diffPrinter{DiffCmd: c, app: a, diff: d}
		if err := p.run(ctx); err != nil {
			return err
		}
		if c.ExitCode && p.changes > 0 {
			return errDiffers
		}
		return nil
	})
}

// options tells moments from paths: those after -- are paths, and as in git
// also the first that is no moment and what follows it.
func (c *DiffCmd) options(ctx context.Context, a *app, v *volume.Volume, past *volume.Past) (query.DiffOptions, error) {
	o := query.DiffOptions{NoRenames: c.NoRenames}
	if v != nil {
		o.Live = v
	}
	moments, paths := a.dashed(c.From, c.To, c.Paths)
	for i, arg := range moments {
		s, path, err := moment(ctx, past, arg)
		if err != nil && a.isHere(v, arg) {
			paths = append(moments[i:len(moments):len(moments)], paths...)
			break
		}
		switch {
		case err != nil:
			return o, err
		case i == 0:
			o.From = s.Dir
		case i == 1:
			o.To = s.Dir
		default:
			return o, usage("more than two moments; paths come after --")
		}
		if path != "" && (len(o.Paths) == 0 || o.Paths[0] != path) {
			o.Paths = append(o.Paths, path)
		}
	}
	if len(o.Paths) > 1 {
		return o, usage("two paths cannot be compared with each other")
	}
	if v == nil && o.To == "" {
		return o, usage("--repo has no live files: two moments are needed")
	}
	for _, p := range paths {
		rel, err := a.inVolume(v, p)
		if err != nil {
			return o, err
		}
		if rel == "" { // everything
			o.Paths = nil
			break
		}
		o.Paths = append(o.Paths, rel)
	}
	return o, nil
}

// diffPrinter prints one comparison.
type diffPrinter struct {
	*DiffCmd
	app     *app
	diff    *query.Diff
	patch   *diff.Patch
	stat    diff.Stat
	changes int
	failed  []error
}

func (p *diffPrinter) run(ctx context.Context) error {
	if p.Patch {
		p.patch = &diff.Patch{W: p.app.stdout, Old: p.diff.Old, New: p.diff.New}
		if _, ok := terminal(p.app.stdout); ok {
			p.patch.Show = shownLine
		}
	}
	head := diffHeadJSON{From: toJSON(p.diff.From)}
	if p.diff.To != nil {
		to := toJSON(*p.diff.To)
		head.To = &to
	}
	var list *listJSON
	if p.app.JSON && !p.Stat {
		var err error
		if list, err = p.app.listJSON(head, "changes"); err != nil {
			return err
		}
	}
	for c, err := range p.diff.Changes {
		switch {
		case err != nil && c.Path == "":
			return err
		case err != nil:
			p.failed = append(p.failed, err)
			continue
		}
		p.changes++
		switch {
		case p.Stat:
			err = p.stat.Add(ctx, &c, p.diff.Weigh)
		case list != nil:
			err = list.add(changeToJSON(&c))
		default:
			err = p.print(ctx, &c)
		}
		if err != nil {
			return err
		}
	}
	var err error
	switch {
	case list != nil:
		err = list.end()
	case p.Stat && p.app.JSON:
		err = p.app.printJSON(struct {
			diffHeadJSON
			Stat diff.Stat `json:"stat"`
		}{head, p.stat})
	case p.Stat:
		err = p.app.print("%s\n", statLine(&p.stat))
	}
	if err != nil {
		return err
	}
	return errors.Join(p.failed...)
}

// diffHeadJSON tells what is compared.
type diffHeadJSON struct {
	From snapshotJSON  `json:"from"`
	To   *snapshotJSON `json:"to"` // null is the live tree
}

// print shows one change. Content that cannot be had costs its file alone.
func (p *diffPrinter) print(ctx context.Context, c *diff.Change) error {
	if p.patch != nil {
		if err := p.patch.Write(ctx, c); err != nil {
			if ctx.Err() != nil || stopsReading(err) {
				return err
			}
			p.failed = append(p.failed, err)
		}
		if p.patch.Covers(c) {
			return nil
		}
	}
	name := p.show(p.app.stdout, shownPath(c.Path))
	switch {
	case p.NameOnly:
		return p.app.print("%s%s", name, p.end())
	case p.Null && c.From != "":
		return p.app.print("%s\x00%s\x00%s\x00", c.What.Letters(), c.From, name)
	case p.Null:
		return p.app.print("%s\x00%s\x00", c.What.Letters(), name)
	case c.From != "":
		return p.app.print("%-4s %s -> %s\n", c.What.Letters(), p.show(p.app.stdout, c.From), name)
	}
	return p.app.print("%-4s %s\n", c.What.Letters(), name)
}

// stopsReading tells whether err would meet every other file, too.
func stopsReading(err error) bool {
	code := exitCode(err)
	return code == exitUnreachable || code == exitKey || code == exitLocked
}

// shownLine is a line of a file as a terminal may get it.
func shownLine(line []byte) []byte {
	text, ended := strings.CutSuffix(string(line), "\n")
	text = quote.Text(text)
	if ended {
		text += "\n"
	}
	return []byte(text)
}

func statLine(s *diff.Stat) string {
	var parts []string
	for _, n := range []struct {
		count int
		what  string
	}{
		{s.Added, "added"}, {s.Deleted, "deleted"}, {s.Renamed, "renamed"}, {s.Modified, "modified"},
		{s.Unsure, "touched"}, {s.Metadata, "metadata only"},
	} {
		if n.count > 0 {
			parts = append(parts, count(int64(n.count), "path")+" "+n.what)
		}
	}
	if len(parts) == 0 {
		return "no differences"
	}
	return strings.Join(parts, ", ") + "; +" + size(s.Plus) + ", -" + size(s.Minus)
}

// changeJSON is a change as --json shows it.
type changeJSON struct {
	Path  string     `json:"path"`
	Bytes []byte     `json:"path_bytes,omitempty"`
	From  string     `json:"from,omitempty"`
	FromB []byte     `json:"from_bytes,omitempty"`
	What  []string   `json:"what"`
	Old   *entryJSON `json:"old,omitempty"`
	New   *entryJSON `json:"new,omitempty"`
}

func changeToJSON(c *diff.Change) changeJSON {
	j := changeJSON{Path: c.Path, Bytes: bytesJSON(c.Path), From: c.From, FromB: bytesJSON(c.From), What: c.What.Words()}
	if c.Old != nil {
		e := entryToJSON(cmp.Or(c.From, c.Path), *c.Old)
		j.Old = &e
	}
	if c.New != nil {
		e := entryToJSON(c.Path, *c.New)
		j.New = &e
	}
	return j
}
