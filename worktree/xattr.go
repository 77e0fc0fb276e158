package worktree

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// readXattrs reads the managed attributes of what path names, which is not
// followed if it is a symlink.
func readXattrs(path string, keep func(name string) bool) ([]snapshot.Xattr, error) {
	return collectXattrs(keep,
		func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

// fdXattrs is readXattrs of an open file, which may be an O_PATH descriptor,
// of a symlink too: following the link in /proc leads to it and no further.
func fdXattrs(fd int) ([]snapshot.Xattr, error) {
	path := procSelf(fd)
	return collectXattrs(managed,
		func(buf []byte) (int, error) { return unix.Listxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Getxattr(path, name, buf) })
}

func collectXattrs(keep func(name string) bool, list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]snapshot.Xattr, error) {
	names, err := grow(list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var all []snapshot.Xattr
	for name := range bytes.SplitSeq(names, []byte{0}) {
		if len(name) == 0 || !keep(string(name)) {
			continue
		}
		value, err := grow(func(buf []byte) (int, error) { return get(string(name), buf) })
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOTSUP):
			continue // gone meanwhile, or not ours to see
		case err != nil:
			return nil, err
		}
		all = append(all, snapshot.Xattr{Name: string(name), Value: value})
	}
	slices.SortFunc(all, func(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// grow calls read with buffers of growing size until the answer fits.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for size := 512; ; size *= 4 {
		buf := make([]byte, size)
		n, err := read(buf)
		switch {
		case err == nil:
			return slices.Clip(buf[:n]), nil
		case !errors.Is(err, unix.ERANGE) || size > 1<<20:
			return nil, err
		}
	}
}
