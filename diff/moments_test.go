package diff

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
)

// file is all that a test tells of a path; kind is a type's letter.
type file struct {
	kind    byte // f, d or l
	mode    uint32
	uid     uint32
	mtime   int64
	attr    string
	content []byte // ids of extents, or a link's target
}

func (f file) item(path string) snapshot.Item {
	it := snapshot.Item{Path: path, Entry: snapshot.Entry{Mode: f.mode, UID: f.uid, Mtime: f.mtime, Ctime: f.mtime + 1}}
	if f.attr != "" {
		it.Xattrs = []snapshot.Xattr{{Name: "user.a", Value: []byte(f.attr)}}
	}
	switch f.kind {
	case 'd':
		it.Mode |= 0o040000
	case 'l':
		it.Mode |= 0o120000
		it.Target = string(f.content)
	default:
		it.Mode |= 0o100000
		for _, id := range f.content {
			it.Content = append(it.Content, snapshot.Extent{ID: [32]byte{id}, Size: 10})
			it.Size += 10
		}
	}
	return it
}

// edit changes a tree at random, of few names so that they meet again.
func edit(r *rand.Rand, old map[string]file) map[string]file {
	t := maps.Clone(old)
	for range 1 + r.IntN(8) {
		path := string(rune('a' + r.IntN(5)))
		if r.IntN(2) == 0 {
			path += "/" + string(rune('a'+r.IntN(5)))
		}
		for p := range t {
			if strings.HasPrefix(p, path+"/") {
				delete(t, p)
			}
		}
		if dir, _, deep := strings.Cut(path, "/"); deep && t[dir].kind != 'd' {
			t[dir] = file{kind: 'd', mode: 0o755, mtime: 5}
		}
		f := t[path]
		switch r.IntN(7) {
		case 0:
			delete(t, path)
			continue
		case 1:
			f = file{kind: "fdl"[r.IntN(3)], mode: 0o644, mtime: int64(r.IntN(3))}
		case 2:
			f.mode ^= 0o111
		case 3:
			f.uid++
		case 4:
			f.attr += "x"
		}
		if f.kind == 0 {
			f = file{kind: 'f', mode: 0o600}
		}
		if f.kind != 'd' && r.IntN(2) == 0 {
			f.content = []byte{byte(1 + r.IntN(3)), byte(1 + r.IntN(3))}[:1+r.IntN(2)]
			f.mtime++
		}
		t[path] = f
	}
	return t
}

// naive compares two trees path by path.
func naive(a, b map[string]file) map[string]What {
	out := map[string]What{}
	for p, x := range a {
		y, ok := b[p]
		if !ok {
			out[p] = Removed
			continue
		}
		w := What(0)
		if x.kind != y.kind {
			out[p] = Kind
			continue
		}
		if x.mode != y.mode {
			w |= Mode
		}
		if x.uid != y.uid {
			w |= Owner
		}
		if x.mtime != y.mtime && x.kind != 'd' {
			w |= Time
		}
		if x.attr != y.attr {
			w |= Attributes
		}
		if string(x.content) != string(y.content) {
			w |= Content
		}
		if w != 0 {
			out[p] = w
		}
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			out[p] = Added
		}
	}
	return out
}

func TestMomentsAreAsTheNaiveComparisonSays(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		x, infos, trees := history(t, r, 6)
		for range 12 {
			i, j := r.IntN(len(trees)), r.IntN(len(trees))
			want := naive(trees[i], trees[j])
			got := map[string]What{}
			last := ""
			for c, err := range Moments(t.Context(), x, infos[i], infos[j], nil) {
				if err != nil {
					t.Fatal(err)
				}
				if c.Path <= last && last != "" && strings.Count(c.Path, "/")+strings.Count(last, "/") == 0 {
					t.Errorf("%q after %q", c.Path, last)
				}
				last = c.Path
				got[c.Path] = c.What
			}
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d, %d to %d:\ngot  %v\nwant %v", seed, i, j, said(got), said(want))
			}
			checkRenames(t, x, infos[i], infos[j], trees[i], trees[j], want)
			checkStat(t, x, infos[i], infos[j], want)
		}
	}
}

func said(m map[string]What) (all []string) {
	for p, w := range m {
		all = append(all, w.Letters()+" "+p)
	}
	slices.Sort(all)
	return all
}

// checkRenames wants each rename to be a removed and an added file of equal
// content, the rest as it was, and no such pair left.
func checkRenames(t *testing.T, x *index.Index, a, b snapshot.Info, old, now map[string]file, want map[string]What) {
	t.Helper()
	rest := maps.Clone(want)
	for c, err := range Renames(t.Context(), Moments(t.Context(), x, a, b, nil), ByExtents(x)) {
		if err != nil {
			t.Fatal(err)
		}
		if c.What&Renamed != 0 {
			if rest[c.From] != Removed || rest[c.Path] != Added || string(old[c.From].content) != string(now[c.Path].content) {
				t.Fatalf("%s is not %s renamed", c.Path, c.From)
			}
			delete(rest, c.From)
		} else if rest[c.Path] != c.What {
			t.Fatalf("%s: %s, want %s", c.Path, c.What.Letters(), rest[c.Path].Letters())
		}
		delete(rest, c.Path)
		if c.What == Added && now[c.Path].kind == 'f' && len(now[c.Path].content) > 0 {
			for p, w := range want {
				if w == Removed && old[p].kind == 'f' && string(old[p].content) == string(now[c.Path].content) && !renamedFrom(t, x, a, b, p) {
					t.Fatalf("%s was not seen to be %s renamed", c.Path, p)
				}
			}
		}
	}
	if len(rest) > 0 {
		t.Fatalf("left out: %v", said(rest))
	}
}

func renamedFrom(t *testing.T, x *index.Index, a, b snapshot.Info, path string) bool {
	for c := range Renames(t.Context(), Moments(t.Context(), x, a, b, nil), ByExtents(x)) {
		if c.From == path {
			return true
		}
	}
	return false
}

func checkStat(t *testing.T, x *index.Index, a, b snapshot.Info, want map[string]What) {
	t.Helper()
	var s, naive Stat
	for c, err := range Moments(t.Context(), x, a, b, nil) {
		if err == nil {
			err = s.Add(t.Context(), &c, ByChunks(x))
		}
		if err != nil {
			t.Fatal(err)
		}
		naive.Plus += size(c.New) - size(c.Old)
	}
	if s.Plus-s.Minus != naive.Plus {
		t.Errorf("+%d -%d, but it is %d more", s.Plus, s.Minus, naive.Plus)
	}
	if n := s.Added + s.Deleted + s.Modified + s.Metadata; n != len(want) {
		t.Errorf("%d counted of %d", n, len(want))
	}
}

// history indexes so many snapshots of one tree as it changed.
func history(t *testing.T, r *rand.Rand, n int) (x *index.Index, infos []snapshot.Info, trees []map[string]file) {
	t.Helper()
	x, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	tree := map[string]file{}
	for i := range n {
		infos = append(infos, snapshot.Info{Handle: fmt.Sprint("h", i), Name: fmt.Sprint(i), Series: "s", Time: time.Unix(int64(i), 0).UTC()})
		tree = edit(r, tree)
		trees = append(trees, tree)
	}
	if err := x.Announce(t.Context(), "src", infos); err != nil {
		t.Fatal(err)
	}
	if infos, err = x.Snapshots(t.Context(), "src"); err != nil {
		t.Fatal(err)
	}
	for i, s := range infos {
		if _, err := x.Add(t.Context(), s.Num, items(trees[i])); err != nil {
			t.Fatal(err)
		}
	}
	return x, infos, trees
}

func items(tree map[string]file) iter.Seq2[*snapshot.Item, error] {
	return func(yield func(*snapshot.Item, error) bool) {
		for _, p := range slices.Sorted(maps.Keys(tree)) {
			it := tree[p].item(p)
			if !yield(&it, nil) {
				return
			}
		}
	}
}

func TestMomentsOfPaths(t *testing.T) {
	x, infos, trees := history(t, rand.New(rand.NewPCG(7, 7)), 5)
	keep, err := pathspec.New([]string{"a", "?/b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := naive(trees[0], trees[4])
	maps.DeleteFunc(want, func(p string, _ What) bool { return !keep.Match(p) })
	got := map[string]What{}
	for c, err := range Moments(t.Context(), x, infos[0], infos[4], keep.Match) {
		if err != nil {
			t.Fatal(err)
		}
		got[c.Path] = c.What
	}
	if !maps.Equal(got, want) || len(want) == 0 {
		t.Errorf("got %v, want %v", said(got), said(want))
	}
}

// Two sources name content each in its own way.
func TestMomentsOfTwoSources(t *testing.T) {
	x, _, _ := history(t, rand.New(rand.NewPCG(1, 1)), 1)
	tree := map[string]file{"same": {kind: 'f', mode: 0o644, mtime: 1, content: []byte{1}}, "moved": {kind: 'f', mode: 0o644, mtime: 2, content: []byte{2, 3}}}
	var infos []snapshot.Info
	for i, source := range []string{"one", "two"} {
		if err := x.Announce(t.Context(), source, []snapshot.Info{{Handle: source, Series: "s", Time: time.Unix(9, 0).UTC()}}); err != nil {
			t.Fatal(err)
		}
		known, err := x.Snapshots(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, known[0])
		if i == 1 {
			tree["renamed"] = tree["moved"]
			delete(tree, "moved")
			tree["same"] = file{kind: 'f', mode: 0o644, mtime: 1, content: []byte{9}}
		}
		if _, err := x.Add(t.Context(), known[0].Num, items(tree)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for c, err := range Renames(t.Context(), Moments(t.Context(), x, infos[0], infos[1], nil), ByTime) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.What.Letters()+" "+c.From+" "+c.Path)
	}
	if !reflect.DeepEqual(got, []string{"R moved renamed"}) {
		t.Errorf("%q", got)
	}
}

func TestLetters(t *testing.T) {
	for w, want := range map[What]string{
		Added: "A", Content | Time | Mode: "Mp", Renamed | Owner: "Ro", Time | Attributes | Links: "txl",
		Kind: "T", Unsure | Time: "?t", Mode | Owner | Time: "pot",
	} {
		if got := w.Letters(); got != want || len(w.Words()) != len(want) {
			t.Errorf("%b: %s %q, want %s", w, got, w.Words(), want)
		}
	}
	if (Content | Mode).MetadataOnly() || !(Mode | Time).MetadataOnly() {
		t.Error("wrong about metadata")
	}
}

// Where a source has no names for content, size and time tell, and a file that
// was touched may have changed.
func TestMomentsWithoutNames(t *testing.T) {
	x, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	entry := func(size, mtime, ctime int64, mode uint32) snapshot.Entry {
		return snapshot.Entry{Mode: 0o100000 | mode, Size: size, Mtime: mtime, Ctime: ctime}
	}
	trees := []map[string]snapshot.Entry{
		{"grown": entry(1, 1, 1, 0o644), "written": entry(1, 1, 1, 0o644), "sly": entry(1, 1, 1, 0o644), "mode": entry(1, 1, 1, 0o644), "same": entry(1, 1, 1, 0o644), "old": entry(9, 9, 9, 0o644)},
		{"grown": entry(5, 1, 2, 0o644), "written": entry(1, 2, 2, 0o644), "sly": entry(1, 1, 2, 0o644), "mode": entry(1, 1, 2, 0o600), "same": entry(1, 1, 1, 0o644), "new": entry(9, 9, 10, 0o644)},
	}
	infos := []snapshot.Info{{Handle: "a", Series: "s", Time: time.Unix(1, 0)}, {Handle: "b", Series: "s", Time: time.Unix(2, 0)}}
	if err := x.Announce(t.Context(), "src", infos); err != nil {
		t.Fatal(err)
	}
	if infos, err = x.Snapshots(t.Context(), "src"); err != nil {
		t.Fatal(err)
	}
	for i, tree := range trees {
		_, err := x.Add(t.Context(), infos[i].Num, func(yield func(*snapshot.Item, error) bool) {
			for path, e := range tree {
				if !yield(&snapshot.Item{Path: path, Entry: e}, nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]What{}
	var s Stat
	for c, err := range Renames(t.Context(), Moments(t.Context(), x, infos[0], infos[1], nil), ByExtents(x)) {
		if err == nil {
			err = s.Add(t.Context(), &c, ByChunks(x))
		}
		if err != nil {
			t.Fatal(err)
		}
		got[c.Path] = c.What
	}
	want := map[string]What{"grown": Content, "written": Content | Time, "sly": Unsure, "mode": Mode, "new": Renamed}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", said(got), said(want))
	}
	if s.Plus != 4 || s.Minus != 0 {
		t.Errorf("+%d -%d", s.Plus, s.Minus)
	}
}
