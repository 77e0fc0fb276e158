package worktree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// put creates or replaces anything but a directory, or sets its metadata.
func (a *applier) put(ctx context.Context, x *Action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, name, err := a.root.openParent(x.Path)
	if err != nil {
		return inTheWay(err)
	}
	defer closeFD(dir)
	if err := a.unmoved(dir, name, x); err != nil {
		return err
	}
	if x.Op == SetMeta {
		return a.setMetaOf(dir, name, x)
	}
	if x.New.Damaged {
		return fmt.Errorf("parts of the content are lost: %w", snapshot.ErrDamaged)
	}
	temp := tempName()
	ino, err := a.build(ctx, dir, temp, x)
	if err == nil {
		err = a.install(ctx, dir, temp, name, x)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temp, 0) // else it is found as a leftover later
		return err
	}
	a.done(x, ino)
	return nil
}

// build makes the whole new file under its temporary name.
func (a *applier) build(ctx context.Context, dir int, temp string, x *Action) (ino uint64, err error) {
	switch x.New.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := openat(dir, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return 0, err
		}
		f := os.NewFile(uintptr(fd), x.Path)
		ino, err = a.fill(ctx, f, x)
		return ino, errors.Join(err, f.Close())
	case unix.S_IFLNK:
		err = unix.Symlinkat(x.New.Target, dir, temp)
	case unix.S_IFIFO:
		err = unix.Mknodat(dir, temp, unix.S_IFIFO|0o600, 0)
	case unix.S_IFCHR, unix.S_IFBLK:
		err = unix.Mknodat(dir, temp, x.New.Mode&unix.S_IFMT|0o600, int(x.New.Rdev))
	default:
		err = fmt.Errorf("a file of unknown type %o", x.New.Mode&unix.S_IFMT)
	}
	if err != nil {
		return 0, err
	}
	fd, err := openat(dir, temp, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer closeFD(fd)
	return a.setMeta(fd, x.New)
}

func (a *applier) fill(ctx context.Context, f *os.File, x *Action) (uint64, error) {
	if err := a.content(ctx, f, x); err != nil {
		return 0, err
	}
	ino, err := a.setMeta(int(f.Fd()), x.New)
	if err == nil && (a.o.Sync == SyncEach || a.o.Sync == SyncReplaced && x.Old != nil) {
		err = f.Sync()
	}
	return ino, err
}

// install gives the finished file its name, if that still is what the plan saw.
func (a *applier) install(ctx context.Context, dir int, temp, name string, x *Action) error {
	if err := a.unmoved(dir, name, x); err != nil {
		return err
	}
	if x.Old == nil && !a.o.Force {
		// The kernel closes the gap between the look and the rename.
		err := unix.Renameat2(dir, temp, dir, name, unix.RENAME_NOREPLACE)
		switch {
		case errors.Is(err, unix.EEXIST):
			return fmt.Errorf("appeared meanwhile: %w", snapshot.ErrRefused)
		case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS):
			return err
		}
	}
	if x.Old != nil {
		if err := clearFlags(dir, name, x.Old.Flags); err != nil {
			return err
		}
		if err := a.keep(dir, name, x); err != nil {
			return err
		}
		if isDir(x.Old.Mode) {
			for _, child := range slices.Backward(a.rooms[x.Path]) {
				a.finished(child, a.remove(ctx, child))
			}
			if err := removeDir(dir, name); err != nil {
				return err
			}
		}
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		return err
	}
	if x.Op != MakeLink {
		return nil
	}
	// Renaming one link of an inode over another does nothing at all.
	if err := unix.Unlinkat(dir, temp, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (a *applier) setMetaOf(dir int, name string, x *Action) error {
	if err := clearFlags(dir, name, x.Old.Flags); err != nil {
		return err
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != x.New.Mode&unix.S_IFMT || !a.o.Force && st.Ino != x.Old.Ino {
		return errMoved
	}
	if st.Nlink > 1 {
		a.mu.Lock()
		a.inPlace[inode{st.Dev, st.Ino}] = true
		a.mu.Unlock()
	}
	ino, err := a.setMeta(fd, x.New)
	if err == nil {
		a.done(x, ino)
	}
	return err
}

// link makes x.Path another name of x.LinkTo, which is in place by now.
func (a *applier) link(ctx context.Context, x *Action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a.mu.Lock()
	failed := a.failed[x.LinkTo]
	a.mu.Unlock()
	if failed != nil {
		return fmt.Errorf("link to %s: %w", x.LinkTo, failed)
	}
	from, first, err := a.root.openParent(x.LinkTo)
	if err != nil {
		return inTheWay(err)
	}
	defer closeFD(from)
	dir, name, err := a.root.openParent(x.Path)
	if err != nil {
		return inTheWay(err)
	}
	defer closeFD(dir)
	if err := a.unmoved(dir, name, x); err != nil {
		return err
	}
	l, err := statAt(from, first)
	if err != nil {
		return fmt.Errorf("link to %s: %w", x.LinkTo, err)
	}
	if l.Mode&unix.S_IFMT != x.New.Mode&unix.S_IFMT || l.Size != x.New.Size || !sameMtime(&l, x.New) {
		return fmt.Errorf("link to %s, which is not as it should be: %w", x.LinkTo, snapshot.ErrRefused)
	}
	temp := tempName()
	if err := unix.Linkat(from, first, dir, temp, 0); err != nil {
		return err
	}
	if err := a.install(ctx, dir, temp, name, x); err != nil {
		_ = unix.Unlinkat(dir, temp, 0) // else it is found as a leftover later
		return err
	}
	a.done(x, l.Ino)
	a.mu.Lock()
	a.moved = append(a.moved, inode{l.Dev, l.Ino})
	a.mu.Unlock()
	return nil
}

// remove deletes a path; a directory only when it is empty.
func (a *applier) remove(ctx context.Context, x *Action) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, name, err := a.root.openParent(x.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return inTheWay(err)
	}
	defer closeFD(dir)
	err = a.unmoved(dir, name, x)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody else did it
	}
	if err != nil {
		return err
	}
	if err := clearFlags(dir, name, x.Old.Flags); err != nil {
		return err
	}
	if isDir(x.Old.Mode) {
		return removeDir(dir, name)
	}
	if err := a.keep(dir, name, x); err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, 0)
}

func removeDir(dir int, name string) error {
	err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("holds what the plan does not know: %w", snapshot.ErrRefused)
	}
	return err
}

var errMoved = fmt.Errorf("changed meanwhile: %w", snapshot.ErrRefused)

// unmoved checks that a path is what the plan saw.
func (a *applier) unmoved(dir int, name string, x *Action) error {
	now, err := statAt(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && x.Old == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && x.Op == Delete:
		return err
	case errors.Is(err, fs.ErrNotExist) && a.o.Force && x.Op != SetMeta:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("vanished meanwhile: %w", snapshot.ErrRefused)
	case err != nil:
		return err
	case x.Old == nil && (isDir(now.Mode) || !a.o.Force):
		return fmt.Errorf("appeared meanwhile: %w", snapshot.ErrRefused)
	case x.Old == nil:
		return nil
	case isDir(now.Mode) && isDir(x.Old.Mode):
		return nil // what is in it looks after itself
	case isDir(now.Mode) || now.Mode&unix.S_IFMT != x.Old.Mode&unix.S_IFMT && !a.o.Force:
		return errMoved
	case a.o.Force:
		return nil
	}
	old := x.Old
	if now.Ino != old.Ino || now.Dev != old.Dev || now.Size != old.Size || now.Target != old.Target {
		return errMoved
	}
	// Other names of the same inode may have come or gone by our own hand,
	// or it may have got its metadata through one of them.
	linked := old.Nlink > 1 || now.Nlink > 1
	if linked && a.ownMeta(now) || now.Mtime == old.Mtime && (linked || now.Ctime == old.Ctime) {
		return nil
	}
	return errMoved
}

// ownMeta tells whether this run set the metadata of l's inode in place.
func (a *applier) ownMeta(l Live) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inPlace[inode{l.Dev, l.Ino}]
}

// inTheWay says in words what a symlink, a file or nothing on the way to a path
// means.
func inTheWay(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("the directory above it vanished meanwhile: %w", snapshot.ErrRefused)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("a directory above it was replaced (%w): %w", err, snapshot.ErrRefused)
	}
	return err
}

// done notes a path that is as it shall be, but for its inode flags.
func (a *applier) done(x *Action, ino uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.written = append(a.written, stamped{x.Path, x.New, ino})
	a.flagged = appendFlagged(a.flagged, x)
}

func (a *applier) flag(x *Action) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flagged = appendFlagged(a.flagged, x)
}

func appendFlagged(list []*Action, x *Action) []*Action {
	if x.New.Flags == 0 {
		return list
	}
	return append(list, x)
}
