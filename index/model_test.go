package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

// model is the naive index: whole trees by snapshot.
type model struct {
	chains map[string][]modelSnapshot // by series, indexed ones, oldest first
}

type modelSnapshot struct {
	info snapshot.Info
	tree map[string]modelEntry
}

// modelEntry is what a user can tell of an entry: no numbers of the index.
type modelEntry struct {
	snapshot.Entry
	content []snapshot.Extent
}

func (m modelEntry) equal(o modelEntry) bool { return reflect.DeepEqual(m, o) }

// randomTree makes a tree out of few names, so that snapshots share many
// paths, and paths change what they are.
func randomTree(r *rand.Rand) map[string]modelEntry {
	t := map[string]modelEntry{}
	for range r.IntN(25) {
		var elems []string
		for range 1 + r.IntN(3) {
			elems = append(elems, string(rune('a'+r.IntN(4))))
		}
		putRandom(r, t, strings.Join(elems, "/"))
	}
	return t
}

// edit changes a copy of the tree.
func edit(r *rand.Rand, old map[string]modelEntry) map[string]modelEntry {
	t := maps.Clone(old)
	for range r.IntN(6) {
		paths := slices.Sorted(maps.Keys(t))
		switch {
		case len(paths) > 0 && r.IntN(3) == 0:
			removePath(t, paths[r.IntN(len(paths))])
		case len(paths) > 0 && r.IntN(2) == 0:
			putRandom(r, t, paths[r.IntN(len(paths))]) // also directory to file
		default:
			putRandom(r, t, fmt.Sprintf("%c/%c", 'a'+rune(r.IntN(4)), 'a'+rune(r.IntN(4))))
		}
	}
	return t
}

func removePath(t map[string]modelEntry, path string) {
	for p := range t {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(t, p)
		}
	}
}

func putRandom(r *rand.Rand, t map[string]modelEntry, path string) {
	for dir, _ := cutLast(path); dir != ""; dir, _ = cutLast(dir) {
		if e, ok := t[dir]; !ok || e.Mode&modeType != modeDir {
			t[dir] = modelEntry{Entry: dir0(r)}
		}
	}
	if r.IntN(4) == 0 {
		t[path] = modelEntry{Entry: dir0(r)}
		return
	}
	removePath(t, path)
	n := byte(r.IntN(3))
	if r.IntN(3) == 0 {
		n = byte(r.IntN(256)) // content that nothing else has
	}
	it := file("x", n)
	e := modelEntry{Entry: it.Entry, content: it.Content}
	e.Nlink = 1
	switch r.IntN(8) {
	case 0:
		e.Mode, e.Target, e.Size, e.content = 0o120777, strings.Repeat("t", int(n%3)), 0, nil
	case 1:
		e.Xattrs = []snapshot.Xattr{{Name: "user.k", Value: []byte{n}}}
	case 2:
		e.Size, e.content = 0, nil
	}
	t[path] = e
}

func dir0(r *rand.Rand) snapshot.Entry {
	e := dir("x").Entry
	e.Nlink = 1
	if r.IntN(3) == 0 { // one that no archive has an item for
		return snapshot.Entry{Mode: 0o040755, Nlink: 1}
	}
	e.Mtime = int64(1 + r.IntN(2))
	return e
}

// items gives the tree as an archive would, in any order, without the
// directories that need no item.
func items(r *rand.Rand, t map[string]modelEntry) (all []snapshot.Item) {
	nonEmpty := map[string]bool{"": true}
	for p := range t {
		d, _ := cutLast(p)
		nonEmpty[d] = true
	}
	for p, e := range t {
		if e.Mode == 0o040755 && e.Mtime == 0 && nonEmpty[p] {
			continue
		}
		all = append(all, snapshot.Item{Path: p, Entry: e.Entry, Content: e.content})
	}
	slices.SortFunc(all, func(a, b snapshot.Item) int { return cmp.Compare(a.Path, b.Path) })
	if r.IntN(2) == 0 {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return all
}

// withRoot adds what the index always has.
func withRoot(t map[string]modelEntry) map[string]modelEntry {
	t = maps.Clone(t)
	t[""] = modelEntry{Entry: snapshot.Entry{Mode: 0o040755, Nlink: 1}}
	return t
}

func (x *Index) plain(ctx context.Context, e snapshot.Entry) (modelEntry, error) {
	content, err := x.Content(ctx, e.Version)
	e.Version, e.Dir, e.Name = 0, 0, ""
	return modelEntry{e, content}, err
}

func TestEqualsModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { checkAgainstModel(t, seed) })
	}
}

func checkAgainstModel(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 4))
	var snaps []modelSnapshot
	for _, series := range []string{"one", "two"} {
		tree := randomTree(r)
		for i := range 2 + r.IntN(6) {
			sec := int64(1000 + i/2) // some at the same moment
			s := info(fmt.Sprintf("%s%d", series, i), series, sec)
			snaps = append(snaps, modelSnapshot{s, withRoot(tree)})
			tree = edit(r, tree)
		}
	}
	var infos []snapshot.Info
	for _, s := range snaps {
		infos = append(infos, s.info)
	}
	x := open(t)
	nums := announce(t, x, infos...)
	indexed := map[string]bool{}
	for step := range 3 * len(snaps) {
		s := snaps[r.IntN(len(snaps))]
		if indexed[s.info.Handle] && r.IntN(3) == 0 {
			gone := slices.DeleteFunc(slices.Clone(infos), func(i snapshot.Info) bool { return i.Handle == s.info.Handle })
			announce(t, x, gone...)
			nums = announce(t, x, infos...)
			delete(indexed, s.info.Handle)
		} else {
			add(t, x, nums[s.info.Handle], items(r, s.tree)...)
			indexed[s.info.Handle] = true
		}
		if step%4 == 0 {
			checkModel(t, x, snaps, indexed)
		}
	}
	checkModel(t, x, snaps, indexed)
	checkCanonical(t, x, snaps, indexed)
}

func checkModel(t *testing.T, x *Index, snaps []modelSnapshot, indexed map[string]bool) {
	t.Helper()
	known, err := x.Snapshots(t.Context(), "src")
	if err != nil {
		t.Fatal(err)
	}
	m := model{chains: map[string][]modelSnapshot{}}
	for _, info := range known {
		if info.Indexed != indexed[info.Handle] {
			t.Fatalf("%s: indexed is %v", info.Handle, info.Indexed)
		}
		i := slices.IndexFunc(snaps, func(s modelSnapshot) bool { return s.info.Handle == info.Handle })
		if info.Indexed {
			m.chains[info.Series] = append(m.chains[info.Series], modelSnapshot{info, snaps[i].tree})
		} else if _, err := x.Root(t.Context(), info.Num); !errors.Is(err, ErrNotIndexed) {
			t.Fatalf("root of what is not indexed: %v", err)
		}
	}
	for _, chain := range m.chains {
		for _, s := range chain {
			checkTree(t, x, s)
		}
		checkVersions(t, x, chain)
	}
	checkSearch(t, x, m.chains)
	checkUsage(t, x, m.chains)
	all := append(slices.Clone(m.chains["one"]), m.chains["two"]...)
	for _, a := range all {
		for _, b := range all {
			checkChanges(t, x, a, b)
		}
	}
}

func checkTree(t *testing.T, x *Index, s modelSnapshot) {
	t.Helper()
	var got []string
	for n, err := range x.Walk(t.Context(), s.info.Num, "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.Path)
		e, err := x.plain(t.Context(), n.Entry)
		want := s.tree[n.Path]
		want.Subdirs = subdirs(s.tree, n.Path)
		if err != nil || !e.equal(want) {
			t.Fatalf("%s: %q is %+v, want %+v (%v)", s.info.Handle, n.Path, e, want, err)
		}
		again, err := x.Stat(t.Context(), s.info.Num, n.Version)
		if err != nil || !reflect.DeepEqual(again, n.Entry) {
			t.Fatalf("stat: %+v, %v", again, err)
		}
		found, err := x.Find(t.Context(), s.info.Num, n.Path)
		if err != nil || !reflect.DeepEqual(found, n.Entry) {
			t.Fatalf("find: %+v, %v", found, err)
		}
	}
	if want := slices.SortedFunc(maps.Keys(s.tree), comparePaths); !slices.Equal(got, want) {
		t.Fatalf("%s holds %q, want %q", s.info.Handle, got, want)
	}
}

// checkVersions compares the versions of every path there ever was, and what
// each snapshot lacks of them.
func checkVersions(t *testing.T, x *Index, chain []modelSnapshot) {
	t.Helper()
	type run struct {
		e           modelEntry
		first, last int64
	}
	ever := map[string][]run{}
	for i, s := range chain {
		for path, e := range s.tree {
			runs := ever[path]
			if n := len(runs); n > 0 && runs[n-1].last == chain[max(0, i-1)].info.Num && runs[n-1].e.equal(e) {
				runs[n-1].last = s.info.Num
			} else {
				ever[path] = append(runs, run{e, s.info.Num, s.info.Num})
			}
		}
	}
	for path, want := range ever {
		versions, err := x.Versions(t.Context(), chain[0].info.Num, path)
		if err != nil {
			t.Fatal(err)
		}
		var got []run
		for _, v := range versions {
			e, err := x.plain(t.Context(), v.Entry)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, run{e, v.First.Num, v.Last.Num})
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("versions of %q:\n got %+v\nwant %+v", path, got, want)
		}
	}
	for _, s := range chain {
		for dir, e := range s.tree {
			if e.Mode&modeType == modeDir {
				checkDeleted(t, x, chain, s, dir)
			}
		}
	}
}

func checkDeleted(t *testing.T, x *Index, chain []modelSnapshot, s modelSnapshot, dir string) {
	t.Helper()
	want := map[string]modelEntry{}
	for _, o := range chain {
		for path, e := range o.tree {
			if parent, name := cutLast(path); path != "" && parent == dir && s.tree[path].Mode == 0 {
				want[name] = e
			}
		}
	}
	d, err := x.Find(t.Context(), s.info.Num, dir)
	if err != nil {
		t.Fatal(err)
	}
	deleted, err := x.Deleted(t.Context(), s.info.Num, d.Dir, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]modelEntry{}
	for _, v := range deleted {
		if got[v.Name], err = x.plain(t.Context(), v.Entry); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("deleted in %q at %s:\n got %+v\nwant %+v", dir, s.info.Handle, got, want)
	}
}

// checkUsage compares what each snapshot added with what the trees hold.
func checkUsage(t *testing.T, x *Index, chains map[string][]modelSnapshot) {
	t.Helper()
	trees := map[int64]map[string]modelEntry{}
	for _, chain := range chains {
		for _, s := range chain {
			trees[s.info.Num] = s.tree
		}
	}
	in := map[snapshot.Extent][]int64{} // snapshots, oldest first
	for _, s := range mustSnapshots(t, x) {
		held := map[snapshot.Extent]bool{}
		for _, e := range trees[s.Num] {
			for _, extent := range e.content {
				held[extent] = true
			}
		}
		for extent := range held {
			in[extent] = append(in[extent], s.Num)
		}
	}
	type sums struct{ added, only int64 }
	want, got := map[int64]sums{}, map[int64]sums{}
	for extent, nums := range in {
		s := want[nums[0]]
		s.added += int64(extent.Size)
		if len(nums) == 1 {
			s.only += int64(extent.Size)
		}
		want[nums[0]] = s
	}
	usage, err := x.Usage(t.Context(), "src")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range usage {
		s := got[u.Snapshot]
		s.added += u.Added
		s.only += u.Only
		got[u.Snapshot] = s
		holds := false
		for path, e := range trees[u.Snapshot] {
			dir, _ := cutLast(path)
			holds = holds || dir == u.Dir && len(e.content) > 0
		}
		if !holds {
			t.Fatalf("%+v, but there is no content", u)
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("usage %v, want %v", got, want)
	}
}

func checkChanges(t *testing.T, x *Index, a, b modelSnapshot) {
	t.Helper()
	var want []string
	for path, e := range a.tree {
		if o, ok := b.tree[path]; !ok {
			want = append(want, path+" gone")
		} else if !o.equal(e) {
			want = append(want, path+" changed")
		}
	}
	for path := range b.tree {
		if _, ok := a.tree[path]; !ok {
			want = append(want, path+" new")
		}
	}
	var got []string
	for c, err := range x.Changes(t.Context(), a.info.Num, b.info.Num) {
		switch {
		case err != nil:
			t.Fatal(err)
		case c.New == nil:
			got = append(got, c.Path+" gone")
		case c.Old == nil:
			got = append(got, c.Path+" new")
		default:
			got = append(got, c.Path+" changed")
		}
	}
	byPath := func(a, b string) int {
		pa, _, _ := strings.Cut(a, " ")
		pb, _, _ := strings.Cut(b, " ")
		return comparePaths(pa, pb)
	}
	slices.SortFunc(want, byPath)
	if !slices.Equal(got, want) {
		t.Fatalf("from %s to %s: %q, want %q", a.info.Handle, b.info.Handle, got, want)
	}
}

// checkCanonical sees that the history of an index leaves no trace in it: it
// holds what one has that was filled in order.
func checkCanonical(t *testing.T, x *Index, snaps []modelSnapshot, indexed map[string]bool) {
	t.Helper()
	fresh := openAt(t, filepath.Join(t.TempDir(), "fresh.db"), nil)
	known, err := x.Snapshots(t.Context(), "src")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range known { // in the same order at the same moment
		info.Name = fmt.Sprintf("%09d", info.Num)
		if err := fresh.Announce(t.Context(), "src", append(mustSnapshots(t, fresh), info)); err != nil {
			t.Fatal(err)
		}
	}
	for _, info := range mustSnapshots(t, fresh) {
		if indexed[info.Handle] {
			i := slices.IndexFunc(snaps, func(s modelSnapshot) bool { return s.info.Handle == info.Handle })
			add(t, fresh, info.Num, items(rand.New(rand.NewPCG(1, 1)), snaps[i].tree)...)
		}
	}
	if got, want := dump(t, x), dump(t, fresh); !slices.Equal(got, want) {
		t.Fatalf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func mustSnapshots(t *testing.T, x *Index) []snapshot.Info {
	t.Helper()
	infos, err := x.Snapshots(t.Context(), "src")
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

// dump gives all rows, with handles for keys and paths for directories.
func dump(t *testing.T, x *Index) (rows []string) {
	t.Helper()
	for _, series := range []string{"one", "two"} {
		for _, info := range mustSnapshots(t, x) {
			if info.Series != series || !info.Indexed {
				continue
			}
			paths := map[string]bool{}
			for _, other := range mustSnapshots(t, x) {
				if other.Series == series && other.Indexed {
					for n, err := range x.Walk(t.Context(), other.Num, "") {
						if err != nil {
							t.Fatal(err)
						}
						paths[n.Path] = true
					}
				}
			}
			for p := range paths {
				versions, err := x.Versions(t.Context(), info.Num, p)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				for _, v := range versions {
					rows = append(rows, fmt.Sprintf("%s %q %s-%s %o %d", series, p, v.First.Handle, v.Last.Handle, v.Mode, v.Mtime))
				}
			}
			break
		}
	}
	err := x.reading(t.Context(), func(c *conn) error {
		for _, table := range []string{"version", "dir"} {
			n, _, err := c.integer("SELECT count(*) FROM " + table)
			if err != nil {
				return err
			}
			rows = append(rows, fmt.Sprint(table, " rows ", n))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rows)
	return rows
}
