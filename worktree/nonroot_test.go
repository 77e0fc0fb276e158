package worktree_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/s4-storage/s4/worktree"
)

// TestOrdinaryUser runs itself again as an ordinary user on a tree that root
// made: owners cannot be given, and that is all.
func TestOrdinaryUser(t *testing.T) {
	if dir := os.Getenv("S4_TEST_ORDINARY"); dir != "" {
		ordinaryUser(t, dir)
		return
	}
	needRoot(t)
	from, err := os.MkdirTemp("/tmp", "s4-ordinary-")
	do(t, err)
	defer os.RemoveAll(from)
	do(t, os.Chmod(from, 0o755))
	write(t, filepath.Join(from, "suid"), "root's")
	do(t, os.Chmod(filepath.Join(from, "suid"), 0o755|os.ModeSetuid))
	write(t, filepath.Join(from, "mine"), "own")
	do(t, os.Chown(filepath.Join(from, "mine"), 65534, 65534), os.Chmod(filepath.Join(from, "mine"), 0o444))
	write(t, filepath.Join(from, "ro/file"), "in a directory that may not be written to")
	do(t, exec.Command("setfattr", "-n", "user.x", "-v", "y", filepath.Join(from, "mine")).Run())
	do(t, os.Chown(filepath.Join(from, "ro"), 65534, 65534), os.Chmod(filepath.Join(from, "ro"), 0o555))

	exe := filepath.Join(from, "..", filepath.Base(from)+".test")
	b, err := os.ReadFile("/proc/self/exe")
	do(t, err, os.WriteFile(exe, b, 0o755))
	defer os.Remove(exe)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestOrdinaryUser$", "-test.v")
	cmd.Dir = "/tmp"
	cmd.Env = append(os.Environ(), "S4_TEST_ORDINARY="+from, "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func ordinaryUser(t *testing.T, from string) {
	to := t.TempDir()
	t.Cleanup(func() { os.Chmod(filepath.Join(to, "ro"), 0o755) })
	s, stamps := take(t, from), openStamps(t)
	_, res := bring(t, to, s, nil, stamps)
	if res.Unowned == 0 || res.Unset > 0 {
		t.Errorf("result %+v", res)
	}
	st, err := os.Stat(filepath.Join(to, "suid"))
	if err != nil || st.Mode() != 0o755 {
		t.Errorf("a setuid bit of root became %v, %v", st.Mode(), err)
	}
	clean(t, to, s, stamps)
	if got := take(t, to).node("mine"); len(got.Xattrs) != 1 || got.Mode&0o777 != 0o444 {
		t.Errorf("own file: %+v", got)
	}
	// Into the directory that forbids it, with its mode as it was after.
	next := take(t, from)
	do(t, os.Chmod(filepath.Join(to, "ro"), 0o755))
	write(t, filepath.Join(to, "ro/extra"), "")
	do(t, os.Remove(filepath.Join(to, "ro/file")), os.Chmod(filepath.Join(to, "ro"), 0o555))
	bring(t, to, next, s, stamps)
	got := take(t, to)
	if got.node("ro/extra") != nil || got.node("ro/file") == nil || got.node("ro").Mode&0o777 != 0o555 {
		t.Errorf("tree after: %+v", got.nodes)
	}
	clean(t, to, next, stamps)
	// An unreadable directory is told of, and nothing deleted for it.
	do(t, os.Mkdir(filepath.Join(to, "dark"), 0o000))
	failed := 0
	for c, err := range open(t, to).Compare(t.Context(), next, worktree.Options{Stamps: stamps}) {
		if err != nil {
			failed++
			if c.Path != "dark" {
				t.Errorf("unreadable: %q, %v", c.Path, err)
			}
		}
	}
	if failed != 1 {
		t.Errorf("%d errors for one unreadable directory", failed)
	}
	do(t, os.Chmod(filepath.Join(to, "dark"), 0o700))
}
