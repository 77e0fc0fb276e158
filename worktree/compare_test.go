package worktree_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/worktree"
)

var testTime = time.Unix(1_700_000_000, 123)

func TestCompareKinds(t *testing.T) {
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"same", "modified", "mode", "xattr", "touched", "type", "deleted", "sub/gone", "sub/dir/x", "sub.txt"} {
		write(t, p(name), "content")
	}
	do(t, os.Symlink("a", p("link")))
	base := take(t, dir)
	clean(t, dir, base, nil)

	write(t, p("modified"), "other content")
	do(t, os.Chmod(p("mode"), 0o600), unix.Setxattr(p("xattr"), "user.a", nil, 0))
	st, err := os.Stat(p("touched"))
	do(t, err)
	write(t, p("touched"), "CONTENT") // hidden behind the old mtime
	do(t, os.Chtimes(p("touched"), time.Time{}, st.ModTime()))
	do(t, os.Remove(p("type")), os.Mkdir(p("type"), 0o755), os.Remove(p("deleted")), os.RemoveAll(p("sub/dir")), os.Remove(p("sub/gone")))
	write(t, p("added"), "")
	write(t, p(".s4-tmp-01234567"), "a leftover")
	do(t, os.Remove(p("link")), os.Symlink("b", p("link")))
	do(t, unix.Setxattr(p("sub"), "user.a", nil, 0))

	got := map[string]worktree.Kind{}
	var order []string
	for _, c := range changes(t, dir, base, nil) {
		got[c.Path] = c.Kind
		order = append(order, c.Path)
	}
	want := map[string]worktree.Kind{
		"": worktree.DirTime, "modified": worktree.Modified, "mode": worktree.Metadata, "xattr": worktree.Metadata,
		"touched": worktree.Touched, "type": worktree.Type, "deleted": worktree.Deleted, "added": worktree.Added,
		"link": worktree.Modified, "sub": worktree.Metadata, "sub/gone": worktree.Deleted,
		"sub/dir": worktree.Deleted, "sub/dir/x": worktree.Deleted,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("changes\n got %v\nwant %v", got, want)
	}
	if !slices.IsSortedFunc(order, worktree.ComparePaths) {
		t.Errorf("order %q", order)
	}
	// Excluded paths do not exist on either side, nor does what is outside.
	o := worktree.Options{
		Paths:   []string{"sub", "mode", "sub/dir"},
		Exclude: func(path string, dir bool) bool { return path == "sub/dir" },
	}
	order = nil
	for c, err := range open(t, dir).Compare(t.Context(), base, o) {
		do(t, err)
		order = append(order, c.Path)
	}
	if !slices.Equal(order, []string{"mode", "sub", "sub/gone"}) {
		t.Errorf("in scope: %q", order)
	}
}

func TestStampsVouch(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "dir/file"), "content")
	s, stamps := take(t, from), openStamps(t)
	bring(t, to, s, nil, stamps)
	clean(t, to, s, stamps)
	if got := changes(t, to, s, nil); len(got) != 1 || got[0].Kind != worktree.Touched {
		t.Errorf("without stamps: %+v", got)
	}
	do(t, os.Chmod(filepath.Join(to, "dir/file"), 0o600), os.Chmod(filepath.Join(to, "dir/file"), 0o644))
	if got := changes(t, to, s, stamps); len(got) != 1 || got[0].Kind != worktree.Touched {
		t.Errorf("after a touch: %+v", got)
	}
	// A look at the content clears it.
	bring(t, to, s, nil, stamps)
	clean(t, to, s, stamps)
}

func TestBrokenStamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stamps")
	write(t, path, "this is no database, though long enough to look like one to a quick eye")
	s, err := worktree.OpenStamps(t.Context(), path, nil)
	do(t, err)
	do(t, s.Put(t.Context(), []worktree.Stamp{{Path: "a/b", Ino: 1 << 63, Ctime: -5, Of: 7}, {Path: "a.b"}, {Path: "a"}}), s.Close())
	s, err = worktree.OpenStamps(t.Context(), path, nil)
	do(t, err)
	defer s.Close()
	var got []worktree.Stamp
	for x, err := range s.All(t.Context(), "a") {
		do(t, err)
		got = append(got, x)
	}
	want := []worktree.Stamp{{Path: "a"}, {Path: "a/b", Ino: 1 << 63, Ctime: -5, Of: 7}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if aside, _ := filepath.Glob(path + ".broken-*"); len(aside) != 1 {
		t.Errorf("set aside: %q", aside)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/x", "a.b", "a/b/c", "b\xff", "wide/z"} {
		write(t, filepath.Join(dir, name), "1")
	}
	for i := range 5000 {
		do(t, os.WriteFile(filepath.Join(dir, "wide", fmt.Sprint(i)), nil, 0o600))
	}
	want := 0
	do(t, filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { want++; return nil }))
	var paths []string
	for l, err := range open(t, dir).Walk(t.Context(), worktree.Options{Parallel: 3}) {
		do(t, err)
		paths = append(paths, l.Path)
	}
	if len(paths) != want || !slices.IsSortedFunc(paths, worktree.ComparePaths) {
		t.Errorf("%d paths, want %d in order", len(paths), want)
	}
	if !slices.Equal(paths[:6], []string{"", "a", "a/b", "a/b/c", "a/x", "a.b"}) {
		t.Errorf("begins %q", paths[:6])
	}
	if _, err := open(t, dir).Stat("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
