package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
)

// moment is a tree as it once was, by path.
type moment struct {
	id   string
	time time.Time
	tree map[string]thing
}

// thing is a file, or with content 0 a directory. A content never comes twice.
type thing struct {
	content uint16
	mode    uint32
}

func (f thing) isDir() bool { return f.content == 0 }

func (f thing) entry() snapshot.Entry {
	if f.isDir() {
		return snapshot.Entry{Mode: unix.S_IFDIR | 0o755, Mtime: 1}
	}
	return snapshot.Entry{Mode: unix.S_IFREG | f.mode, Mtime: int64(f.content), Size: f.size()}
}

func (f thing) size() int64 { return int64(f.content%97) + 1 }

// source holds some of the moments.
type source struct {
	name    string
	mu      sync.Mutex
	moments []*moment
}

func (s *source) ID() string { return s.name }

func (s *source) Local() bool { return true }

func (s *source) Snapshots(context.Context) (infos []snapshot.Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.moments {
		infos = append(infos, snapshot.Info{ID: m.id, Handle: s.name + m.id, Name: m.id, Series: "v", Time: m.time})
	}
	return infos, nil
}

func (s *source) Scan(_ context.Context, info snapshot.Info, _ []snapshot.Section) snapshot.Scanner {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.moments, func(m *moment) bool { return m.id == info.ID })
	return snapshot.ScanItems(func(yield func(*snapshot.Item, error) bool) {
		if i < 0 {
			yield(nil, fs.ErrNotExist)
			return
		}
		for path, f := range s.moments[i].tree {
			it := snapshot.Item{Path: path, Entry: f.entry()}
			if !f.isDir() {
				e := snapshot.Extent{Size: uint32(f.size())}
				copy(e.ID[:], fmt.Sprintf("%03d%s", f.content, s.name))
				it.Content = []snapshot.Extent{e}
			}
			if !yield(&it, nil) {
				return
			}
		}
	})
}

func (s *source) Open(context.Context, []snapshot.Extent) (snapshot.File, error) {
	return nil, errors.ErrUnsupported
}

// editTree changes a copy of the tree.
func editTree(r *rand.Rand, old map[string]thing, content *uint16) map[string]thing {
	t := maps.Clone(old)
	name := func() string { return string(rune('a' + r.IntN(4))) }
	remove := func(path string) {
		maps.DeleteFunc(t, func(p string, _ thing) bool { return p == path || strings.HasPrefix(p, path+"/") })
	}
	for range 1 + r.IntN(4) {
		path := name()
		for range r.IntN(3) {
			if f, ok := t[path]; !ok || !f.isDir() {
				t[path] = thing{}
			}
			path += "/" + name()
		}
		switch f, ok := t[path]; {
		case ok && r.IntN(2) == 0:
			remove(path)
		case ok && !f.isDir() && r.IntN(2) == 0:
			f.mode ^= 0o022
			t[path] = f
		default:
			remove(path)
			*content++
			t[path] = thing{*content, 0o644}
		}
	}
	return t
}

// world of moments in two sources, and the time line over them.
type momentWorld struct {
	*testing.T
	past    Past
	sources [2]*source
	shown   []*moment // on the line
	from    []int     // the source that each is shown from
}

func newMomentWorld(t *testing.T, r *rand.Rand) *momentWorld {
	t.Helper()
	ctx := t.Context()
	ix, err := index.Open(ctx, filepath.Join(t.TempDir(), "index.db"), nil)
	must(t, err)
	t.Cleanup(func() { must(t, ix.Close()) })
	w := &momentWorld{T: t, sources: [2]*source{{name: "A"}, {name: "B"}}}
	var all []*moment
	var content uint16
	tree := map[string]thing{}
	for i := range 3 + r.IntN(7) {
		tree = editTree(r, tree, &content)
		all = append(all, &moment{fmt.Sprintf("m%02d", i), time.Date(2026, 3, 1+i, 12, 0, 0, 0, time.UTC), tree})
	}
	w.past = Past{Index: ix, History: history.New(history.Options{
		Index: ix, Sources: []snapshot.Source{w.sources[0], w.sources[1]}, Location: time.UTC,
		Now: func() time.Time { return time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC) },
	})}
	t.Cleanup(func() { must(t, w.past.Close()) })

	both := r.IntN(2) // else B stays empty
	for range 3 {     // snapshots come and go, and are indexed in any order
		for i, s := range w.sources {
			s.mu.Lock()
			s.moments = nil
			for _, m := range all {
				if i == 0 && r.IntN(4) > 0 || i == 1 && both == 1 && r.IntN(3) > 0 {
					s.moments = append(s.moments, m)
				}
			}
			s.mu.Unlock()
		}
		must(t, w.past.Refresh(ctx))
		line, err := w.past.Timeline(ctx)
		must(t, err)
		for _, i := range r.Perm(len(line))[:len(line)/2] {
			must(t, w.past.Ensure(ctx, line[i].Num))
		}
	}
	must(t, w.past.Fill(ctx, history.FillOptions{}))
	_, err = w.past.CompleteCopies(ctx, nil)
	must(t, err)
	line, err := w.past.Timeline(ctx)
	must(t, err)
	for _, m := range all {
		held := func(s *source) bool { return slices.Contains(s.moments, m) }
		if !held(w.sources[0]) && !held(w.sources[1]) {
			continue
		}
		i := slices.IndexFunc(line, func(s snapshot.Info) bool { return s.ID == m.id })
		if i != len(w.shown) {
			t.Fatalf("the line has %s at %d instead of %d", m.id, i, len(w.shown))
		}
		// Of two copies one is read that is indexed.
		w.shown, w.from = append(w.shown, m), append(w.from, strings.Index("AB", line[i].Source))
	}
	if len(line) != len(w.shown) {
		t.Fatalf("the line has %d snapshots instead of %d", len(line), len(w.shown))
	}
	return w
}

// run is a time in which a path was one thing: shown[from] to shown[to].
type run struct {
	thing
	from, to int
}

// runs are all that the paths ever were.
func (w *momentWorld) runs() map[string][]run {
	all := map[string][]run{}
	for i, m := range w.shown {
		for path, f := range m.tree {
			rs := all[path]
			if n := len(rs); n > 0 && rs[n-1].to == i-1 && rs[n-1].thing == f {
				rs[n-1].to = i
			} else {
				all[path] = append(rs, run{f, i, i})
			}
		}
	}
	return all
}

func (w *momentWorld) traceRuns(t *history.Trace) (rs []run) {
	for _, v := range t.Versions {
		rs = append(rs, run{w.thing(v.Entry), w.place(t.Line[v.From]), w.place(t.Line[v.To])})
	}
	return rs
}

func (w *momentWorld) thing(e snapshot.Entry) thing {
	if e.Mode&unix.S_IFMT == unix.S_IFDIR {
		return thing{}
	}
	return thing{uint16(e.Mtime), e.Mode & 0o777}
}

func (w *momentWorld) place(s snapshot.Info) int {
	return slices.IndexFunc(w.shown, func(m *moment) bool { return m.id == s.ID })
}

// TestQuestionsAreAnsweredAsTheTreesSay asks everything that is asked of the
// index alone about random trees in two sources, which came and went.
func TestQuestionsAreAnsweredAsTheTreesSay(t *testing.T) {
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 21))
			w := newMomentWorld(t, r)
			if len(w.shown) == 0 {
				return
			}
			for range 4 {
				w.checkFind(r)
			}
			w.checkLog()
			w.checkDeleted()
			w.checkEver(r)
			w.checkGone()
			w.checkUsage(r)
		})
	}
}

func (w *momentWorld) checkFind(r *rand.Rand) {
	w.Helper()
	names := must1(pathspec.NewNames([]string{[]string{"*", "a", "b/*", "[c-d]"}[r.IntN(4)]}, pathspec.NamesOptions{}))
	o := FindOptions{Names: names, Deleted: r.IntN(2) == 0, Type: []uint32{0, unix.S_IFREG, unix.S_IFDIR}[r.IntN(3)]}
	since, until := 0, len(w.shown)-1
	window := false
	switch last := len(w.shown) - 1; r.IntN(4) {
	case 0:
		since = r.IntN(last + 1)
		o.Since, window = w.shown[since].time.Format("2006-01-02"), true
	case 1:
		until = r.IntN(last + 1)
		o.Until, window = w.shown[until].time.Format("2006-01-02"), true
	case 2:
		since = r.IntN(last + 1)
		until, o.Deleted, window = since, false, true
		o.At = fmt.Sprintf("latest~%d", last-since)
	}
	inside := func(v run) bool { return v.from <= until && v.to >= since }
	want := map[string][]run{}
	for path, rs := range w.runs() {
		dir, name := filepath.Split(path)
		newest := rs[len(rs)-1]
		gone := newest.to < len(w.shown)-1
		switch {
		case !names.Match(strings.TrimSuffix(dir, "/"), name), o.Deleted && !gone,
			o.Deleted && (newest.to+1 < since || newest.to+1 > until):
			continue
		case o.At != "":
			rs = slices.DeleteFunc(rs, func(v run) bool { return !inside(v) })
		}
		rs = slices.DeleteFunc(rs, func(v run) bool { return o.Type != 0 && v.isDir() != (o.Type == unix.S_IFDIR) })
		if len(rs) > 0 && (!window || o.Deleted || slices.ContainsFunc(rs, inside)) {
			want[path] = rs
		}
	}
	got := map[string][]run{}
	for t, err := range w.past.FindPaths(w.Context(), o) {
		must(w.T, err)
		got[t.Path] = w.traceRuns(&t)
	}
	w.same("find", fmt.Sprintf("%+v", o), got, want)
}

func (w *momentWorld) same(what, of string, got, want map[string][]run) {
	w.Helper()
	if !maps.EqualFunc(got, want, slices.Equal) {
		w.Fatalf("%s %s:\n got %v\nwant %v\nline %v", what, of, got, want, w.from)
	}
}

// checkLog asks for the log of every path, and of every directory with sums.
func (w *momentWorld) checkLog() {
	w.Helper()
	got, want := map[string][]run{}, w.runs()
	for path, rs := range want {
		versions, err := w.past.LogPath(w.Context(), path)
		must(w.T, err)
		for i, v := range slices.Backward(versions) {
			if v.From != "" || v.To != "" || v.Path != path {
				w.Fatalf("log %s: renamed, %+v", path, v)
			}
			n := len(versions) - 1 - i
			lost := rs[n].to < len(w.shown)-1 && (n+1 == len(rs) || rs[n+1].from > rs[n].to+1)
			if (v.Lost != nil) != lost || lost && w.place(*v.Lost) != rs[n].to+1 {
				w.Fatalf("log %s: lost %+v, want %v", path, v.Lost, rs[n])
			}
			if isNew := n == 0 || rs[n-1].to+1 < rs[n].from; (v.What == diff.Added) != isNew {
				w.Fatalf("log %s: %s, want %v", path, v.What.Letters(), rs)
			}
			got[path] = append(got[path], run{w.thing(v.Entry), w.place(v.First), w.place(v.Last)})
		}
	}
	w.same("log", "", got, want)
	if _, err := w.past.LogPath(w.Context(), "never"); !errors.Is(err, fs.ErrNotExist) {
		w.Fatal(err)
	}

	line, err := w.past.Timeline(w.Context())
	must(w.T, err)
	for path := range w.runs() {
		next := len(line) - 1
		for s, err := range w.past.LogStat(w.Context(), path, line) {
			must(w.T, err)
			at := w.place(s.Info)
			for ; next > at; next-- {
				if sum := w.stat(path, next); sum != (diff.Stat{}) {
					w.Fatalf("log --stat %s leaves out %d: %+v", path, next, sum)
				}
			}
			sum := s.Stat
			sum.Plus, sum.Minus = 0, 0 // counted by chunks or by sizes
			if want := w.stat(path, at); sum != want {
				w.Fatalf("log --stat %s at %d: %+v, want %+v", path, at, sum, want)
			}
			next = at - 1
		}
	}
}

// stat counts how the moment at place differs from the one before it.
func (w *momentWorld) stat(path string, place int) (sum diff.Stat) {
	old := map[string]thing{}
	if place > 0 {
		old = w.shown[place-1].tree
	}
	now := w.shown[place].tree
	below := func(p string) bool { return p == path || strings.HasPrefix(p, path+"/") }
	for p, f := range now {
		o, was := old[p]
		switch {
		case !below(p) || was && o == f:
		case !was:
			sum.Added++
		case o.content != f.content:
			sum.Modified++
		default:
			sum.Metadata++
		}
	}
	for p := range old {
		if _, is := now[p]; below(p) && !is {
			sum.Deleted++
		}
	}
	return sum
}

func (w *momentWorld) checkDeleted() {
	w.Helper()
	newest := w.shown[len(w.shown)-1].tree
	dirs := map[string]bool{"": true}
	all := w.runs()
	for path, rs := range all {
		if slices.ContainsFunc(rs, func(v run) bool { return v.isDir() }) {
			dirs[path] = true
		}
	}
	for dir := range dirs {
		want := map[string][]run{}
		for path, rs := range all {
			if _, is := newest[path]; is || dir != "" && !strings.HasPrefix(path, dir+"/") {
				continue
			}
			parent := path[:max(strings.LastIndexByte(path, '/'), 0)]
			if _, is := newest[parent]; is || parent == dir {
				want[path] = rs
			} else if f, is := newest[parent]; is && !f.isDir() {
				want[path] = rs
			}
		}
		got := map[string][]run{}
		for t, err := range w.past.LogDeleted(w.Context(), dir) {
			must(w.T, err)
			got[t.Path] = w.traceRuns(&t)
		}
		w.same("log --deleted", dir, got, want)
	}
}

// checkGone asks what .s4/deleted shows.
func (w *momentWorld) checkGone() {
	w.Helper()
	ctx := w.Context()
	newest := w.shown[len(w.shown)-1].tree
	want := map[string]map[string]bool{"": {}} // by directory: whether the name is gone itself
	note := func(path string, gone bool) {
		dir := path[:max(strings.LastIndexByte(path, '/'), 0)]
		if want[dir] == nil {
			want[dir] = map[string]bool{}
		}
		want[dir][filepath.Base(path)] = want[dir][filepath.Base(path)] || gone
	}
	for path, rs := range w.runs() {
		_, is := newest[path]
		g, err := w.past.GoneAt(ctx, path)
		wasDir := slices.ContainsFunc(rs, func(v run) bool { return v.isDir() })
		switch last := rs[len(rs)-1]; {
		case is && !wasDir:
			if !errors.Is(err, fs.ErrNotExist) {
				w.Fatalf("%s is gone: %+v, %v", path, g, err)
			}
		case err != nil || (g.Last.Num == 0) != is || !is && (w.place(g.Last) != last.to || w.thing(g.Entry) != last.thing):
			w.Fatalf("%s: %+v, %v; want %v", path, g, err, last)
		}
		if g.Last.Num != 0 {
			if again, err := w.past.Stat(ctx, g.Last.Num, g.Entry.Version); err != nil || again.Version != g.Entry.Version {
				w.Fatalf("%s: %+v is not in its snapshot: %v", path, g, err)
			}
		}
		if is {
			continue
		}
		note(path, true)
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			note(dir, false)
		}
	}
	for dir, names := range want {
		all, err := w.past.Gone(ctx, dir)
		must(w.T, err)
		got := map[string]bool{}
		for _, g := range all {
			got[g.Entry.Name] = g.Last.Num != 0
		}
		if !maps.Equal(got, names) {
			w.Fatalf("gone in %q: %v, want %v", dir, got, names)
		}
	}
}

// checkEver asks what .s4/versions shows.
func (w *momentWorld) checkEver(r *rand.Rand) {
	w.Helper()
	ctx := w.Context()
	all := w.runs()
	dirs := map[string][]string{"": nil}
	for path, rs := range all {
		e, err := w.past.EverAt(ctx, path)
		must(w.T, err)
		perm := uint32(0o7777)
		wasDir := false
		for _, v := range rs {
			perm &= v.entry().Mode
			wasDir = wasDir || v.isDir()
		}
		if e.Perm != perm&0o7777 || (e.Dir != 0) != wasDir || !e.OneOwner || e.Name != filepath.Base(path) {
			w.Fatalf("%s ever: %+v, want %o of %v", path, e, perm, rs)
		}
		if wasDir {
			dirs[path] = append(dirs[path], []string{}...)
			if got, err := w.past.DirPath(ctx, e.Dir); err != nil || got != path {
				w.Fatalf("directory %d is %q instead of %q: %v", e.Dir, got, path, err)
			}
		}
		if got, err := w.past.Path(ctx, e.Version); err != nil || got != path {
			w.Fatalf("version %d is %q instead of %q: %v", e.Version, got, path, err)
		}
		parent := path[:max(strings.LastIndexByte(path, '/'), 0)]
		dirs[parent] = append(dirs[parent], filepath.Base(path))

		moments, err := w.past.Distinct(ctx, path)
		must(w.T, err)
		if len(moments) != len(rs) {
			w.Fatalf("%s has %d versions, want %v", path, len(moments), rs)
		}
		for i, m := range moments {
			if w.place(m.Info) != rs[i].from || w.thing(m.Entry) != rs[i].thing {
				w.Fatalf("%s: version %+v, want %v", path, m, rs[i])
			}
			if again, err := w.past.Stat(ctx, m.Info.Num, m.Entry.Version); err != nil || again.Version != m.Entry.Version {
				w.Fatalf("%s: version %+v is not in its snapshot: %v", path, m, err)
			}
		}
	}
	for dir, want := range dirs {
		slices.Sort(want)
		var got []string
		for limit, after := 1+r.IntN(5), ""; ; {
			page, err := w.past.Ever(ctx, dir, after, limit)
			must(w.T, err)
			for _, e := range page {
				after = e.Name
				got = append(got, e.Name)
			}
			if len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			w.Fatalf("ever in %q: %q, want %q", dir, got, want)
		}
	}
}

func (w *momentWorld) checkUsage(r *rand.Rand) {
	w.Helper()
	dir := ""
	for path, f := range w.shown[len(w.shown)-1].tree {
		if f.isDir() && r.IntN(2) == 0 {
			dir = path
		}
	}
	type sums struct{ added, only int64 }
	want, total := make([]sums, len(w.shown)), sums{}
	for place, m := range w.shown {
		held := w.sources[w.from[place]].moments
		for path, f := range m.tree {
			if f.isDir() || dir != "" && !strings.HasPrefix(path, dir+"/") {
				continue
			}
			has := func(o *moment) bool {
				for _, g := range o.tree {
					if g.content == f.content {
						return true
					}
				}
				return false
			}
			at := slices.Index(held, m)
			if slices.IndexFunc(held, has) != at {
				continue
			}
			want[place].added += f.size()
			if !slices.ContainsFunc(held[at+1:], has) {
				want[place].only += f.size()
			}
		}
		total.added += want[place].added
		total.only += want[place].only
	}
	u, err := w.past.Usage(w.Context(), UsageOptions{Path: dir, Depth: 3})
	must(w.T, err)
	for i, s := range slices.Backward(u.Snapshots) {
		if place := len(w.shown) - 1 - i; want[place] != (sums{s.Added, s.Only}) || w.place(s.Info) != place {
			w.Fatalf("du %q: %+v, want %+v", dir, s, want[place])
		}
	}
	if len(u.Dirs) > 0 && (u.Dirs[0].Added != total.added || u.Dirs[0].Only != total.only) {
		w.Fatalf("du %q: %+v, want %+v", dir, u.Dirs, total)
	}
	for _, d := range u.Dirs[min(1, len(u.Dirs)):] {
		one, err := w.past.Usage(w.Context(), UsageOptions{Path: d.Path})
		must(w.T, err)
		if len(one.Dirs) != 1 || one.Dirs[0] != d {
			w.Fatalf("du of %q: %+v, below %q %+v", d.Path, one.Dirs, dir, d)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
