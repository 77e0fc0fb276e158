package fusefs

import (
	"context"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What follows looks names in a directory up, makes them and takes them away.

// child gives the node of a name in n, or makes it.
func (n *liveNode) child(ctx context.Context, name string, x *unix.Statx_t, out *fuse.EntryOut) *fs.Inode {
	n.tree.attr(x, &out.Attr)
	if known := n.GetChild(name); known != nil && known.StableAttr() == n.tree.stable(x) {
		return known
	}
	return n.NewInode(ctx, &liveNode{tree: n.tree, dotS4: n.IsRoot() && name == dotS4}, n.tree.stable(x))
}

func (n *liveNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	var x unix.Statx_t
	errno := n.dirBy(n.find, func(dir int) error { return statName(dir, name, &x) }) // see mux.Lookup
	if errno == syscall.ENOENT && name == dotS4 && !n.IsRoot() && n.tree.hasPast(ctx, n.rel()) {
		return newLiveHere(ctx, n, out), 0
	}
	if errno != 0 {
		return nil, errno
	}
	return n.child(ctx, name, &x, out), 0
}

// make runs do, which makes name in n, then settles the new file; if that
// fails, undo takes it away again.
func (n *liveNode) make(ctx context.Context, name string, mode uint32, out *fuse.EntryOut,
	do, undo func(dir int) error,
) (*fs.Inode, syscall.Errno) {
	var x unix.Statx_t
	errno := n.dir(func(dir int) error {
		if err := do(dir); err != nil {
			return err
		}
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			err = n.tree.settle(ctx, dir, fd, mode, &x)
			_ = unix.Close(fd)
		}
		if err != nil {
			_ = undo(dir) // the first error counts
		}
		return err
	})
	if errno != 0 {
		return nil, errno
	}
	return n.child(ctx, name, &x, out), 0
}

func (n *liveNode) Mknod(ctx context.Context, name string, mode, rdev uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, mode, out,
		func(dir int) error { return unix.Mknodat(dir, name, mode, int(rdev)) },
		func(dir int) error { return unix.Unlinkat(dir, name, 0) })
}

func (n *liveNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, mode, out,
		func(dir int) error { return unix.Mkdirat(dir, name, mode) },
		func(dir int) error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

func (n *liveNode) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.make(ctx, name, 0o777, out,
		func(dir int) error { return unix.Symlinkat(target, dir, name) },
		func(dir int) error { return unix.Unlinkat(dir, name, 0) })
}

func (n *liveNode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	from, ok := target.(*liveNode)
	if !ok {
		return nil, syscall.EXDEV
	}
	var x unix.Statx_t
	errno := from.source(func(oldDir int, oldName string, follow int) error {
		return bare(n.dir(func(dir int) error {
			if err := unix.Linkat(oldDir, oldName, dir, name, follow); err != nil {
				return err
			}
			return statName(dir, name, &x)
		}))
	})
	if errno != 0 {
		return nil, errno
	}
	return n.child(ctx, name, &x, out), 0
}

// source calls fn with what linkat(2) needs to give the file a further name. One
// that has none, made with O_TMPFILE, is there through its descriptor alone.
func (n *liveNode) source(fn func(dir int, name string, flags int) error) syscall.Errno {
	if name, parent := n.Parent(); parent != nil {
		return parent.Operations().(*liveNode).dir(func(dir int) error { return fn(dir, name, 0) })
	}
	errno, ok := n.lent(func(fd int) error { return fn(unix.AT_FDCWD, procPath(fd), unix.AT_SYMLINK_FOLLOW) })
	if !ok {
		return syscall.ENOENT
	}
	return errno
}

func (n *liveNode) Unlink(_ context.Context, name string) syscall.Errno {
	return n.remove(name, 0)
}

func (n *liveNode) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.remove(name, unix.AT_REMOVEDIR)
}

func (n *liveNode) remove(name string, flags int) syscall.Errno {
	return n.dir(func(dir int) error {
		return n.hold(dir, name, false, func() error { return unix.Unlinkat(dir, name, flags) })
	})
}

func (n *liveNode) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*liveNode)
	if !ok {
		return syscall.EXDEV
	}
	return n.dirBy(n.find, func(oldDir int) error { // see mux.Rename
		return bare(to.dirBy(to.find, func(newDir int) error {
			move := func() error { return unix.Renameat2(oldDir, name, newDir, newName, uint(flags)) }
			if flags != 0 {
				return move() // nothing is replaced
			}
			return to.hold(newDir, newName, true, move)
		}))
	})
}

// hold runs do, which takes a name in n away, and keeps what it stood for within
// reach until the kernel forgets it. The kernel opens pipes and devices itself,
// and somebody may work in a directory. A file is held if it is replaced: who
// opens it at that moment gets the old one or the new, but gets one.
func (n *liveNode) hold(dir int, name string, replaced bool, do func() error) error {
	child := n.GetChild(name)
	if child == nil || child.Mode() == syscall.S_IFREG && !replaced || child.Mode() == syscall.S_IFLNK {
		return do()
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return do()
	}
	held := os.NewFile(uintptr(fd), "")
	if err := do(); err != nil {
		held.Close()
		return err
	}
	if gone, ok := child.Operations().(*liveNode); ok {
		held = gone.replaceLast(held)
	}
	held.Close()
	return nil
}
