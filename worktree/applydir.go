package worktree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// loosenDirs makes existing directories writable whose names change; they get
// their modes and flags back at the end.
func (a *applier) loosenDirs() {
	for path, d := range a.plan.dirs {
		tight := d.old.Mode&0o300 != 0o300 && os.Geteuid() != 0
		if d.old.Flags&(snapshot.FlagImmutable|snapshot.FlagAppend) == 0 && !tight {
			continue
		}
		err := a.root.at(path, func(dir int, name string) error {
			if err := clearFlags(dir, name, d.old.Flags); err != nil || !tight {
				return err
			}
			fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
			if err != nil {
				return err
			}
			defer closeFD(fd)
			return unix.Chmod(procSelf(fd), d.old.Mode&0o7777|0o700)
		})
		if err != nil {
			// Each path in it will tell.
			a.o.Log.Debug("directory cannot be made writable", "path", path, "err", err)
		}
	}
}

// makeDir makes a directory, for its owner alone until it is complete.
func (a *applier) makeDir(ctx context.Context, x *Action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.Op == SetMeta {
		return nil // at the end, like all directories
	}
	dir, name, err := a.root.openParent(x.Path)
	if err != nil {
		return inTheWay(err)
	}
	defer closeFD(dir)
	if x.Old != nil {
		if err := a.unmoved(dir, name, x); err != nil {
			return err
		}
		if err := clearFlags(dir, name, x.Old.Flags); err != nil {
			return err
		}
		if err := a.keep(dir, name, x); err != nil {
			return err
		}
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err = unix.Mkdirat(dir, name, 0o700)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	now, err := statAt(dir, name)
	if err == nil && !isDir(now.Mode) {
		err = fmt.Errorf("appeared meanwhile: %w", snapshot.ErrRefused)
	}
	return err // a directory that somebody else made will do
}

// finishDirs sets the metadata of directories, deepest first, now that
// nothing in them changes any more.
func (a *applier) finishDirs() {
	type final struct {
		op    Op
		entry *snapshot.Entry
	}
	finals := map[string]final{}
	for path, d := range a.plan.dirs {
		if d.new != nil && isDir(d.new.Mode) && !madeUp(d.new) {
			finals[path] = final{SetMeta, d.new}
		} else if d.old.Mode&0o300 != 0o300 || d.old.Flags != 0 {
			// Its own metadata is not recorded, or it was to be deleted
			// and may still be there: as it was.
			finals[path] = final{"", &d.old.Entry}
		}
	}
	for i := range a.plan.Actions {
		if x := &a.plan.Actions[i]; x.New != nil && isDir(x.New.Mode) {
			finals[x.Path] = final{x.Op, x.New}
		}
	}
	paths := slices.SortedFunc(maps.Keys(finals), func(x, y string) int { return ComparePaths(y, x) })
	for _, path := range paths {
		f := finals[path]
		if err := a.finishDir(path, f.entry, f.op); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.mu.Lock()
			if a.failed[path] == nil {
				a.errs = append(a.errs, &PathError{SetMeta, path, inTheWay(err)})
			}
			a.mu.Unlock()
		}
	}
}

func (a *applier) finishDir(path string, e *snapshot.Entry, op Op) error {
	fd, err := a.root.openDir(path)
	if errors.Is(err, unix.EACCES) { // one's own directory may be unreadable
		err = a.root.at(path, func(dir int, name string) error {
			fd, err = openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
			return err
		})
	}
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if op == "" || madeUp(e) {
		a.flag(&Action{Op: SetMeta, Path: path, New: e})
		return unix.Chmod(procSelf(fd), e.Mode&0o7777)
	}
	ino, err := a.setMeta(fd, e)
	if err != nil {
		return err
	}
	a.done(&Action{Op: SetMeta, Path: path, New: e}, ino)
	return nil
}
