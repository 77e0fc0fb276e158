package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bothWays runs a test on a live tree that the kernel reads by itself, where it
// can, and on one whose bytes go through this process.
func bothWays(t *testing.T, test func(t *testing.T, volume, mnt string)) {
	for mode, off := range map[string]bool{"passthrough": false, "through the process": true} {
		t.Run(mode, func(t *testing.T) {
			volume := newVolume(t)
			test(t, volume, mountLive(t, volume, newFakeHistory(), func(o *Options) { o.NoPassthrough, o.AllowOther = off, true }))
		})
	}
}

// What names may be, they may be in the mount.
func TestNames(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	for _, name := range []string{strings.Repeat("n", 255), "\xff\xfe\x80", "new\nline", " ", "-rf", "*", "\x01\x7f", strings.Repeat("ä", 127)} {
		path := filepath.Join(mnt, name)
		write(t, path, name)
		if got := read(t, path); got != name {
			t.Errorf("%q holds %q", name, got)
		}
		if err := os.Rename(path, path[:len(path)-1]+"_"); err != nil {
			t.Errorf("rename %q: %v", name, err)
		}
	}
	for _, name := range []string{strings.Repeat("n", 256), strings.Repeat("n", 2000)} {
		if err := os.Mkdir(filepath.Join(mnt, name), 0o700); !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}

// A tree may be deeper than a path may be long, for those who go step by step.
func TestDeepPaths(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	name := strings.Repeat("d", 250)
	dir, err := unix.Open(mnt, unix.O_PATH|unix.O_CLOEXEC, 0)
	for depth := 0; err == nil && depth < 40; depth++ {
		if err = unix.Mkdirat(dir, name, 0o700); err != nil {
			t.Fatalf("%d directories deep: %v", depth, err)
		}
		var next int
		next, err = unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		_ = unix.Close(dir)
		dir = next
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat(dir, "file", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "file")
	defer f.Close()
	if _, err := f.WriteString("deep"); err != nil {
		t.Fatal(err)
	}
	if fd, err = unix.Openat(dir, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	if err := unix.Fchmodat(dir, "file", 0o400, 0); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(mnt, name)); err != nil {
		t.Error(err)
	}
}

// Times of birth are those of the disk.
func TestBirth(t *testing.T) {
	volume := newVolume(t)
	mnt := mountLive(t, volume, newFakeHistory(), nil)
	write(t, filepath.Join(mnt, "file"), "")
	var above, below unix.Statx_t
	for path, x := range map[string]*unix.Statx_t{mnt: &above, volume: &below} {
		if err := unix.Statx(unix.AT_FDCWD, filepath.Join(path, "file"), 0, unix.STATX_BTIME, x); err != nil {
			t.Fatal(err)
		}
	}
	if above.Mask&unix.STATX_BTIME == 0 && below.Mask&unix.STATX_BTIME != 0 {
		t.Skip("the kernel asks for no time of birth")
	}
	if above.Btime != below.Btime {
		t.Errorf("born %v, on the disk %v", above.Btime, below.Btime)
	}
}

// Watchers of the mount see what is done through it.
func TestInotify(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, mnt, unix.IN_CREATE|unix.IN_CLOSE_WRITE|unix.IN_MOVE|unix.IN_DELETE|unix.IN_ATTRIB); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(mnt, "a"), filepath.Join(mnt, "b")
	write(t, a, "text")
	for _, err := range []error{os.Chmod(a, 0o600), os.Rename(a, b), os.Remove(b), f.SetReadDeadline(time.Now().Add(5 * time.Second))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var seen uint32
	buf := make([]byte, 4096)
	for want := uint32(unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE); seen&want != want; {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("saw %x of %x: %v", seen, want, err)
		}
		for p := buf[:n]; len(p) >= unix.SizeofInotifyEvent; {
			seen |= uint32(p[4]) | uint32(p[5])<<8
			p = p[unix.SizeofInotifyEvent+int(p[12]):]
		}
	}
}

// A pipe that lost its name is one still, for those who have it open.
func TestUnlinkedPipe(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	script := `cd "$0" && mkfifo p && exec 3<>p && rm p && echo through >&3 && exec 4</proc/self/fd/3 && exec 3>&- && sleep 1.1 && cat <&4`
	if got := run(t, "bash", "-c", script, mnt); got != "through\n" {
		t.Errorf("read %q", got)
	}
}

// O_TMPFILE makes a file that appears in the tree whole, or never.
func TestTmpfile(t *testing.T) {
	bothWays(t, func(t *testing.T, volume, mnt string) {
		dir, err := unix.Open(mnt, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(dir) }()
		if !takesTmpfile(t, dir) {
			t.Skip("needs Linux 6.2")
		}
		for _, exclusive := range []int{0, unix.O_EXCL} {
			fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|exclusive, 0o606)
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "file")
			defer f.Close()
			if _, err := f.WriteString("whole"); err != nil {
				t.Fatal(err)
			}
			err = unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, "file", unix.AT_SYMLINK_FOLLOW)
			if exclusive != 0 {
				if !errors.Is(err, unix.ENOENT) {
					t.Errorf("one that is never to have a name: %v", err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, filepath.Join(volume, "file")); got != "whole" {
				t.Errorf("below: %q", got)
			}
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || st.Nlink != 1 || st.Mode&0o777 != 0o604 {
				t.Errorf("%d links, mode %o: %v", st.Nlink, st.Mode, err)
			}
			if err := os.Remove(filepath.Join(mnt, "file")); err != nil {
				t.Error(err)
			}
		}
	})
}

// Between processes locks and shared memory work as on a disk.
func TestTwoProcesses(t *testing.T) {
	python := tool(t, "python3")
	bothWays(t, func(t *testing.T, volume, mnt string) {
		path := filepath.Join(mnt, "shared")
		write(t, path, strings.Repeat("-", 1<<16))
		out := run(t, python, "-c", twoProcesses, path)
		if want := "locked out of 0+10, let into 10+10; read ok\n"; out != want {
			t.Errorf("got %s, want %s", out, want)
		}
		data := []byte(read(t, filepath.Join(volume, "shared")))
		if !bytes.HasPrefix(data, []byte("from the child")) || !bytes.HasPrefix(data[40_000:], []byte("from the parent")) {
			t.Errorf("below: %q, %q", data[:20], data[40_000:40_020])
		}
		// Of locks that an open file holds (OFD), too.
		a, b := newSide(t, mnt), newSide(t, mnt)
		for _, s := range []*side{a, b} {
			fd, err := unix.Openat(s.root, "shared", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			s.open[0] = fd
		}
		lock := func(s *side, start int64) error {
			return unix.FcntlFlock(uintptr(s.open[0]), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: 10})
		}
		if err := lock(a, 0); err != nil {
			t.Error(err)
		}
		if err := lock(b, 5); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("a range that another has: %v", err)
		}
		if err := lock(b, 10); err != nil {
			t.Errorf("a range that is free: %v", err)
		}
	})
}

// twoProcesses writes into one mapping from two processes, and locks ranges.
const twoProcesses = `
import fcntl, mmap, os, sys
f = open(sys.argv[1], "r+b", 0)
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
m = mmap.mmap(f.fileno(), 1 << 16)
r, w = os.pipe()
if os.fork() == 0:
    f = open(sys.argv[1], "r+b", 0)
    try:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    except OSError:
        os.write(w, b"locked out of 0+10")
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)
    os.write(w, b", let into 10+10")
    m = mmap.mmap(f.fileno(), 1 << 16)
    m[0:14] = b"from the child"
    m.flush()
    os._exit(0)
os.close(w)
os.wait()
ok = m[0:14] == b"from the child"
m[40000:40015] = b"from the parent"
m.flush()
f.seek(40000)
ok = ok and f.read(15) == b"from the parent"
print(os.read(r, 100).decode() + "; read " + ("ok" if ok else "stale"))
`

// Another file put in a file's place below the mount, as a restore does, is what
// the next one opens, though some have the old one open still.
func TestReplacedBelow(t *testing.T) {
	bothWays(t, func(t *testing.T, volume, mnt string) {
		path := filepath.Join(mnt, "file")
		write(t, path, "old")
		old, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		for round := range 3 {
			write(t, filepath.Join(volume, "temporary"), "new")
			if err := os.Rename(filepath.Join(volume, "temporary"), filepath.Join(volume, "file")); err != nil {
				t.Fatal(err)
			}
			text := fmt.Sprint("written ", round)
			write(t, path, text)
			if got := read(t, filepath.Join(volume, "file")); got != text {
				t.Errorf("what was written went elsewhere: below is %q", got)
			}
		}
		if err := old.Chmod(0o600); err != nil {
			t.Error(err)
		}
		if fi, err := os.Stat(filepath.Join(volume, "file")); err != nil || fi.Mode() != 0o644 {
			t.Errorf("the new file got the old one's mode: %v, %v", fi.Mode(), err)
		}
		data := make([]byte, 10)
		if n, err := old.ReadAt(data, 0); string(data[:n]) != "old" {
			t.Errorf("the old one has %q, %v", data[:n], err)
		}
	})
}

// A copy that leaves holes out has them in the mount, and so the other way.
func TestSparse(t *testing.T) {
	bothWays(t, func(t *testing.T, volume, mnt string) {
		const size = 64 << 20
		path := filepath.Join(mnt, "sparse")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("in the middle"), size/2); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		if off, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || off != size/2 {
			t.Errorf("data at %d, %v", off, err)
		}
		if off, err := unix.Seek(fd, size/2, unix.SEEK_HOLE); err != nil || off <= size/2 || off > size/2+1<<20 {
			t.Errorf("hole at %d, %v", off, err)
		}
		run(t, "cp", "--sparse=auto", path, path+" copy")
		run(t, "cmp", path, path+" copy")
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(volume, "sparse copy"), &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
			t.Errorf("the copy has %d bytes in %d blocks, %v", st.Size, st.Blocks, err)
		}
		if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Seek(fd, 0, unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
			t.Errorf("data after all was punched out: %v", err)
		}
	})
}

// A program in the mount is run, and not written to meanwhile. The shell starts it:
// until a program is there this process could not answer for it.
func TestRunProgram(t *testing.T) {
	bothWays(t, func(t *testing.T, _, mnt string) {
		path := filepath.Join(mnt, "cat")
		run(t, "cp", "/bin/cat", path)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `echo go | "$0" && "$0"; exit $?`, path)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write([]byte("more\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("go\nmore\n"))); err != nil {
			t.Error(err)
		}
		if _, err := os.OpenFile(path, os.O_WRONLY, 0); !errors.Is(err, unix.ETXTBSY) {
			t.Errorf("opened for writing while it runs: %v", err)
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}
