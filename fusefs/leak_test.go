package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// After hundreds of rounds of everything, with errors among them, a mount holds no
// more descriptors and goroutines than before.
func TestNothingGrows(t *testing.T) {
	h, tree := newFakeHistory(), newVolume(t)
	for i := range 20 {
		write(t, filepath.Join(tree, fmt.Sprintf("dir%d/file", i%5)), fmt.Sprint("content ", i))
		h.add(t, tree, time.Unix(1_700_000_000+int64(i), 0))
	}
	h.broken = "broken"
	write(t, filepath.Join(tree, "broken"), "never to be read")
	h.add(t, tree, time.Unix(1_700_001_000, 0))
	bothWays(t, func(t *testing.T, _, mnt string) {
		// The history in one mount, the live tree in another; each is of this process.
		past := mountLive(t, newVolume(t), h, nil)
		rounds := func(n int) {
			var all sync.WaitGroup
			for worker := range 4 {
				all.Go(func() {
					for i := range n {
						if err := everything(filepath.Join(mnt, fmt.Sprint("worker", worker)), filepath.Join(past, ".s4"), i); err != nil {
							t.Errorf("worker %d, round %d: %v", worker, i, err)
							return
						}
					}
				})
			}
			all.Wait()
		}
		rounds(5) // what is started once is started now
		settled := func(goroutines, files int) bool {
			return runtime.NumGoroutine() <= goroutines && filesAndPipes(t) <= files
		}
		time.Sleep(2 * dirsKeptFor) // kept descriptors go by time alone
		goroutines, files := runtime.NumGoroutine(), filesAndPipes(t)
		rounds(50)
		// go-fuse reads with up to 16 goroutines a mount, as many as there were
		// requests at once. What leaks in a round is there 200 times.
		eventually(t, 10*time.Second, fmt.Sprintf("about %d goroutines and %d files again", goroutines, files), func() bool {
			return settled(goroutines+32, files+8)
		})
	})
}

// filesAndPipes counts this process's descriptors. go-fuse keeps a few pipes for
// splice(2), as many as there were reads at once: up to four for each worker count
// as none.
func filesAndPipes(t *testing.T) int {
	t.Helper()
	files, pipes := 0, 0
	for _, fd := range names(t, "/proc/self/fd") {
		if target, _ := os.Readlink("/proc/self/fd/" + fd); strings.HasPrefix(target, "pipe:") {
			pipes++
		} else {
			files++
		}
	}
	return files + max(0, pipes-16)
}

// everything is one round in a directory of its own and in the past.
func everything(dir, dotS4 string, round int) error {
	file, moved := filepath.Join(dir, "file"), filepath.Join(dir, "moved")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if _, err := f.WriteString("text"); err != nil {
		return err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	pipe, tmp := filepath.Join(dir, "pipe"), -1
	for _, do := range []func() error{
		func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) },
		func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock) },
		func() error { return os.Rename(file, moved) },
		func() error { _, err := os.ReadFile(moved); return err },
		func() error { _, err := os.ReadDir(dir); return err },
		func() error { return unix.Mkfifo(pipe, 0o600) },
		func() (err error) { tmp, err = unix.Open(pipe, unix.O_RDWR|unix.O_CLOEXEC, 0); return err },
		func() error { return os.Remove(pipe) },
		func() error { return unix.Close(tmp) },
		func() error { return os.Mkdir(file, 0o700) },
		func() error { return os.RemoveAll(dir) },
		func() error { return f.Chmod(0o400) },
		func() error { _, err := os.ReadDir(filepath.Join(dotS4, "history/latest/dir1")); return err },
		func() error {
			_, err := os.ReadFile(filepath.Join(dotS4, fmt.Sprintf("versions/dir%d/file/%s", round%5, version(round%5))))
			return err
		},
	} {
		if err := do(); err != nil {
			return err
		}
	}
	// And what cannot go well.
	for what, err := range map[string]error{
		"open": second(os.Open(file)), "list": second(os.ReadDir(file)), "rename": os.Rename(moved, file),
		"create":  second(os.Create(filepath.Join(dotS4, "history/latest/new"))),
		"content": second(os.ReadFile(filepath.Join(dotS4, "history/latest/broken"))),
		"moment":  second(os.ReadDir(filepath.Join(dotS4, "history/1999"))),
		"rmdir":   unix.Rmdir(dotS4),
	} {
		if err == nil {
			return fmt.Errorf("%s went well", what)
		}
	}
	return nil
}

func second[T any](_ T, err error) error { return err }

// version is the name of the first version of a file of TestNothingGrows.
func version(i int) string {
	return time.Unix(1_700_000_000+int64(i), 0).UTC().Format(snapshot.DirFormat)
}
