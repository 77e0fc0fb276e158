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
func readXattrs(path string) ([]snapshot.Xattr, error) {
	names, err := grow(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var list []snapshot.Xattr
	for name := range bytes.SplitSeq(names, []byte{0}) {
		if !managed(string(name)) {
			continue
		}
		value, err := grow(func(buf []byte) (int, error) { return unix.Lgetxattr(path, string(name), buf) })
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOTSUP):
			continue // gone meanwhile, or not ours to see
		case err != nil:
			return nil, err
		}
		list = append(list, snapshot.Xattr{Name: string(name), Value: value})
	}
	slices.SortFunc(list, func(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
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
