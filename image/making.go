package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/loop"
)

// While an image is made, and has no record yet, its maker holds a lock beside it.
// A lock that nobody holds is of a process that was killed.
const lockSuffix = ".lock"

// topOf is where an image's file system is mounted while it is made.
func topOf(image string) string {
	return filepath.Join(filepath.Dir(image), ".mount-"+filepath.Base(image))
}

// begin notes that the image is being made.
func (r *Record) begin() error {
	if err := os.MkdirAll(filepath.Dir(r.Image), 0o700); err != nil {
		return fmt.Errorf("make a place for images: %w", err)
	}
	f, err := os.OpenFile(r.Image+lockSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return fmt.Errorf("make an image: %w", err)
	}
	r.making = f
	return nil
}

// end notes that the image is made, or given up.
func (r *Record) end() {
	if r.making != nil {
		_ = os.Remove(r.making.Name()) // a lock that is left means nothing once there is a record
		r.making.Close()
		r.making = nil
	}
}

// tidy clears away what killed processes have left of images that they were making.
func tidy(ctx context.Context) error {
	locks, err := filepath.Glob(filepath.Join(Place(), "*.img"+lockSuffix))
	if err != nil {
		return err
	}
	var errs []error
	for _, lock := range locks {
		errs = append(errs, tidyOne(ctx, lock))
	}
	return errors.Join(errs...)
}

func tidyOne(ctx context.Context, lock string) error {
	f, err := os.Open(lock)
	if err != nil {
		return err
	}
	defer f.Close()
	if errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return nil // at work
	}
	image := strings.TrimSuffix(lock, lockSuffix)
	if err := (&Record{Image: image}).Release(ctx); err != nil {
		return err
	}
	_, err = os.Lstat(recordPath(image))
	if errors.Is(err, fs.ErrNotExist) {
		at, err := loop.Find(image)
		if err == nil && len(at.Mounts) > 0 { // it got as far as to be used
			return nil
		}
		if err := os.Remove(image); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(lock)
}
