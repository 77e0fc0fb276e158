package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// CreateOptions say what a new repository is like.
type CreateOptions struct {
	ID           [32]byte
	AppendOnly   bool
	StorageQuota int64 // bytes; 0: none
	MakeParents  bool  // make the directories above it where they are missing
}

// readme tells that a directory is a repository; Borg too looks for its first words.
const readme = `This is a Borg Backup repository.
See https://borgbackup.readthedocs.io/
`

const configFormat = `[repository]
version = 1
segments_per_dir = 1000
max_segment_size = 524288000
append_only = %d
storage_quota = %d
additional_free_space = 0
id = %x

`

// Create makes an empty repository, which has no manifest yet, at a path where
// nothing is or an empty directory. It appears as a whole or not at all; but for an
// empty directory, which is filled. The directory is its own, or was there before;
// [Remove] has to know.
//
// Errors: [fault.ErrExists] when something is there or it would lie inside another
// repository; [fs.ErrNotExist] when there is no directory for it to be in.
func Create(dir string, o CreateOptions) (own bool, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return false, err
	}
	empty, err := checkVacant(dir)
	switch {
	case err != nil:
		return false, err
	case !empty:
		return true, createWhole(dir, o)
	}
	if err := fill(dir, o); err != nil {
		return false, errors.Join(err, Remove(dir, false))
	}
	return false, nil
}

// createWhole makes a repository beside its place and moves it there.
func createWhole(dir string, o CreateOptions) error {
	parent := filepath.Dir(dir)
	if o.MakeParents {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".*.tmp")
	if err != nil {
		return err
	}
	err = fill(tmp, o)
	if err == nil {
		if err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE); errors.Is(err, unix.EINVAL) {
			err = unix.Rename(tmp, dir) // a file system that knows no flags
		}
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
			err = fmt.Errorf("%w: %s", fault.ErrExists, dir)
		}
	}
	if err != nil {
		return errors.Join(spaceError(err), os.RemoveAll(tmp))
	}
	return syncDir(parent)
}

// fill makes a repository of an empty directory. The configuration comes last:
// without one it is no repository.
func fill(dir string, o CreateOptions) error {
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "README"), []byte(readme), 0o600); err != nil {
		return spaceError(err)
	}
	appendOnly := 0
	if o.AppendOnly {
		appendOnly = 1
	}
	return spaceError(replaceFile(filepath.Join(dir, "config"), fmt.Appendf(nil, configFormat, appendOnly, o.StorageQuota, o.ID), 0o600))
}

// Remove takes away what [Create] made, and the directory too if it was its own.
// The configuration goes first.
func Remove(dir string, whole bool) error {
	err := os.Remove(filepath.Join(dir, "config"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if whole {
		return errors.Join(err, os.RemoveAll(dir))
	}
	entries, rerr := os.ReadDir(dir)
	err = errors.Join(err, rerr)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// checkVacant makes sure that a repository may be made at dir: nothing is there or
// an empty directory, and none of the directories above is a repository, whose
// files Borg might take for its own.
func checkVacant(dir string) (empty bool, err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case err == nil:
		_, err = f.Readdirnames(1)
		f.Close()
		if err == nil {
			return false, fmt.Errorf("%w: %s", fault.ErrExists, dir)
		}
		if !errors.Is(err, io.EOF) {
			return false, err
		}
		empty = true
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, fmt.Errorf("%w: %s", fault.ErrExists, dir)
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		if isRepository(dir) {
			return false, fmt.Errorf("%w: %s is a repository", fault.ErrExists, dir)
		}
	}
	return empty, nil
}

// isRepository tells by the README, as Borg does.
func isRepository(dir string) bool {
	f, _, err := openRegular(filepath.Join(dir, "README"))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 100)
	n, _ := io.ReadFull(f, head)
	return bytes.Contains(head[:n], []byte("Borg Backup repository")) || bytes.Contains(head[:n], []byte("Borg repository"))
}
