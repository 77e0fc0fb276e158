package fusefs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stormTime is how long names move while others work below them.
func stormTime() time.Duration {
	if os.Getenv("S4_LONG") != "" {
		return 20 * time.Second
	}
	return 2 * time.Second
}

// Names move all the time, and those who hold a directory open, or walked to it,
// still find what is in it: none of it was away for a moment.
func TestWorkBelowMovingDirectories(t *testing.T) {
	for mode, off := range map[string]bool{"passthrough": false, "through the process": true} {
		t.Run(mode, func(t *testing.T) {
			mnt := mountLive(t, newVolume(t), newFakeHistory(), func(o *Options) { o.NoPassthrough = off })
			storm(t, mnt, stormTime())
		})
	}
	t.Run("on the disk", func(t *testing.T) { storm(t, t.TempDir(), time.Second) }) // or the test would ask too much
}

// storm renames directories and works in them for so long.
func storm(t *testing.T, top string, long time.Duration) {
	for _, dir := range []string{"one/deep/er", "two", "three"} {
		write(t, filepath.Join(top, dir, "file"), "content")
	}
	write(t, filepath.Join(top, "saved"), "content")
	if err := os.Link(filepath.Join(top, "one/deep/er/file"), filepath.Join(top, "two/link")); err != nil {
		t.Fatal(err)
	}
	deep := newSide(t, filepath.Join(top, "one/deep/er"))
	var over atomic.Bool
	var all sync.WaitGroup
	defer all.Wait()
	time.AfterFunc(long, func() { over.Store(true) })
	forever := func(what string, do func(i int) error) {
		all.Go(func() {
			for i := 0; !over.Load(); i++ {
				if err := do(i); err != nil {
					t.Errorf("%s, round %d: %v", what, i, err)
					return
				}
			}
		})
	}
	// Whichever of these names there is becomes the next; which, others decide, too.
	move := func(what string, names ...string) {
		forever(what, func(i int) error {
			err := os.Rename(filepath.Join(top, names[i%len(names)]), filepath.Join(top, names[(i+1)%len(names)]))
			if err == nil || errors.Is(err, unix.ENOENT) {
				return nil
			}
			return err
		})
	}
	// The one that deep lies below goes from place to place, its parent with it.
	move("move", "one/deep", "two/deep", "three/elsewhere", "four/elsewhere")
	move("rename the place it may lie in", "three", "four")
	forever("exchange", func(int) error {
		return unix.Renameat2(unix.AT_FDCWD, filepath.Join(top, "one"), unix.AT_FDCWD, filepath.Join(top, "two"), unix.RENAME_EXCHANGE)
	})
	forever("save", func(i int) error {
		next := filepath.Join(top, "next")
		if err := os.WriteFile(next, []byte("content"), 0o600); err != nil {
			return err
		}
		return os.Rename(next, filepath.Join(top, "saved"))
	})
	for range 2 {
		forever("read what is saved", func(int) error {
			data, err := os.ReadFile(filepath.Join(top, "saved"))
			if err == nil && string(data) != "content" {
				return fmt.Errorf("read %q", data)
			}
			return err
		})
	}
	for worker := range 3 {
		forever("work by descriptor", func(i int) error { return workIn(deep.root, worker, i) })
	}
	forever("list", func(int) error { return listed(deep.root) })
}

// workIn does with a directory, by its descriptor, what must always go well.
func workIn(dir, worker, round int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, "file", &st, 0); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	fd, err := unix.Openat(dir, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	buf := make([]byte, 10)
	n, err := unix.Pread(fd, buf, 0)
	_ = unix.Close(fd)
	if err != nil || string(buf[:n]) != "content" {
		return fmt.Errorf("read %q: %w", buf[:n], err)
	}
	own, moved := fmt.Sprint("own ", worker), fmt.Sprint("moved ", worker, " ", rand.IntN(3)) //nolint:gosec // any will do
	steps := []struct {
		what string
		do   func() error
	}{
		{"create", func() error {
			fd, err := unix.Openat(dir, own, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return err
			}
			_, err = unix.Write(fd, []byte("own"))
			return errors.Join(err, unix.Fchmod(fd, 0o640), unix.Close(fd))
		}},
		{"chmod", func() error { return unix.Fchmodat(dir, own, 0o600, 0) }},
		{"xattr", func() error {
			return unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, own), "user.round", []byte(fmt.Sprint(round)), 0)
		}},
		{"mkdir", func() error { return unix.Mkdirat(dir, own+"dir", 0o700) }},
		{"rename into it", func() error { return unix.Renameat(dir, own, dir, own+"dir/"+moved) }},
		{"link out of it", func() error { return unix.Linkat(dir, own+"dir/"+moved, dir, own, 0) }},
		{"stat the other name", func() error { return unix.Fstatat(dir, own, &st, 0) }},
		{"unlink in it", func() error { return unix.Unlinkat(dir, own+"dir/"+moved, 0) }},
		{"stat what is left", func() error { return unix.Fstatat(dir, own, &st, 0) }},
		{"unlink", func() error { return unix.Unlinkat(dir, own, 0) }},
		{"rmdir", func() error { return unix.Unlinkat(dir, own+"dir", unix.AT_REMOVEDIR) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// listed tells whether a directory lists the file that is always in it.
func listed(dir int) error {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	entries, err := f.Readdirnames(-1)
	for _, name := range entries {
		if name == "file" {
			return err
		}
	}
	return fmt.Errorf("listed %q: %w", entries, errors.Join(err, unix.ENOENT))
}
