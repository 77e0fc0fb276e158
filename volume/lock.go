package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// patience is how long a command waits for another that is at work on the
// volume: most are done in a moment, as a push by replicate is.
const patience = 3 * time.Second

// acquire takes the volume's lock. While a second process keeps it, the error is
// snapshot.ErrLocked.
func (v *Volume) acquire(ctx context.Context) error { return v.acquireWithin(ctx, patience) }

func (v *Volume) acquireWithin(ctx context.Context, patience time.Duration) error {
	if v.lock != nil {
		return nil
	}
	// A copy of a volume, out of a snapshot say, comes without local.
	if err := makeLocal(v.Root); err != nil {
		return fmt.Errorf("lock volume: %w", err)
	}
	lock, err := takeLock(ctx, v.path(LocalDir, "lock"), patience)
	if holder, ok := errors.AsType[*heldError](err); ok {
		return hint.With(fmt.Errorf("%w: another s4 (process %s) is at work on %s", snapshot.ErrLocked, holder.pid, v.Shown), "wait for it to end")
	}
	if err != nil {
		return fmt.Errorf("lock volume: %w", err)
	}
	v.lock = lock
	// What another process did between our opening and our locking counts.
	v.state, err = loadState(v.state.path)
	return err
}

func (v *Volume) unlock() {
	if v.lock != nil {
		v.lock.Close()
		v.lock = nil
	}
}

// OnlyOne makes this process the only one that does a job for the volume which
// goes on while others work on it, such as "replicate", until done is called.
// Errors: snapshot.ErrLocked.
func (v *Volume) OnlyOne(ctx context.Context, job string) (done func(), err error) {
	return v.onlyOneWithin(ctx, job, 0)
}

func (v *Volume) onlyOneWithin(ctx context.Context, job string, patience time.Duration) (done func(), err error) {
	if err := makeLocal(v.Root); err != nil {
		return nil, fmt.Errorf("%s: %w", job, err)
	}
	lock, err := takeLock(ctx, v.path(LocalDir, job+".lock"), patience)
	if holder, ok := errors.AsType[*heldError](err); ok {
		return nil, hint.With(fmt.Errorf("%w: another s4 %s (process %s) runs for %s", snapshot.ErrLocked, job, holder.pid, v.Shown),
			"one is enough; see: s4 status")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", job, err)
	}
	return func() { lock.Close() }, nil
}

// mountJob is the job whose lock every mount of the volume holds, together with
// other mounts.
const mountJob = "mount"

// mounted notes that the volume's root is in use by a mount, until done is called.
func (v *Volume) mounted() (done func(), err error) {
	if err := makeLocal(v.Root); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(v.path(LocalDir, mountJob+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: a sync is about to put a new version in place", snapshot.ErrLocked)
	}
	return func() { f.Close() }, nil
}

// heldError says that another process has a lock.
type heldError struct{ pid string }

func (e *heldError) Error() string { return "held by process " + e.pid }

// takeLock locks the file at path, made where it is missing, and writes into it
// who has it. The lock goes with the file's closing, and so with the process.
func takeLock(ctx context.Context, path string, patience time.Duration) (*os.File, error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for since := time.Now(); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			_ = f.Truncate(0)
			_, _ = fmt.Fprintln(f, os.Getpid())
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Since(since) < patience && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			holder := make([]byte, 32)
			n, _ := f.ReadAt(holder, 0)
			err = &heldError{strings.TrimSpace(string(holder[:n]))}
		}
		f.Close()
		return nil, errors.Join(ctx.Err(), err)
	}
}
