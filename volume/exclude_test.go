package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/snapshot"
)

// ruled is what patterns mean, in other words.
var ruled = map[string]func(p string, dir bool) bool{
	"a":      func(p string, _ bool) bool { return path.Base(p) == "a" },
	"b/":     func(p string, dir bool) bool { return dir && path.Base(p) == "b" },
	"/c/*":   func(p string, _ bool) bool { return path.Dir(p) == "c" },
	"/b":     func(p string, _ bool) bool { return p == "b" },
	"*ä*":    func(p string, _ bool) bool { return strings.Contains(path.Base(p), "ä") },
	"new*e":  func(p string, _ bool) bool { return path.Base(p) == "new\nline" },
	"[^a-z]": func(p string, _ bool) bool { return path.Base(p) == "\xff" },
	`\[x]`:   func(p string, _ bool) bool { return path.Base(p) == "[x]" },
	"c/a/":   func(p string, dir bool) bool { return dir && p == "c/a" },
}

type rules []string

// hide tells whether a path of tree is left out.
func (r rules) hide(tree map[string]onDisk, p string) bool {
	for at := p; at != "."; at = path.Dir(at) {
		for _, pattern := range r {
			if ruled[pattern](at, at != p || tree[p].mode.IsDir()) {
				return true
			}
		}
	}
	return false
}

// part is what of a tree is left out, or is not.
func (r rules) part(tree map[string]onDisk, hidden bool) map[string]onDisk {
	part := map[string]onDisk{}
	for p, f := range tree {
		if r.hide(tree, p) == hidden {
			part[p] = f
		}
	}
	return part
}

// leaving is a volume and a clone of it, in which paths are left out.
type leaving struct {
	*testing.T
	r        *rand.Rand
	access   *reach.Access
	repo     string
	v, other *Volume
}

func newLeaving(t *testing.T, r *rand.Rand, btrfs bool) *leaving {
	l := &leaving{T: t, r: r, access: testAccess(t)}
	disk := t.TempDir()
	if btrfs {
		disk = btrfstest.New(t)
		for _, name := range []string{"v", "other"} {
			must(t, btrfsvol.Create(filepath.Join(disk, name)))
		}
	}
	var err error
	l.v, _, err = Init(filepath.Join(disk, "v"), InitOptions{}, l.access)
	must(t, err)
	t.Cleanup(func() {
		if l.v != nil {
			l.v.Close()
		}
	})
	l.repo = filepath.Join(t.TempDir(), "repos")
	_, err = l.v.AddRemote("origin", l.repo, "none")
	must(t, err)
	change(t, r, l.v.Root, 20)
	l.tellApart()
	l.push()
	l.repo = filepath.Join(l.repo, "v")
	l.clone(filepath.Join(disk, "other"))
	l.other, err = Open(filepath.Join(disk, "other"), l.access)
	must(t, err)
	t.Cleanup(func() { l.other.Close() })
	return l
}

// again opens a volume as the next command does.
func (l *leaving) again(v **Volume) {
	l.Helper()
	root := (*v).Root
	(*v).Close()
	var err error
	*v, err = Open(root, l.access)
	must(l.T, err)
}

func (l *leaving) push() *PushResult {
	l.Helper()
	l.again(&l.v)
	result, err := l.v.Push(l.Context(), PushOptions{})
	must(l.T, err)
	return result
}

func (l *leaving) clone(dir string) {
	l.Helper()
	_, err := Clone(l.Context(), CloneOptions{URL: l.repo, Dir: dir}, l.access)
	must(l.T, err)
}

func (l *leaving) set(patterns rules) {
	l.Helper()
	l.again(&l.v)
	must(l.T, SetSetting(l.v, l.access, keyExclude, patterns...))
}

func (l *leaving) same(what string, got, want map[string]onDisk) {
	l.Helper()
	if !maps.Equal(got, want) {
		l.Fatalf("%s:\ngot  %q\nwant %q", what, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// clutter makes files that are left out, and only those.
func (l *leaving) clutter(root string, patterns rules, n int) {
	l.Helper()
	for range n {
		dir := []string{"", "c", "b", "a", "deep", "c/a"}[l.r.IntN(6)]
		p := path.Join(dir, []string{"a", "b", "\xff", "new\nline", "[x]", "ä ", "x"}[l.r.IntN(7)])
		tree := scan(l.T, root)
		under := func(d string) bool { // there is such a directory, or it would be left out
			f, ok := tree[d]
			return d == "." || d == "" || ok && f.mode.IsDir() || !ok && patterns.hide(map[string]onDisk{d: {mode: fs.ModeDir}}, d)
		}
		if !under(dir) || !under(path.Dir(dir)) {
			continue
		}
		if !patterns.hide(map[string]onDisk{p: {}}, p) {
			continue
		}
		must(l.T, os.MkdirAll(filepath.Join(root, dir), 0o755))
		must(l.T, os.RemoveAll(filepath.Join(root, p)))
		must(l.T, os.WriteFile(filepath.Join(root, p), fmt.Append(nil, "clutter ", l.r.Uint64()), 0o644))
	}
}

// TestExcluded: of a random tree under random patterns, which change, a snapshot has
// what they do not leave out, however it was made; and what is left out is neither
// a change nor touched when another snapshot arrives.
func TestExcluded(t *testing.T) {
	seeds, rounds := uint64(1), 8
	if os.Getenv("S4_LONG") != "" {
		seeds, rounds = 12, 20
	}
	for _, btrfs := range []bool{false, true} {
		for seed := range seeds {
			t.Run(fmt.Sprint("btrfs ", btrfs, ", seed ", seed), func(t *testing.T) {
				l := newLeaving(t, rand.New(rand.NewPCG(seed, 77)), btrfs)
				var now rules
				all := slices.Sorted(maps.Keys(ruled))
				arrived, refused, hidden := 0, 0, 0
				for round := range rounds {
					before := now
					if round%2 == 0 || l.r.IntN(3) == 0 {
						l.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
						now = slices.Clone(all[:l.r.IntN(5)])
						l.set(append(now, now...))
					}
					change(t, l.r, l.v.Root, l.r.IntN(6))
					l.tellApart()
					l.push()
					hidden += len(now.part(scan(t, l.v.Root), true))
					l.checkArchive(now)
					l.checkUnchanged(now)
					if l.arrive(before, now) {
						arrived++
					} else {
						refused++
					}
				}
				t.Logf("%d arrived, %d refused, %d paths were left out", arrived, refused, hidden)
				if arrived == 0 || hidden == 0 {
					t.Error("that shows nothing")
				}
			})
		}
	}
}

// archived are the paths in the repository's newest archive.
func (l *leaving) archived() []string {
	l.Helper()
	past, _, err := RepositoryPast(l.Context(), l.repo, l.access)
	must(l.T, err)
	defer past.Close()
	must(l.T, past.Refresh(l.Context()))
	s, err := past.Resolve(l.Context(), "latest")
	must(l.T, err)
	must(l.T, past.Ensure(l.Context(), s.Num))
	var paths []string
	for n, err := range past.Walk(l.Context(), s.Num, "") {
		must(l.T, err)
		if n.Path != "" && n.Path != Dir && !strings.HasPrefix(n.Path, Dir+"/") {
			paths = append(paths, n.Path)
		}
	}
	slices.Sort(paths)
	return paths
}

// tellApart gives files of one name other times, where they were made in one tick of
// the kernel's clock: next to a new name such files count as touched.
func (l *leaving) tellApart() {
	l.Helper()
	met := map[string]bool{}
	for p, f := range scan(l.T, l.v.Root) {
		for f.mode.Type()&^fs.ModeSymlink == 0 && met[fmt.Sprint(path.Base(p), f.mtime)] {
			f.mtime += 1 + l.r.Int64N(1e9)
			at := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(f.mtime)}
			must(l.T, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(l.v.Root, p), at, unix.AT_SYMLINK_NOFOLLOW))
		}
		met[fmt.Sprint(path.Base(p), f.mtime)] = true
	}
}

// checkArchive looks at all that the repository's newest archive holds.
func (l *leaving) checkArchive(now rules) {
	l.Helper()
	if got, want := l.archived(), slices.Sorted(maps.Keys(now.part(scan(l.T, l.v.Root), false))); !slices.Equal(got, want) {
		l.Fatalf("archived under %q:\ngot  %q\nwant %q", now, got, want)
	}
	dir := filepath.Join(l.TempDir(), "clone")
	l.clone(dir)
	l.same("archived", scan(l.T, dir), now.part(scan(l.T, l.v.Root), false))
}

// checkUnchanged changes what is left out.
func (l *leaving) checkUnchanged(now rules) {
	l.Helper()
	l.clutter(l.v.Root, now, 8)
	l.again(&l.v)
	status, err := l.v.Status(l.Context())
	must(l.T, err)
	if !status.Clean {
		l.Fatalf("changed under %q: %+v", now, status.Changes)
	}
	past, err := l.v.Past(l.Context())
	must(l.T, err)
	d, err := past.Diff(l.Context(), query.DiffOptions{Live: l.v})
	must(l.T, err)
	defer d.Close()
	for c, err := range d.Changes {
		must(l.T, err)
		if strings.Trim(c.What.Letters(), "tl") != "" {
			l.Fatalf("diff tells %s %q under %q", c.What.Letters(), c.Path, now)
		}
	}
	if r := l.push(); !r.UpToDate {
		l.Fatalf("pushed what is left out by %q", now)
	}
}

// arrive pulls into the clone, in which there is clutter, and tells whether that was done.
func (l *leaving) arrive(before, now rules) bool {
	l.Helper()
	l.clutter(l.other.Root, before, 10)
	l.again(&l.other)
	old := scan(l.T, l.other.Root)
	_, err := l.other.Pull(l.Context(), PullOptions{Keep: true})
	was := scan(l.T, l.other.Root)
	want := now.part(scan(l.T, l.v.Root), false)
	if err != nil {
		if !errors.Is(err, snapshot.ErrRefused) {
			l.Fatal(err)
		}
		for p, f := range before.part(old, true) {
			if !f.mode.IsDir() && was[p] != f {
				l.Fatalf("refused, and yet %q was changed from %v to %v", p, f, was[p])
			}
		}
		for p := range was {
			if before.hide(was, p) || now.hide(was, p) {
				must(l.T, os.RemoveAll(filepath.Join(l.other.Root, p)))
			}
		}
		l.again(&l.other)
		_, err = l.other.Pull(l.Context(), PullOptions{Keep: true, Force: true})
		must(l.T, err)
		l.same("after force", now.part(scan(l.T, l.other.Root), false), want)
		return false
	}
	for p, f := range old {
		mine := before.hide(old, p) || now.hide(old, p) && !before.hide(old, p)
		if mine && !f.mode.IsDir() && was[p] != f {
			l.Fatalf("%q, left out by %q or %q, was changed from %v to %v", p, before, now, f, was[p])
		}
	}
	got := now.part(was, false)
	for p := range got {
		if _, wanted := want[p]; !wanted && (before.hide(old, p) || holdsHidden(old, p, before) || holdsHidden(old, p, now)) {
			delete(got, p) // it stayed
		}
	}
	l.same(fmt.Sprintf("arrived under %q after %q", now, before), got, want)
	// What stayed counts as a change, and would go if it was not pushed.
	for p := range was {
		if _, wanted := want[p]; !wanted {
			must(l.T, os.RemoveAll(filepath.Join(l.other.Root, p)))
		}
	}
	l.again(&l.other)
	status, err := l.other.Status(l.Context())
	must(l.T, err)
	if !status.Clean {
		l.Fatalf("the clone has changes: %+v", status.Changes)
	}
	return true
}

// holdsHidden tells whether something that is left out is below a path.
func holdsHidden(tree map[string]onDisk, dir string, r rules) bool {
	for p := range tree {
		if strings.HasPrefix(p, dir+"/") && r.hide(tree, p) {
			return true
		}
	}
	return false
}

// What a program has open while it is left out is never in a root that an exchange
// takes away.
func TestExcludedStaysInPlace(t *testing.T) {
	l := newLeaving(t, rand.New(rand.NewPCG(1, 1)), true)
	must(t, os.RemoveAll(filepath.Join(l.v.Root, "c")))
	must(t, os.Mkdir(filepath.Join(l.v.Root, "c"), 0o755))
	pull := func() *PullResult {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(l.v.Root, "shown"), fmt.Append(nil, l.r.Uint64()), 0o644))
		l.push()
		l.again(&l.other)
		r, err := l.other.Pull(t.Context(), PullOptions{Keep: true})
		must(t, err)
		l.same("arrived", rules{"/c/*"}.part(scan(t, l.other.Root), false), scan(t, l.v.Root))
		return r
	}
	pull()
	l.set(rules{"/c/*"})
	if r := pull(); !r.Exchanged {
		t.Error("without such a file the new version did not come in one step")
	}
	log := filepath.Join(l.other.Root, "c/log")
	f, err := os.Create(log)
	must(t, err)
	defer f.Close()
	if r := pull(); r.Exchanged {
		t.Error("the root was exchanged")
	}
	_, err = f.WriteString("precious")
	must(t, err)
	if data, err := os.ReadFile(log); err != nil || string(data) != "precious" {
		t.Errorf("what was written meanwhile: %q, %v", data, err)
	}
}

// Where files stay that are left out no more, the volume is not what arrived, and its
// next push has them; what stays around those that still are left out is no change.
func TestExcludedNoMore(t *testing.T) {
	l := newLeaving(t, rand.New(rand.NewPCG(3, 3)), true)
	for _, v := range []*Volume{l.v, l.other} {
		must(t, os.RemoveAll(filepath.Join(v.Root, "c")))
		must(t, os.RemoveAll(filepath.Join(v.Root, "b")))
	}
	must(t, os.MkdirAll(filepath.Join(l.v.Root, "goes/deep"), 0o755))
	pull := func(force bool) {
		t.Helper()
		l.push()
		l.again(&l.other)
		_, err := l.other.Pull(t.Context(), PullOptions{Keep: true, Force: force})
		must(t, err)
	}
	l.set(rules{"a", "c/a/"})
	pull(true)
	stays, mine := filepath.Join(l.other.Root, "goes/deep/a"), filepath.Join(l.other.Root, "c/a/mine")
	for _, p := range []string{stays, mine} {
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte("mine"), 0o644))
	}
	must(t, os.RemoveAll(filepath.Join(l.v.Root, "goes")))
	pull(false)
	l.again(&l.other)
	if s, err := l.other.Status(t.Context()); err != nil || !s.Clean {
		t.Errorf("around what is left out: %+v, %v", s.Changes, err)
	}
	must(t, os.RemoveAll(filepath.Join(l.other.Root, "goes")))
	l.set(rules{"new*e"})
	pull(false)
	l.again(&l.other)
	if s, err := l.other.Status(t.Context()); err != nil || s.Clean {
		t.Errorf("a file that stays is no change: %v", err)
	}
	_, err := l.other.Push(t.Context(), PushOptions{Remote: "origin"})
	must(t, err)
	if got := l.archived(); !slices.Contains(got, "c/a/mine") {
		t.Errorf("archived: %q", got)
	}
}

// A restore leaves alone what is left out, unless it is asked for by name; and then
// it overwrites nothing that no snapshot holds.
func TestRestoreExcluded(t *testing.T) {
	l := newLeaving(t, rand.New(rand.NewPCG(2, 2)), true)
	must(t, os.RemoveAll(filepath.Join(l.v.Root, "c")))
	must(t, os.Mkdir(filepath.Join(l.v.Root, "c"), 0o755))
	cached, other := filepath.Join(l.v.Root, "c/cached"), filepath.Join(l.v.Root, "other")
	write := func(text string) {
		must(t, os.WriteFile(cached, []byte(text), 0o644))
		must(t, os.WriteFile(other, []byte(text), 0o644))
	}
	l.set(rules{"/c/*"})
	write("old")
	l.push()
	_, err := l.v.Snapshot(t.Context(), "") // which has all
	must(t, err)
	restore := func(o RestoreOptions) error {
		t.Helper()
		l.again(&l.v)
		past, err := l.v.Past(t.Context())
		must(t, err)
		o.When = "latest"
		r, err := past.PlanRestore(t.Context(), l.v, o)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = r.Apply(t.Context())
		return err
	}
	check := func(what, wantCached, wantOther string) {
		t.Helper()
		a, err := os.ReadFile(cached)
		must(t, err)
		b, err := os.ReadFile(other)
		must(t, err)
		if string(a) != wantCached || string(b) != wantOther {
			t.Errorf("%s: %q and %q", what, a, b)
		}
	}
	write("new")
	must(t, restore(RestoreOptions{Force: true}))
	check("all", "new", "old")
	must(t, restore(RestoreOptions{Force: true, Paths: []string{"c"}}))
	check("the directory around it", "new", "old")
	for _, paths := range [][]string{{"c/cached"}, {"c/*ed"}} {
		write("new")
		if err := restore(RestoreOptions{Paths: slices.Clone(paths)}); !errors.Is(err, snapshot.ErrRefused) {
			t.Errorf("%q by name: %v", paths, err)
		}
		must(t, restore(RestoreOptions{Force: true, Paths: paths}))
		check("by name", "old", "new")
	}
}

// Patterns that change while a plain directory is read are not those of the archive.
func TestExclusionThatChangesMeanwhile(t *testing.T) {
	v := testVolume(t)
	must(t, SetSetting(v, v.access, keyExclude, "a"))
	then, err := exclusionAt(v.Root)
	must(t, err)
	a := archiving{pushing: &pushing{view: &View{Root: v.Root}}, excluded: then}
	must(t, a.excludedStill())
	must(t, AddSetting(v, keyExclude, "b"))
	if err := a.excludedStill(); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("changed: %v", err)
	}
}
