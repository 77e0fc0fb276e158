package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// LogCmd is `s4 log`.
type LogCmd struct {
	lookFlags

	Path    string `arg:"" optional:"" help:"Only the snapshots in which this path, or what is below it, changed."`
	Number  int    `short:"n" placeholder:"N" help:"Show the newest N only."`
	Since   string `placeholder:"TIME" help:"Only what happened since then."`
	Until   string `placeholder:"TIME" help:"Only what happened until then."`
	Stat    bool   `help:"Show what each snapshot added, changed and deleted, in sums."`
	Deleted bool   `help:"Show what was deleted, below PATH or anywhere, and when it was last seen."`
	Refresh bool   `help:"Ask the remotes for news first."`
	nameFlags
}

// Help is the paragraph under --help.
func (LogCmd) Help() string {
	return `Lists the volume's snapshots from all its remotes on one time line, newest first. Of a file it lists the versions, in the letters of s4 diff, and follows it back to the names it had before; of a directory the snapshots in which something below it changed, also back to its former name. The index answers; no remote is asked unless told to, or where the index lacks something.

Examples:

  s4 log -n 10
  s4 log notes.txt
  s4 log --stat --since 2w photos
  s4 log --deleted docs`
}

// Run does it.
func (c *LogCmd) Run(ctx context.Context, a *app) error {
	return a.withPast(ctx, c.lookFlags, func(v *volume.Volume, past *volume.Past) error {
		if c.Refresh {
			if err := past.Refresh(ctx); err != nil {
				return err
			}
		}
		path := ""
		if c.Path != "" {
			var err error
			if path, err = a.inVolume(v, c.Path); err != nil {
				return err
			}
		}
		var g gaps
		if c.Path != "" || c.Stat || c.Deleted {
			var err error
			if g, err = a.complete(ctx, past); err != nil {
				return err
			}
		}
		line, err := past.Between(ctx, c.Since, c.Until)
		if err == nil {
			err = c.print(ctx, a, past, line, path, g)
		}
		return errors.Join(err, g.broken)
	})
}

func (c *LogCmd) print(ctx context.Context, a *app, past *volume.Past, line []snapshot.Info, path string, g gaps) error {
	switch {
	case c.Deleted && c.Stat:
		return usage("--deleted and --stat do not go together")
	case c.Deleted:
		return c.deleted(ctx, a, past, line, path, g)
	case c.Stat:
		return c.stat(ctx, a, past, line, path)
	case path != "":
		versions, err := past.LogPath(ctx, path)
		if err != nil {
			return err
		}
		if versions[0].Mode&unix.S_IFMT == unix.S_IFDIR {
			return c.stat(ctx, a, past, line, path)
		}
		return c.versions(a, line, path, versions)
	}
	line = slices.Clone(line)
	slices.Reverse(line)
	line = line[:c.most(len(line))]
	if a.JSON {
		list := make([]snapshotJSON, len(line))
		for i, s := range line {
			list[i] = toJSON(s)
		}
		return a.printJSON(list)
	}
	var rows [][]string
	for _, s := range line {
		rows = append(rows, snapshotRow(s))
	}
	return c.table(a, rows)
}

// most is how many of n are to be shown.
func (c *LogCmd) most(n int) int {
	if c.Number > 0 {
		return min(n, c.Number)
	}
	return n
}

func snapshotRow(s snapshot.Info) []string {
	what := s.Message
	if what == "" {
		what = s.Name
	}
	files, bytes := "", ""
	if s.Files > 0 {
		files, bytes = count(s.Files, "file"), size(s.Size)
	}
	return []string{s.Dir, s.Time.Local().Format("Mon 2006-01-02 15:04:05"), files, bytes, quote.Text(what)}
}

// table prints rows in columns; with --null their fields end with tabs, and
// they with NUL. What may hold any bytes comes last.
func (c *LogCmd) table(a *app, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			switch {
			case i == len(row)-1:
			case c.Null:
				b.WriteByte('\t')
			default:
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		text := b.String()
		if !c.Null {
			text = strings.TrimRight(text, " ")
		}
		if err := a.print("%s%s", text, c.end()); err != nil {
			return err
		}
	}
	return nil
}

// statJSON is a snapshot with how it differs from the one before it.
type statJSON struct {
	snapshotJSON
	Stat  diff.Stat `json:"stat"`
	From  string    `json:"from,omitempty"` // what the directory was called before
	FromB []byte    `json:"from_bytes,omitempty"`
}

func (c *LogCmd) stat(ctx context.Context, a *app, past *volume.Past, line []snapshot.Info, path string) error {
	list := []statJSON{}
	n := 0
	for s, err := range past.LogStat(ctx, path, line) {
		if err != nil {
			return err
		}
		if a.JSON {
			list = append(list, statJSON{toJSON(s.Info), s.Stat, s.From, bytesJSON(s.From)})
		} else if err := c.table(a, [][]string{append(snapshotRow(s.Info), c.statLine(a, &s))}); err != nil {
			return err
		}
		if n++; n == c.Number {
			break
		}
	}
	if a.JSON {
		return a.printJSON(list)
	}
	return nil
}

// statLine is the last field of a snapshot's line.
func (c *LogCmd) statLine(a *app, s *query.SnapshotStat) string {
	text := statLine(&s.Stat)
	if s.From != "" {
		text += "  " + c.show(a.stdout, s.From) + " -> " + c.show(a.stdout, s.Path)
	}
	return text
}

// versionJSON is one version of a path.
type versionJSON struct {
	entryJSON
	First snapshotJSON  `json:"first"`
	Last  snapshotJSON  `json:"last"`
	What  []string      `json:"what"`
	From  string        `json:"from,omitempty"` // what it was called before
	FromB []byte        `json:"from_bytes,omitempty"`
	Lost  *snapshotJSON `json:"lost,omitempty"` // the first snapshot without it
	To    string        `json:"to,omitempty"`   // what that one calls it
	ToB   []byte        `json:"to_bytes,omitempty"`
}

// versions prints the versions that came or went in a snapshot of the line.
func (c *LogCmd) versions(a *app, line []snapshot.Info, path string, versions []query.PathVersion) error {
	in := func(s *snapshot.Info) bool {
		return s != nil && slices.ContainsFunc(line, func(o snapshot.Info) bool { return o.Num == s.Num })
	}
	versions = slices.DeleteFunc(versions, func(v query.PathVersion) bool { return !in(&v.First) && !in(v.Lost) })
	versions = versions[:c.most(len(versions))]
	if a.JSON {
		list := make([]versionJSON, len(versions))
		for i, v := range versions {
			list[i] = versionJSON{entryJSON: entryToJSON(v.Path, v.Entry), First: toJSON(v.First), Last: toJSON(v.Last), What: v.What.Words(),
				From: v.From, FromB: bytesJSON(v.From), To: v.To, ToB: bytesJSON(v.To)}
			if v.Lost != nil {
				lost := toJSON(*v.Lost)
				list[i].Lost = &lost
			}
		}
		return a.printJSON(list)
	}
	var rows [][]string
	for _, v := range versions {
		name := ""
		switch {
		case v.From != "":
			name = c.show(a.stdout, v.From) + " -> " + c.show(a.stdout, v.Path)
		case v.Path != path:
			name = c.show(a.stdout, v.Path)
		}
		switch {
		case v.To != "":
			rows = append(rows, []string{"R", v.Lost.Dir, "", "", "", c.show(a.stdout, v.Path) + " -> " + c.show(a.stdout, v.To)})
		case v.Lost != nil:
			rows = append(rows, []string{"D", v.Lost.Dir, "", "", "", name})
		}
		span := v.First.Dir
		if v.First.Num != v.Last.Num {
			span += " … " + v.Last.Dir
		}
		rows = append(rows, []string{v.What.Letters(), span, modeString(v.Mode), size(v.Size),
			"modified " + time.Unix(0, v.Mtime).Local().Format("2006-01-02 15:04:05"), name})
	}
	return c.table(a, rows)
}

// deletedJSON is a path that is gone.
type deletedJSON struct {
	foundJSON
	LastSeen string `json:"last_seen"` // snapshots by their names under .s4/history
	Lost     string `json:"lost"`      // the first one without it
}

// deleted prints what went in a snapshot of the line.
func (c *LogCmd) deleted(ctx context.Context, a *app, past *volume.Past, line []snapshot.Info, dir string, g gaps) error {
	in := map[int64]bool{}
	for _, s := range line {
		in[s.Num] = true
	}
	var list *listJSON
	if a.JSON {
		var err error
		if list, err = a.listJSON(g, "deleted"); err != nil {
			return err
		}
	}
	n, example := 0, ""
	for t, err := range past.LogDeleted(ctx, dir) {
		if err != nil {
			return err
		}
		newest := t.Newest()
		seen, lost := t.Line[newest.To], t.Line[newest.To+1]
		if !in[lost.Num] {
			continue
		}
		name := t.Path
		if newest.Dir != 0 {
			name += "/"
		}
		switch {
		case list != nil:
			err = list.add(deletedJSON{foundToJSON(&t), seen.Dir, lost.Dir})
		case c.Null:
			err = a.print("%s\x00", t.Path)
		default:
			err = a.print("%s  deleted %s  %10s  %s\n", seen.Dir, lost.Dir, size(newest.Size), c.show(a.stdout, name))
		}
		if err != nil {
			return err
		}
		if example == "" {
			example = t.Path
		}
		if n++; n == c.Number {
			break
		}
	}
	if list != nil {
		return list.end()
	}
	if example != "" {
		a.say("hint: bring them back with, for example: s4 restore --deleted %s", quote.Shell(example))
	}
	return nil
}
