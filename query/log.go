package query

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// PathVersion is one version in the log of a path.
type PathVersion struct {
	Path string // another than the log's where it was renamed since
	snapshot.Entry
	First, Last snapshot.Info
	What        diff.What      // how it came to be
	From        string         // what it was called until then; "" for the same
	Lost        *snapshot.Info // the first snapshot without it; nil where another version follows or it is still there
	To          string         // what Lost calls it; "" when it was deleted
}

// LogPath tells every version of a path, newest first, as far as it is
// indexed. A file that came by a rename is followed back under its former name;
// what renames are, see [diff.Renames]. A path that no snapshot has is
// fs.ErrNotExist.
func (p Past) LogPath(ctx context.Context, path string) ([]PathVersion, error) {
	traces, err := p.Trace(ctx, path)
	if err != nil {
		return nil, err
	}
	var all []PathVersion
	for _, t := range traces {
		l := pathLog{past: p, series: t.Line[0].Series, line: t.Line, renames: map[int]*renames{}}
		if err := l.follow(ctx, t, len(t.Line)-1); err != nil {
			return nil, err
		}
		all = append(all, l.out...)
	}
	slices.SortStableFunc(all, func(x, y PathVersion) int { return y.First.Time.Compare(x.First.Time) })
	return all, nil
}

// pathLog makes the log of one path in one series.
type pathLog struct {
	past    Past
	series  string
	line    []snapshot.Info
	renames map[int]*renames // by the place of the second snapshot on the line
	out     []PathVersion
}

// renames are the files that have one name in a snapshot and another in the next.
type renames struct {
	from, to map[string]string
	what     map[string]diff.What // by the new name
}

// follow takes a trace backwards from a place on the line.
func (l *pathLog) follow(ctx context.Context, t history.Trace, place int) error {
	for i, v := range slices.Backward(t.Versions) {
		if v.From > place {
			continue
		}
		to := min(v.To, place)
		out := PathVersion{Path: t.Path, Entry: v.Entry, First: l.line[v.From], Last: l.line[to], What: diff.Added}
		if followed := to == place; !followed && (i+1 == len(t.Versions) || t.Versions[i+1].From > to+1) {
			r, err := l.renamesAt(ctx, to+1)
			if err != nil {
				return err
			}
			out.Lost, out.To = &l.line[to+1], r.to[t.Path]
		}
		switch {
		case v.From == 0:
		case i > 0 && t.Versions[i-1].To+1 == v.From:
			var err error
			if out.What, err = l.became(ctx, t.Versions[i-1], v); err != nil {
				return err
			}
		default:
			r, err := l.renamesAt(ctx, v.From)
			if err != nil {
				return err
			}
			if from, ok := r.from[t.Path]; ok {
				out.From, out.What = from, r.what[t.Path]
				l.out = append(l.out, out)
				return l.followName(ctx, from, v.From-1)
			}
		}
		l.out = append(l.out, out)
	}
	return nil
}

func (l *pathLog) followName(ctx context.Context, path string, place int) error {
	traces, err := l.past.Trace(ctx, path)
	if err != nil {
		return err
	}
	for _, t := range traces {
		if t.Line[0].Series == l.series {
			return l.follow(ctx, t, place)
		}
	}
	return nil
}

// became tells how a version differs from the one before it.
func (l *pathLog) became(ctx context.Context, old, now history.Version) (diff.What, error) {
	content := old.Size != now.Size
	switch {
	case content:
	case l.line[old.To].Source != l.line[now.From].Source:
		content = old.Mtime != now.Mtime
	default:
		a, err := l.past.Content(ctx, old.Version)
		if err != nil {
			return 0, err
		}
		b, err := l.past.Content(ctx, now.Version)
		if err != nil {
			return 0, err
		}
		same, known := snapshot.SameContent(a, b)
		content = known && !same || !known && old.Mtime != now.Mtime
	}
	return diff.Become(&old.Entry, &now.Entry, content && old.Mode&unix.S_IFMT == unix.S_IFREG), nil
}

// renamesAt finds the renames from the snapshot before that place to the one at it.
func (l *pathLog) renamesAt(ctx context.Context, place int) (*renames, error) {
	if r := l.renames[place]; r != nil {
		return r, nil
	}
	r := &renames{map[string]string{}, map[string]string{}, map[string]diff.What{}}
	a, b := l.line[place-1], l.line[place]
	comeAndGone := func(yield func(diff.Change, error) bool) {
		for c, err := range l.past.Changes(ctx, a.Num, b.Num) {
			out := diff.Change{Path: c.Path, Old: c.Old, New: c.New, What: diff.Added}
			switch {
			case err == nil && c.Old != nil && c.New != nil:
				continue
			case c.New == nil:
				out.What = diff.Removed
			}
			if !yield(out, err) {
				return
			}
		}
	}
	for c, err := range diff.Renames(ctx, comeAndGone, l.past.alike(a, b)) {
		if err != nil {
			return nil, err
		}
		if c.From != "" {
			r.from[c.Path], r.to[c.From], r.what[c.Path] = c.From, c.Path, c.What
		}
	}
	l.renames[place] = r
	return r, nil
}

// SnapshotStat is a snapshot with how it differs from the one before it.
type SnapshotStat struct {
	snapshot.Info
	Stat diff.Stat
	Path string // another than the log's where it was renamed since
	From string // what the directory at Path was called until then; "" for the same
}

// LogStat sums up, for those of the snapshots that are indexed, newest first,
// how each differs from the one before it in its series, at and below a path; one
// without a predecessor is all new. Those that differ in nothing are left out
// but for the path "". A directory whose files came from another, which is gone,
// is followed back under that name.
func (p Past) LogStat(ctx context.Context, path string, of []snapshot.Info) iter.Seq2[SnapshotStat, error] {
	return func(yield func(SnapshotStat, error) bool) {
		line, err := p.Timeline(ctx)
		if err != nil {
			yield(SnapshotStat{}, err)
			return
		}
		wanted := map[int64]bool{}
		for _, s := range of {
			wanted[s.Num] = true
		}
		before := map[int64]snapshot.Info{}
		newest := map[string]snapshot.Info{}
		paths := map[string]string{} // by series
		for _, s := range line {
			if s.Indexed {
				before[s.Num], newest[s.Series] = newest[s.Series], s
				paths[s.Series] = path
			}
		}
		for _, s := range slices.Backward(line) {
			old, ok := before[s.Num]
			if !ok || path == "" && !wanted[s.Num] {
				continue
			}
			out := SnapshotStat{Info: s, Path: paths[s.Series]}
			if out.From, err = p.cameFrom(ctx, out.Path, old, s); err == nil && wanted[s.Num] {
				err = p.stat(ctx, &out, old)
			}
			if err != nil {
				yield(out, err)
				return
			}
			if out.From != "" {
				paths[s.Series] = out.From
			}
			if wanted[s.Num] && (path == "" || out.Stat != diff.Stat{}) && !yield(out, nil) {
				return
			}
		}
	}
}

// cameFrom is the directory of snapshot a that the one at path in b was made of:
// one that b no longer has and most of the files new at path were in, under the
// same names below it. "" when there is none.
func (p Past) cameFrom(ctx context.Context, path string, a, b snapshot.Info) (string, error) {
	if path == "" || a.Num == 0 || p.Has(ctx, a, path) {
		return "", nil
	}
	if e, err := p.Find(ctx, b.Num, path); err != nil || e.Dir == 0 {
		return "", ignoreMissing(err)
	}
	from, files := map[string]int{}, 0
	for c, err := range diff.Renames(ctx, diff.Moments(ctx, p.Index, a, b, nil), p.alike(a, b)) {
		if err != nil {
			return "", err
		}
		below, ok := cutPath(c.Path, path)
		if !ok || c.New == nil || c.New.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		files++
		if dir, ok := strings.CutSuffix(c.From, "/"+below); ok {
			from[dir]++
		}
	}
	for dir, n := range from {
		if 2*n > files && !p.Has(ctx, b, dir) {
			return dir, nil
		}
	}
	return "", nil
}

// stat sums up what differs from snapshot a, which may be none, to that of s.
func (p Past) stat(ctx context.Context, s *SnapshotStat, a snapshot.Info) error {
	b, path, sum := s.Info, s.Path, &s.Stat
	if a.Num == 0 {
		for n, err := range p.Walk(ctx, b.Num, path) {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case n.Path == "": // the root itself
				continue
			}
			if err := sum.Add(ctx, &diff.Change{Path: n.Path, New: &n.Entry, What: diff.Added}, diff.BySize); err != nil {
				return err
			}
		}
		return nil
	}
	keep := func(at string) bool {
		_, inside := cutPath(at, path)
		_, inFrom := cutPath(at, s.From)
		return inside || s.From != "" && inFrom
	}
	for c, err := range diff.Renames(ctx, diff.Moments(ctx, p.Index, a, b, keep), p.alike(a, b)) {
		if err == nil {
			err = sum.Add(ctx, &c, p.weigh(a, b))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// LogDeleted yields what lay below a directory and is in the newest snapshot of
// its series no more, as far as it is indexed. What lies below something deleted
// is not told beside it.
func (p Past) LogDeleted(ctx context.Context, dir string) iter.Seq2[history.Trace, error] {
	type place struct{ series, path string }
	return func(yield func(history.Trace, error) bool) {
		gone := map[place]bool{} // directories; they come before what they hold
		for t, err := range p.Traces(ctx, index.Search{Below: dir, Gone: true}) {
			if err != nil {
				yield(t, err)
				return
			}
			series := t.Line[0].Series
			if slices.ContainsFunc(t.Versions, func(v history.Version) bool { return v.Mode&unix.S_IFMT == unix.S_IFDIR }) {
				gone[place{series, t.Path}] = true
			}
			parent := t.Path[:max(strings.LastIndexByte(t.Path, '/'), 0)]
			if !gone[place{series, parent}] && !yield(t, nil) {
				return
			}
		}
	}
}
