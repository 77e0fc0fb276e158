package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// syncDir makes durable which files are in a directory.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// replaceFile writes a small file in place of another, durably, whole or not at all.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".s4.tmp" // nobody else has the lock
	err := writeFile(tmp, data, mode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // the first error tells more
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeFile writes a file and makes its content durable.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// spaceError makes an [fault.ErrNoSpace] of the errors of a full disk.
func spaceError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", fault.ErrNoSpace, err)
	}
	return err
}
