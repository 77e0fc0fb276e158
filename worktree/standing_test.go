package worktree_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/worktree"
)

// twins writes files of one size within one tick of the kernel's clock, so that
// no time tells them apart.
func twins(t *testing.T, dir string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		do(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o755))
	}
	for range 1000 {
		for i, p := range paths { // new ones: the clock is finer for what was looked at
			p = filepath.Join(dir, p)
			_ = os.Remove(p)
			do(t, os.WriteFile(p, fmt.Append(nil, "twin ", i), 0o644))
		}
		times := map[[2]unix.Timespec]bool{}
		for _, p := range paths {
			var st unix.Stat_t
			do(t, unix.Stat(filepath.Join(dir, p), &st))
			times[[2]unix.Timespec{st.Mtim, st.Ctim}] = true
		}
		if len(times) == 1 {
			return
		}
	}
	need(t, "the clock has no ticks here")
}

// kinds are the changes by path, but for the times of directories.
func kinds(t *testing.T, dir string, base *store, o worktree.Options) map[string]worktree.Kind {
	t.Helper()
	got := map[string]worktree.Kind{}
	for c, err := range open(t, dir).Compare(t.Context(), base, o) {
		do(t, err)
		if c.Kind != worktree.DirTime {
			got[c.Path] = c.Kind
		}
	}
	return got
}

// swap lets paths below dir change places.
func swap(t *testing.T, dir, a, b string) {
	t.Helper()
	a, b, c := filepath.Join(dir, a), filepath.Join(dir, b), filepath.Join(dir, "aside")
	do(t, os.Rename(a, c), os.Rename(b, a), os.Rename(c, b))
}

// TestTwins: directories that change places bring files of which no time tells
// that they are others.
func TestTwins(t *testing.T) {
	for name, c := range map[string]struct {
		make, swap []string
		paths      []string // that are looked at; none is all
		want       []string // what is touched
	}{
		"directories":      {make: []string{"a/x", "b/x"}, swap: []string{"a", "b"}, want: []string{"a/x", "b/x"}},
		"further up":       {make: []string{"a/in/it/x", "b/in/it/x"}, swap: []string{"a", "b"}, want: []string{"a/in/it/x", "b/in/it/x"}},
		"further down":     {make: []string{"top/a/x", "top/b/x"}, swap: []string{"top/a", "top/b"}, want: []string{"top/a/x", "top/b/x"}},
		"a part":           {make: []string{"a/in/it/x", "b/in/it/x"}, swap: []string{"a", "b"}, paths: []string{"a/in/it"}, want: []string{"a/in/it/x"}},
		"a part, one file": {make: []string{"a/x", "b/x"}, swap: []string{"a", "b"}, paths: []string{"b/x"}, want: []string{"b/x"}},
		"files":            {make: []string{"x", "y", "z/x"}, swap: []string{"x", "y"}, want: []string{"x", "y"}},
		"between":          {make: []string{"a/x", "b/x"}, swap: []string{"a/x", "b/x"}, want: []string{"a/x", "b/x"}},
		"another name":     {make: []string{"a/x", "b/x", "b/y"}, swap: []string{"b/x", "b/y"}, want: []string{"b/x", "b/y"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			twins(t, dir, c.make...)
			base := take(t, dir)
			clean(t, dir, base, nil)
			swap(t, dir, c.swap[0], c.swap[1])
			got := kinds(t, dir, base, worktree.Options{Paths: c.paths})
			want := map[string]worktree.Kind{}
			for _, p := range c.want {
				want[p] = worktree.Touched
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			// And they come back to their places.
			bring(t, dir, base, base, nil)
			for _, p := range c.make {
				b, err := os.ReadFile(filepath.Join(dir, p))
				do(t, err)
				if string(b) != string(base.content[p]) {
					t.Errorf("%s became %q", p, b)
				}
			}
		})
	}
}

// TestTwinsAtHome: files that are alike are believed where no directory moved, and
// others where one may have.
func TestTwinsAtHome(t *testing.T) {
	dir := t.TempDir()
	twins(t, dir, "top/a/x", "top/b/x")
	write(t, filepath.Join(dir, "top/a/other"), "only one of this name, size and time")
	base := take(t, dir)
	write(t, filepath.Join(dir, "top/a/new"), "")
	write(t, filepath.Join(dir, "new"), "")
	if got := slices.Sorted(maps.Keys(kinds(t, dir, base, worktree.Options{}))); !slices.Equal(got, []string{"new", "top/a/new"}) {
		t.Errorf("changed %q", got)
	}
	write(t, filepath.Join(dir, "top/new"), "") // and now top may be another one
	if got := slices.Sorted(maps.Keys(kinds(t, dir, base, worktree.Options{}))); !slices.Equal(got, []string{"new", "top/a/new", "top/a/x", "top/b/x", "top/new"}) {
		t.Errorf("changed %q", got)
	}
}
