package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
)

// inhabited is a volume with a remote on the same disk, for tests written in Go.
type inhabited struct {
	t    *testing.T
	dir  string // of the volume
	repo string
	env  []string
}

func newInhabited(t *testing.T) *inhabited {
	t.Helper()
	return newInhabitedIn(t, t.TempDir(), os.Mkdir)
}

// newOnBtrfs is one that is a subvolume of a btrfs of its own.
func newOnBtrfs(t *testing.T) *inhabited {
	t.Helper()
	return newOnBtrfsOf(t, 2<<30)
}

func newOnBtrfsOf(t *testing.T, size int64) *inhabited {
	t.Helper()
	top := t.TempDir()
	if err := os.Mkdir(filepath.Join(top, "btrfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	btrfstest.Mount(t, filepath.Join(top, "btrfs"), size)
	return newInhabitedIn(t, top, func(dir string, _ os.FileMode) error {
		if err := btrfsvol.Create(filepath.Join(top, "btrfs", "v")); err != nil {
			return err
		}
		return os.Symlink("btrfs/v", dir)
	})
}

// newInhabitedIn makes one below top, in a directory that is made by mkdir.
func newInhabitedIn(t *testing.T, top string, mkdir func(string, os.FileMode) error) *inhabited {
	t.Helper()
	need(t, "borg", "fusermount3")
	needFUSE(t)
	v := &inhabited{t: t, dir: filepath.Join(top, "v"), repo: filepath.Join(top, "remote/v")}
	v.env = append(os.Environ(),
		"HOME="+filepath.Join(top, "home"), "XDG_CACHE_HOME="+filepath.Join(top, "cache"),
		"XDG_CONFIG_HOME="+filepath.Join(top, "config"), "XDG_STATE_HOME="+filepath.Join(top, "state"),
		"BORG_BASE_DIR="+filepath.Join(top, "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes", // by path and through ssh
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b",
		"LC_ALL=C", "PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, dir := range []string{"remote", "home"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := mkdir(v.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmountBelow(t, top) })
	v.run("s4", "init")
	v.run("s4", "remote", "add", "origin", filepath.Join(top, "remote"))
	return v
}

// try runs a program in the volume and gives what it printed.
func (v *inhabited) try(args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if args[0] == "s4" {
		cmd.Path, cmd.Err = filepath.Join(bin, "s4"), nil
	}
	cmd.Dir, cmd.Env = v.dir, v.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a daemon may hold the pipe
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out.String(), err
}

func (v *inhabited) run(args ...string) string {
	v.t.Helper()
	out, err := v.try(args...)
	if err != nil {
		v.t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// umount ends the mount at a directory, from outside: who stands in it keeps it.
func (v *inhabited) umount(mountpoint string) string {
	v.t.Helper()
	return v.run("sh", "-c", `cd / && s4 umount "$0"`, mountpoint)
}

// daemon is the process that serves the mount at a directory.
func (v *inhabited) daemon(mountpoint string) int {
	v.t.Helper()
	buf := make([]byte, 100)
	n, err := unix.Getxattr(mountpoint, "user.s4.root", buf)
	if err != nil {
		v.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Split(string(buf[:n]), "/")[2])
	if err != nil {
		v.t.Fatal(err)
	}
	return pid
}

// eventually waits for a condition.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
