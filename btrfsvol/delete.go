package btrfsvol

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Delete deletes a subvolume, read-only or not, and those nested in it, which
// go first: a failure may leave some deleted. The directory is gone at once,
// the space comes back in the background. Symbolic links are not followed.
func Delete(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return deleteIn(dir, filepath.Base(path))
}

// deleteIn deletes the subvolume of that name in a directory.
func deleteIn(dir *os.File, name string) error {
	path := filepath.Join(dir.Name(), name)
	f, err := openBelow(dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = ErrNotSubvolume
	}
	if err != nil {
		return fail("delete", path, err)
	}
	defer f.Close()
	if err := check(f); err != nil {
		return fail("delete", path, err)
	}
	if err := deleteNested(f); err != nil {
		return err
	}
	var args volArgs
	if copy(args.Name[:len(args.Name)-1], name) < len(name) {
		return fail("delete", path, unix.ENAMETOOLONG)
	}
	err = ioctl(dir, iocSnapDestroy, &args)
	if errors.Is(err, unix.EROFS) { // who is not root must make it writable first
		if setReadOnly(f, false) == nil {
			err = ioctl(dir, iocSnapDestroy, &args)
		}
	}
	if err != nil {
		return fail("delete", path, err)
	}
	return nil
}

// deleteNested deletes all subvolumes inside of one. The kernel tells them
// without a walk through the files.
func deleteNested(f *os.File) error {
	for {
		var refs rootrefArgs
		err := ioctl(f, iocSubvolRootref, &refs)
		more := errors.Is(err, unix.EOVERFLOW)
		if err != nil && !more {
			return fail("list subvolumes in", f.Name(), err)
		}
		if refs.Count == 0 {
			return nil
		}
		if err := setReadOnly(f, false); err != nil {
			return err
		}
		for _, ref := range refs.Refs[:refs.Count] {
			args := lookupUserArgs{DirID: ref.DirID, ID: ref.ID}
			if err := ioctl(f, iocLookupUser, &args); err != nil {
				return fail("list subvolumes in", f.Name(), err)
			}
			dir, err := openBelow(f, filepath.Join(".", cString(args.Path[:])))
			if err != nil {
				return fail("open", filepath.Join(f.Name(), cString(args.Path[:])), err)
			}
			err = deleteIn(dir, cString(args.Name[:]))
			dir.Close()
			if err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// openBelow opens a directory below dir, following no symbolic link.
func openBelow(dir *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), path)), nil
}
