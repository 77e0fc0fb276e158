package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// Options say how a lock is taken.
type Options struct {
	Wait    time.Duration // how long another holder is waited for
	Environ func(string) (string, bool)
	Logger  *slog.Logger
}

// Lock is the exclusive lock of a repository.
type Lock struct {
	dir    string // the lock directory
	roster string
	me     holder
	file   *os.File // my name in the lock directory, locked
}

// poll is how often another holder is looked for.
const poll = 50 * time.Millisecond

// Exclusive takes the exclusive lock of the repository in dir.
//
// Errors: [fault.LockedError].
func Exclusive(ctx context.Context, dir string, o Options) (*Lock, error) {
	host, err := hostID(ctx, o.Environ)
	if err != nil {
		return nil, err
	}
	l := &Lock{
		dir: filepath.Join(dir, "lock.exclusive"), roster: filepath.Join(dir, "lock.roster"),
		me: holder{host: host, pid: os.Getpid()},
	}
	for deadline := time.Now().Add(o.Wait); ; {
		err := l.try(o.Logger)
		if _, held := errors.AsType[*fault.LockedError](err); err == nil || !held {
			return l, err
		}
		if !time.Now().Before(deadline) {
			return nil, err
		}
		t := time.NewTimer(poll)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// try takes the lock directory, and keeps it if nobody reads.
func (l *Lock) try(log *slog.Logger) error {
	if err := l.enter(log); err != nil {
		return err
	}
	r, err := readRoster(l.roster)
	if err == nil {
		r.prune(l.me)
		if len(r.shared) > 0 {
			err = r.shared[0].locked(true)
		} else {
			r.exclusive = append(r.exclusive, l.me)
			err = r.write(l.roster)
		}
	}
	if err != nil {
		return errors.Join(err, l.leave())
	}
	return nil
}

// enter makes the lock directory mine.
func (l *Lock) enter(log *slog.Logger) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(l.dir), "lock.exclusive.*.tmp")
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	f, err := os.OpenFile(filepath.Join(tmp, l.me.name()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	// Where the file system has no such locks, Borg's own rules must do.
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for {
		err = unix.Rename(tmp, l.dir)
		if err == nil {
			l.file = f
			return nil
		}
		if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("lock: %w", &fs.PathError{Op: "rename", Path: l.dir, Err: err})
			break
		}
		if err = l.removeStale(log); err != nil {
			break
		}
	}
	f.Close()
	return err
}

// removeStale empties the lock directory of holders who are gone, or tells of
// one who is not.
func (l *Lock) removeStale(log *slog.Logger) error {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) { // given back meanwhile
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	for _, e := range entries {
		h, ok := parseName(e.Name())
		if !ok {
			return &fault.LockedError{Host: e.Name()}
		}
		path := filepath.Join(l.dir, e.Name())
		if !h.gone(l.me) || flocked(path) {
			return h.locked(false)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove stale lock: %w", err)
		}
		log.Warn("removed a lock whose holder is gone", "host", h.host, "pid", h.pid)
	}
	return nil // an empty directory can be replaced
}

// flocked reports whether a process that is alive holds the file at path.
func flocked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Held reports whether the lock is still there: somebody may have broken it, as
// "borg break-lock" does.
func (l *Lock) Held() bool {
	there, err := os.Lstat(filepath.Join(l.dir, l.me.name()))
	if err != nil {
		return false
	}
	mine, err := l.file.Stat()
	return err == nil && os.SameFile(there, mine)
}

// Release gives the lock back. It must be called once. One that was broken is
// left to who has it now.
func (l *Lock) Release() error {
	if !l.Held() {
		l.file.Close()
		return fault.ErrLockLost
	}
	r, err := readRoster(l.roster)
	if err == nil {
		r.exclusive = slices.DeleteFunc(r.exclusive, func(h holder) bool { return h == l.me })
		err = r.write(l.roster)
	}
	return errors.Join(err, l.leave())
}

// leave gives the lock directory back.
func (l *Lock) leave() error {
	defer l.file.Close()
	if err := os.Remove(filepath.Join(l.dir, l.me.name())); err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	err := os.Remove(l.dir)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, fs.ErrNotExist) {
		err = nil // the next holder is in it
	}
	return err
}
