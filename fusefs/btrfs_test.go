package fusefs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/btrfstest"
)

// On a file system that shares extents, copies in the mount share them, and
// holes are where they are.
func TestBtrfs(t *testing.T) {
	filefrag := tool(t, "/usr/sbin/filefrag")
	for mode, off := range map[string]bool{"passthrough": false, "through the process": true} {
		t.Run(mode, func(t *testing.T) {
			needFUSE(t)
			volume := publicDir(t)
			btrfstest.Mount(t, volume, 256<<20)
			write(t, filepath.Join(volume, ".s4/config"), "")
			mnt := mountLive(t, volume, newFakeHistory(), func(o *Options) { o.NoPassthrough = off })
			path := filepath.Join(mnt, "big")
			data := make([]byte, 8<<20)
			rand.NewChaCha8([32]byte{5}).Read(data)
			write(t, path, string(data))
			run(t, "sync", "-f", path)
			shares := func(name string) bool {
				run(t, "sync", "-f", path)
				return strings.Contains(run(t, filefrag, "-v", filepath.Join(volume, name)), "shared")
			}
			if shares("big") {
				t.Error("shared before it was copied")
			}
			run(t, "cp", "--reflink=auto", path, path+".cp")
			if !shares("big.cp") || read(t, path+".cp") != string(data) {
				t.Error("cp shares nothing, or not all is there")
			}
			copyRange(t, path, path+".range", len(data))
			if !shares("big.range") || read(t, path+".range") != string(data) {
				t.Error("copy_file_range shares nothing, or not all is there")
			}
			testNoClone(t, path)
			testHoles(t, path)
			var above, below unix.Statfs_t
			if err := errors.Join(unix.Statfs(mnt, &above), unix.Statfs(volume, &below)); err != nil {
				t.Fatal(err)
			}
			if above.Blocks != below.Blocks || above.Bsize != below.Bsize || above.Bavail == 0 || above.Bavail > above.Blocks {
				t.Errorf("statfs in the mount %+v, on the disk %+v", above, below)
			}
		})
	}
}

func copyRange(t *testing.T, from, to string, size int) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for left := size; left > 0; {
		n, err := unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, left, 0)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes left: %d, %v", left, n, err)
		}
		left -= n
	}
}

// testNoClone: FICLONE is a call that Linux does not pass to FUSE; it must say so
// in a way that programs understand.
func testNoClone(t *testing.T, path string) {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(path + ".clone")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	err = unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
	if !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("clone: %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "--reflink=always", path, path+".always").CombinedOutput(); err == nil {
		t.Error("cp --reflink=always went well without a clone")
	} else if !strings.Contains(string(out), "not supported") {
		t.Errorf("cp --reflink=always: %s", out)
	}
}

// testHoles punches a hole and finds its edges.
func testHoles(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 2<<20); err != nil {
		t.Fatal(err)
	}
	hole, errHole := unix.Seek(fd, 0, unix.SEEK_HOLE)
	end, errEnd := unix.Seek(fd, 1<<20, unix.SEEK_DATA)
	if hole != 1<<20 || end != 3<<20 {
		t.Errorf("hole from %d to %d: %v, %v", hole, end, errHole, errEnd)
	}
	buf := make([]byte, 2<<20)
	if _, err := f.ReadAt(buf, 1<<20); err != nil || len(bytes.Trim(buf, "\x00")) > 0 {
		t.Errorf("there is something in the hole, %v", err)
	}
}
