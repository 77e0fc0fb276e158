package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/snapshot"
)

// onDisk is what a test tells of one path.
type onDisk struct {
	mode  fs.FileMode
	mtime int64 // not of directories
	data  string
}

// scan reads a tree without .s4.
func scan(t *testing.T, root string) map[string]onDisk {
	t.Helper()
	tree := map[string]onDisk{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		if rel == Dir {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := onDisk{mode: info.Mode()}
		if !d.IsDir() {
			f.mtime = info.ModTime().UnixNano()
		}
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f.data = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			if f.data, err = os.Readlink(path); err != nil {
				return err
			}
		}
		tree[rel] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// change edits a tree on disk at random. Content never comes twice, so that a
// test knows whether it is lost.
func change(t *testing.T, r *rand.Rand, root string, n int) {
	t.Helper()
	names := []string{"a", "b", "c", "ä ", "\xff", "new\nline", "[x]"}
	for range n {
		path := filepath.Join(root, names[r.IntN(len(names))])
		if r.IntN(2) == 0 {
			path = filepath.Join(path, names[r.IntN(len(names))])
		}
		if dir := filepath.Dir(path); dir != root {
			if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
				must(t, os.RemoveAll(dir))
				must(t, os.Mkdir(dir, 0o755))
			}
		}
		info, err := os.Lstat(path)
		switch k := r.IntN(10); {
		case k == 0:
			must(t, os.RemoveAll(path))
		case k == 1:
			must(t, os.RemoveAll(path))
			must(t, os.Symlink(fmt.Sprint("to-", r.Uint64()), path))
		case k == 2 && err == nil && info.Mode().IsRegular():
			must(t, os.Chmod(path, fs.FileMode(0o600|r.IntN(0o200))))
		case k == 3 && err == nil && info.Mode().IsRegular():
			when := time.Unix(int64(1e9+r.IntN(1e6)), int64(r.IntN(1e9)))
			must(t, os.Chtimes(path, when, when))
		case k == 4 && err == nil: // to another name
			to := filepath.Join(root, names[r.IntN(len(names))])
			if !strings.HasPrefix(path, to) && !strings.HasPrefix(to, path) {
				must(t, os.RemoveAll(to))
				must(t, os.Rename(path, to))
			}
		case err == nil && info.IsDir():
		default:
			must(t, os.RemoveAll(path))
			must(t, os.WriteFile(path, fmt.Appendf(nil, "%d %s", r.Uint64(), strings.Repeat("x", r.IntN(100))), 0o644))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// naive is how one tree differs from another, path by path.
func naive(a, b map[string]onDisk) map[string]diff.What {
	out := map[string]diff.What{}
	for p, x := range a {
		y, ok := b[p]
		w := diff.What(0)
		switch {
		case !ok:
			w = diff.Removed
		case x.mode.Type() != y.mode.Type():
			w = diff.Kind
		default:
			if x.mode != y.mode {
				w |= diff.Mode
			}
			if x.data != y.data {
				w |= diff.Content
			}
			if x.mtime != y.mtime {
				w |= diff.Time
			}
		}
		if w != 0 {
			out[p] = w
		}
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			out[p] = diff.Added
		}
	}
	return out
}

// world is a volume with a few pushes, and what was in each.
type world struct {
	*testing.T
	v     *Volume
	past  *Past
	trees []map[string]onDisk
	line  []snapshot.Info
}

func newWorld(t *testing.T, r *rand.Rand, pushes int) *world {
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("borg is not installed")
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
	w := &world{T: t, v: testVolume(t)}
	place := t.TempDir()
	_, err := w.v.AddRemote("origin", place, "none")
	must(t, err)
	for range pushes {
		change(t, r, w.v.Root, 12)
		must(t, os.WriteFile(filepath.Join(w.v.Root, "each"), fmt.Append(nil, r.Uint64()), 0o644))
		w.trees = append(w.trees, scan(t, w.v.Root))
		_, err := w.v.Push(t.Context(), PushOptions{})
		must(t, err)
	}
	w.past, err = w.v.Past(t.Context())
	must(t, err)
	must(t, w.past.Refresh(t.Context()))
	w.line, err = w.past.Timeline(t.Context())
	must(t, err)
	if len(w.line) != pushes {
		t.Fatalf("%d snapshots after %d pushes", len(w.line), pushes)
	}
	return w
}

func (w *world) checkDiff(i int, to string, other map[string]onDisk) {
	w.Helper()
	d, err := w.past.Diff(w.Context(), query.DiffOptions{Live: w.v, From: w.line[i].Dir, To: to, NoRenames: true})
	must(w.T, err)
	defer d.Close()
	got := map[string]diff.What{}
	for c, err := range d.Changes {
		must(w.T, err)
		if c.Path != "" && c.Path != Dir && !strings.HasPrefix(c.Path, Dir+"/") {
			got[c.Path] = c.What &^ diff.Links
		}
	}
	maps.DeleteFunc(got, func(_ string, what diff.What) bool { return what == 0 })
	if want := naive(w.trees[i], other); !maps.Equal(got, want) {
		w.Fatalf("from %d to %q:\ngot  %v\nwant %v", i, to, said(got), said(want))
	}
}

func said(m map[string]diff.What) (all []string) {
	for p, what := range m {
		all = append(all, fmt.Sprintf("%s %q", what.Letters(), p))
	}
	slices.Sort(all)
	return all
}

// held tells whether some snapshot, or what was kept, has f's content at path.
func (w *world) held(path string, f onDisk) bool {
	for _, tree := range w.trees {
		if old, ok := tree[path]; ok && old.data == f.data && old.mode.Type() == f.mode.Type() {
			return true
		}
	}
	kept, err := filepath.Glob(filepath.Join(w.v.Root, ReplacedDir, "*"))
	must(w.T, err)
	for _, dir := range kept {
		at := filepath.Join(dir, path)
		data, _ := os.ReadFile(at)
		target, _ := os.Readlink(at)
		if string(data) == f.data || f.mode&fs.ModeSymlink != 0 && target == f.data {
			return true
		}
	}
	return false
}

// checkRestore restores some paths and looks at everything.
func (w *world) checkRestore(r *rand.Rand, keep bool) (refused bool) {
	w.Helper()
	i := r.IntN(len(w.line))
	var paths []string
	for _, p := range slices.Sorted(maps.Keys(w.trees[i])) {
		if r.IntN(4) == 0 {
			paths = append(paths, p)
		}
	}
	before := scan(w.T, w.v.Root)
	plan, err := w.past.PlanRestore(w.Context(), w.v, RestoreOptions{When: w.line[i].Dir, Paths: slices.Clone(paths), Keep: keep})
	if errors.Is(err, snapshot.ErrRefused) { // a file where a directory has to be
		return true
	}
	must(w.T, err)
	defer plan.Close()
	meanwhile := r.IntN(3) == 0
	if meanwhile { // somebody works
		change(w.T, r, w.v.Root, 2)
		before = scan(w.T, w.v.Root)
	}
	_, err = plan.Apply(w.Context())
	after := scan(w.T, w.v.Root)
	if err != nil && !errors.Is(err, snapshot.ErrRefused) {
		w.Fatal(err)
	}
	for p, f := range before {
		if now, ok := after[p]; (!ok || now.data != f.data || now.mode.Type() != f.mode.Type()) && !f.mode.IsDir() && !w.held(p, f) {
			w.Fatalf("restore of %q from %d lost %q: %q", paths, i, p, f.data)
		}
	}
	if err != nil || meanwhile {
		return err != nil
	}
	for p, want := range w.trees[i] {
		chosen := len(paths) == 0 || slices.ContainsFunc(paths, func(c string) bool { return p == c || strings.HasPrefix(p, c+"/") })
		if chosen && after[p] != want {
			w.Fatalf("%q of %d was to be %v and is %v", p, i, want, after[p])
		}
		delete(before, p)
		if chosen {
			delete(after, p)
		} else if now, ok := after[p]; ok {
			before[p] = now // looked at already, or just made to hold others
		}
	}
	for p, f := range before {
		if after[p] != f {
			w.Fatalf("restore of %q from %d changed %q, which it has nothing to do with: %v to %v", paths, i, p, f, after[p])
		}
	}
	return false
}

func TestDiffAndRestoreOfRandomTrees(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 11))
			w := newWorld(t, r, 4)
			for i := range w.line {
				for j := range w.line {
					w.checkDiff(i, w.line[j].Dir, w.trees[j])
				}
			}
			refused, done := 0, 0
			for n := range 60 {
				if n%2 == 0 {
					change(t, r, w.v.Root, 3)
				}
				if n%5 == 0 {
					w.checkDiff(r.IntN(len(w.line)), "", scan(t, w.v.Root))
				}
				if w.checkRestore(r, n%3 == 0) {
					refused++
				} else {
					done++
				}
			}
			if refused == 0 || done == 0 {
				t.Errorf("%d restores refused, %d done: the test shows nothing", refused, done)
			}
		})
	}
}

// Without a volume nothing tells what is held elsewhere, so nothing is overwritten
// unless told to.
func TestRestoreToADirectoryTellsWhatItWouldOverwrite(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(9, 9)), 1)
	to := filepath.Join(t.TempDir(), "to")
	plan := func(o RestoreOptions) *Restore {
		o.When, o.To = "latest", to
		r, err := w.past.PlanRestore(context.WithoutCancel(t.Context()), nil, o)
		must(t, err)
		t.Cleanup(r.Close)
		return r
	}
	if r := plan(RestoreOptions{DryRun: true}); len(r.Plan.Actions) < len(w.trees[0]) || r.Refusal() != nil {
		t.Errorf("%d actions, refused %q", len(r.Plan.Actions), r.Refused)
	}
	if _, err := os.Stat(to); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a dry run made the directory: %v", err)
	}
	_, err := plan(RestoreOptions{}).Apply(t.Context())
	must(t, err)
	if got := scan(t, to); !maps.Equal(got, w.trees[0]) {
		t.Errorf("got %v, want %v", got, w.trees[0])
	}
	must(t, os.WriteFile(filepath.Join(to, "each"), []byte("mine"), 0o600))
	if _, err := plan(RestoreOptions{}).Apply(t.Context()); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("overwrote: %v", err)
	}
	_, err = plan(RestoreOptions{Force: true}).Apply(t.Context())
	must(t, err)
	if got := scan(t, to); !maps.Equal(got, w.trees[0]) {
		t.Errorf("with force: got %v, want %v", got, w.trees[0])
	}
}
