package worktree

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// keep gives a file that is about to lose its name another one below o.Keep,
// if it is one of those to be kept. It costs no space and cannot lose anything:
// the file has both names until the first is taken over.
func (a *applier) keep(dir int, name string, x *Action) error {
	if a.o.Keep == "" || x.Old == nil || isDir(x.Old.Mode) || a.o.Keeps != nil && !a.o.Keeps(x.Path) {
		return nil
	}
	to, last := split(join(a.o.Keep, x.Path))
	fd, err := a.root.makeDirs(to)
	if err == nil {
		defer closeFD(fd)
		err = unix.Linkat(dir, name, fd, last, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot be kept in %s: %w: %w", a.o.Keep, snapshot.ErrRefused, err)
	}
	a.mu.Lock()
	a.res.Kept++
	a.mu.Unlock()
	return nil
}

// makeDirs opens the directory at path and makes what is missing of it, for
// the owner alone, following no symlink.
func (r *Root) makeDirs(path string) (int, error) {
	fd, err := r.openDir(path)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	up, name := split(path)
	above, err := r.makeDirs(up)
	if err != nil {
		return -1, err
	}
	defer closeFD(above)
	if err := unix.Mkdirat(above, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openat(above, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}
