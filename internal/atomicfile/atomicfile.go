// Package atomicfile writes small files so that a reader, or the next run
// after a crash, sees either the old content or the new, never a part.
//
// The content goes to a temporary file in the same directory, which is synced,
// renamed over the name, and made durable by syncing the directory. A run that
// is killed in between leaves at most a file whose name begins with
// [TempPrefix]; nothing ever reads it.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// TempPrefix begins the name of a temporary file.
const TempPrefix = ".s4-atomic-"

// Write makes data the content of the file at path, with exactly the
// permission bits mode, whatever the umask. A symlink at path is replaced, not
// followed. On error path is as it was.
func Write(path string, data []byte, mode fs.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := fill(f, data, mode); err != nil {
		return errors.Join(err, f.Close())
	}
	// Close reports what a network file system could not store.
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Clear removes the temporary files in dir, which need not be there, that killed
// runs left: those that have not been written to for so long.
func Clear(dir string, age time.Duration) error {
	left, err := filepath.Glob(filepath.Join(dir, TempPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		info, err := os.Lstat(path)
		if err == nil && time.Since(info.ModTime()) >= age {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear away what a killed run left: %w", err)
		}
	}
	return nil
}

func fill(f *os.File, data []byte, mode fs.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes a rename in dir durable. Some file systems refuse to sync a
// directory; there is nothing better to be done on them.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
