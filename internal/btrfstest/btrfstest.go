// Package btrfstest gives tests a btrfs of their own: a sparse file, formatted
// and mounted over a loop device for the time of one test.
package btrfstest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// New makes a file system of 512 MiB and gives the directory it is mounted on.
func New(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	Mount(tb, dir, 512<<20)
	return dir
}

// Mount makes a file system of that many bytes and mounts it on dir. Where that
// cannot be, the test is skipped with the reason; with CI=true it fails.
func Mount(tb testing.TB, dir string, size int64) {
	tb.Helper()
	if os.Geteuid() != 0 {
		skip(tb, "cannot mount: not root")
	}
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		skip(tb, err.Error())
	}
	image := filepath.Join(tb.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.CommandContext(tb.Context(), mkfs, "-q", image).CombinedOutput(); err != nil {
		tb.Fatalf("mkfs.btrfs: %v: %s", err, out)
	}
	// The loop device goes with the mount (autoclear).
	if out, err := exec.CommandContext(tb.Context(), "mount", "-o", "loop,noatime,nodev", image, dir).CombinedOutput(); err != nil {
		skip(tb, "no loop devices or no btrfs here: "+string(out))
	}
	tb.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) { // not a mountpoint any more
			tb.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

func skip(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(reason)
	}
	tb.Skip(reason)
}
