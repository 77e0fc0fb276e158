package worktree_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// plan makes a plan with deletion of extras.
func plan(t *testing.T, r *worktree.Root, s *store) *worktree.Plan {
	t.Helper()
	p, err := r.Plan(t.Context(), s, worktree.PlanOptions{Source: source{s}, Delete: true})
	do(t, err)
	return p
}

func apply(t *testing.T, r *worktree.Root, p *worktree.Plan, s *store) error {
	t.Helper()
	_, err := r.Apply(t.Context(), p, worktree.ApplyOptions{Source: source{s}, Sync: worktree.SyncNone})
	return err
}

func TestParentBecomesSymlink(t *testing.T) {
	from, to, outside := t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range []string{"dir/file", "dir/sub/new", "dir/linked"} {
		write(t, filepath.Join(from, name), "from the snapshot")
	}
	do(t, os.Link(filepath.Join(from, "dir/linked"), filepath.Join(from, "dir/linked2")))
	s := take(t, from)
	for _, dir := range []string{to, outside} {
		write(t, filepath.Join(dir, "dir/file"), "precious")
		write(t, filepath.Join(dir, "dir/extra"), "precious")
	}
	r := open(t, to)
	p := plan(t, r, s)
	do(t, os.Rename(filepath.Join(to, "dir"), filepath.Join(to, "moved")))
	do(t, os.Symlink(filepath.Join(outside, "dir"), filepath.Join(to, "dir")))
	before := take(t, outside)
	if err := apply(t, r, p, s); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("apply through a symlink: %v", err)
	}
	clean(t, outside, before, nil)
	if _, err := r.Stat("dir/file"); err == nil {
		t.Error("stat went through a symlink")
	}
	for _, path := range []string{"../" + filepath.Base(outside), "dir/../..", "/etc/passwd", ".."} {
		if l, err := r.Stat(path); err == nil {
			t.Errorf("stat %q left the root: %+v", path, l)
		}
	}
	// A new plan puts a real directory there.
	do(t, apply(t, r, plan(t, r, s), s))
	equal(t, from, to)
	clean(t, outside, before, nil)
}

func TestChangedMeanwhile(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"replaced", "created", "good", "dir/kept"} {
		write(t, filepath.Join(from, name), "from the snapshot")
	}
	s := take(t, from)
	write(t, filepath.Join(to, "replaced"), "old")
	write(t, filepath.Join(to, "deleted"), "old")
	write(t, filepath.Join(to, "deleted dir/old"), "old")
	r := open(t, to)
	p := plan(t, r, s)
	for _, name := range []string{"replaced", "created", "deleted", "deleted dir/young"} {
		write(t, filepath.Join(to, name), "new")
	}
	err := apply(t, r, p, s)
	if !errors.Is(err, snapshot.ErrRefused) {
		t.Fatalf("apply over newer files: %v", err)
	}
	for _, name := range []string{"replaced", "created", "deleted", "deleted dir/young"} {
		if got := read(t, filepath.Join(to, name)); got != "new" {
			t.Errorf("%s was overwritten: %q", name, got)
		}
		if name != "deleted dir/young" && !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %q", name, err)
		}
	}
	if got := read(t, filepath.Join(to, "good")); got != "from the snapshot" {
		t.Errorf("the other paths were not delivered: %q", got)
	}
	noTemps(t, to)
	_, err = r.Apply(t.Context(), p, worktree.ApplyOptions{Source: source{s}, Force: true})
	if got := read(t, filepath.Join(to, "replaced")); got != "from the snapshot" {
		t.Errorf("with force: %q, %v", got, err)
	}
	do(t, apply(t, r, plan(t, r, s), s))
	equal(t, from, to)
}

func TestDirectoryInTheWay(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "x"), "file")
	write(t, filepath.Join(from, "y"), "file")
	s := take(t, from)
	write(t, filepath.Join(to, "x/precious"), "kept")
	r := open(t, to)
	p, err := r.Plan(t.Context(), s, worktree.PlanOptions{Source: source{s}})
	do(t, err)
	if err := apply(t, r, p, s); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("apply over a directory: %v", err)
	}
	if read(t, filepath.Join(to, "x/precious")) != "kept" || read(t, filepath.Join(to, "y")) != "file" {
		t.Error("wrong content")
	}
}

func TestDamagedContent(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	big := strings.Repeat("0123456789", 10_000)
	for _, name := range []string{"exists", "missing", "missing too", "linked", "fine"} {
		write(t, filepath.Join(from, name), big)
	}
	do(t, os.Link(filepath.Join(from, "linked"), filepath.Join(from, "linked too")))
	s := take(t, from)
	for _, name := range []string{"exists", "missing", "missing too", "linked"} {
		s.broken[name] = true
	}
	write(t, filepath.Join(to, "exists"), "old but whole")
	write(t, filepath.Join(to, "missing too/of another type"), "old but whole")
	r := open(t, to)
	err := apply(t, r, plan(t, r, s), s)
	if !errors.Is(err, snapshot.ErrDamaged) {
		t.Fatalf("apply of damaged content: %v", err)
	}
	for _, name := range []string{"exists", "missing", "linked too"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %q", name, err)
		}
	}
	if got := read(t, filepath.Join(to, "exists")); got != "old but whole" {
		t.Errorf("exists was replaced: %.20q", got)
	}
	if got := read(t, filepath.Join(to, "missing too/of another type")); got != "old but whole" {
		t.Errorf("a directory made room for nothing: %q", got)
	}
	if _, err := os.Lstat(filepath.Join(to, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if read(t, filepath.Join(to, "fine")) != big {
		t.Error("the whole file was not delivered")
	}
	noTemps(t, to)
}

func TestCancelAndCarryOn(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for i := range 60 {
		write(t, filepath.Join(from, fmt.Sprintf("d%d/file%d", i%7, i)), strings.Repeat("x", 1000*i))
	}
	do(t, os.Chmod(filepath.Join(from, "d3"), 0o500))
	s, stamps := take(t, from), openStamps(t)
	r := open(t, to)
	ctx, cancel := context.WithCancel(t.Context())
	var opened atomic.Int32
	s.onOpen = func(ctx context.Context, _ string) error {
		if opened.Add(1) == 20 {
			cancel()
		}
		return ctx.Err()
	}
	_, err := r.Apply(ctx, plan(t, r, s), worktree.ApplyOptions{Source: source{s}, Stamps: stamps, Parallel: 3})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled apply: %v", err)
	}
	noTemps(t, to)
	if st, err := os.Stat(filepath.Join(to, "d3")); err != nil || st.Mode().Perm() != 0o500 {
		t.Errorf("mode after cancel: %v, %v", st.Mode(), err)
	}
	// What a kill -9 leaves: a temporary file, and a directory that is not
	// finished yet.
	write(t, filepath.Join(to, "d1/.s4-tmp-0a1b2c3d"), "part of a fi")
	do(t, os.Chmod(filepath.Join(to, "d1"), 0o700))
	write(t, filepath.Join(to, "own/.s4-tmp-like"), "a user's own file")
	s.onOpen = nil
	s.fetched = 0
	p, err := r.Plan(t.Context(), s, worktree.PlanOptions{Source: source{s}, Options: worktree.Options{Stamps: stamps}})
	do(t, err)
	res, err := r.Apply(t.Context(), p, worktree.ApplyOptions{Source: source{s}, Stamps: stamps})
	do(t, err)
	if res.Created >= 60 {
		t.Errorf("all files were written again: %+v", res)
	}
	noOwn := filepath.Join(to, "own")
	if read(t, noOwn+"/.s4-tmp-like") != "a user's own file" {
		t.Error("a user's file was taken for a temporary one")
	}
	do(t, os.RemoveAll(noOwn))
	bring(t, to, s, nil, stamps)
	equal(t, from, to)
	noTemps(t, to)
	clean(t, to, s, stamps)
}

// TestKill9 kills a real process in the middle of writing files.
func TestKill9(t *testing.T) {
	if dirs := os.Getenv("S4_TEST_KILL"); dirs != "" {
		from, to, _ := strings.Cut(dirs, ":")
		s := take(t, from)
		var opened atomic.Int32
		s.onPiece = func() {
			if opened.Add(1) == 40 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		r := open(t, to)
		t.Fatal(apply(t, r, plan(t, r, s), s))
	}
	from, to := t.TempDir(), t.TempDir()
	for i := range 30 {
		write(t, filepath.Join(from, fmt.Sprintf("d%d/%d", i%3, i)), strings.Repeat(fmt.Sprint(i), 2*extentSize))
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestKill9$")
	cmd.Env = append(os.Environ(), "S4_TEST_KILL="+from+":"+to)
	if err := cmd.Run(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("was not killed: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(to, "d*", ".s4-tmp-*"))
	if err != nil || len(left) == 0 {
		t.Fatalf("the kill left no temporary file: %v", err)
	}
	s, stamps := take(t, from), openStamps(t)
	bring(t, to, s, nil, stamps)
	equal(t, from, to)
	noTemps(t, to)
	clean(t, to, s, stamps)
}

func TestDiskFull(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	if err := unix.Mount("tmpfs", to, "tmpfs", 0, "size=1m"); err != nil {
		need(t, "no tmpfs here: "+err.Error())
	}
	defer unix.Unmount(to, unix.MNT_DETACH)
	data := bytes.Repeat([]byte("not compressible enough"), 20_000)
	write(t, filepath.Join(from, "a"), string(data[:400_000]))
	write(t, filepath.Join(from, "b"), string(data[:450_000]))
	write(t, filepath.Join(from, "big"), string(data[:300_000]))
	s := take(t, from)
	write(t, filepath.Join(to, "big"), "old")
	r := open(t, to)
	stamps := openStamps(t)
	o := worktree.ApplyOptions{Source: source{s}, Stamps: stamps, Parallel: 1}
	_, err := r.Apply(t.Context(), plan(t, r, s), o)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("apply on a full disk: %v", err)
	}
	if e, ok := errors.AsType[*worktree.PathError](err); !ok || e.Path != "big" {
		t.Errorf("the path is not named: %v", err)
	}
	noTemps(t, to)
	if read(t, filepath.Join(to, "big")) != "old" || len(read(t, filepath.Join(to, "a"))) != 400_000 {
		t.Error("what was in place is not whole")
	}
	do(t, unix.Mount("tmpfs", to, "tmpfs", unix.MS_REMOUNT, "size=4m"))
	s.fetched = 0
	_, res := bring(t, to, s, nil, stamps)
	if s.fetched != 300_000 || res.Created+res.Replaced != 1 {
		t.Errorf("carried on with %d bytes fetched, %+v", s.fetched, res)
	}
	equal(t, from, to)
}

func TestSourceGone(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for i := range 50 {
		write(t, filepath.Join(from, fmt.Sprint(i)), "x")
	}
	s := take(t, from)
	var asked atomic.Int32
	s.onOpen = func(context.Context, string) error {
		asked.Add(1)
		return fmt.Errorf("connection lost: %w", snapshot.ErrUnreachable)
	}
	r := open(t, to)
	if err := apply(t, r, plan(t, r, s), s); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Errorf("apply: %v", err)
	}
	if n := asked.Load(); n > 20 {
		t.Errorf("a source that is gone was asked %d times", n)
	}
	noTemps(t, to)
}
