package fusefs

import (
	"bytes"
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stat looks at the open file where there is one, else at the node.
func (n *liveNode) stat(fh fs.FileHandle, x *unix.Statx_t) syscall.Errno {
	look := func(fd int) error { return statEmpty(fd, x) }
	switch f := fh.(type) {
	case *liveFile:
		return f.with(look)
	case *liveDir:
		return errnoOf(look(f.fd))
	default:
		if n.IsDir() {
			return n.dir(look)
		}
		return n.at(look)
	}
}

func (n *liveNode) Getattr(_ context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var x unix.Statx_t
	if errno := n.stat(fh, &x); errno != 0 {
		return errno
	}
	n.tree.attr(&x, &out.Attr)
	return 0
}

func (n *liveNode) Statx(_ context.Context, fh fs.FileHandle, _, _ uint32, out *fuse.StatxOut) syscall.Errno {
	var x unix.Statx_t
	if errno := n.stat(fh, &x); errno != 0 {
		return errno
	}
	out.FromStatx(&x)
	out.Ino = n.tree.ino(&x)
	return 0
}

func (n *liveNode) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if mode, ok := in.GetMode(); ok && mode&setID != 0 {
		if errno := n.mayGainSetID(ctx, fh, mode); errno != 0 {
			return errno
		}
	}
	var x unix.Statx_t
	apply := func(fd int) error {
		if err := setAttr(fd, in); err != nil {
			return err
		}
		return statEmpty(fd, &x)
	}
	errno := syscall.Errno(0)
	if f, ok := fh.(*liveFile); ok {
		errno = f.with(apply)
	} else {
		errno = n.at(apply)
	}
	if errno == 0 {
		n.tree.attr(&x, &out.Attr)
	}
	return errno
}

// setAttr changes what the request names. The owner comes before the mode,
// since a change of owner clears set-id bits; the size before the times, since
// truncating sets them.
func setAttr(fd int, in *fuse.SetAttrIn) error {
	uid, uok := in.GetUID()
	gid, gok := in.GetGID()
	if uok || gok {
		u, g := -1, -1
		if uok {
			u = int(uid)
		}
		if gok {
			g = int(gid)
		}
		if err := unix.Fchownat(fd, "", u, g, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := unix.Chmod(procPath(fd), mode); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := unix.Truncate(procPath(fd), int64(size)); err != nil {
			return err
		}
	}
	return setFileTimes(fd, in)
}

func setFileTimes(fd int, in *fuse.SetAttrIn) error {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if in.Valid&fuse.FATTR_ATIME != 0 {
		ts[0] = unix.Timespec{Sec: int64(in.Atime), Nsec: int64(in.Atimensec)}
		if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
			ts[0] = unix.Timespec{Nsec: unix.UTIME_NOW}
		}
	}
	if in.Valid&fuse.FATTR_MTIME != 0 {
		ts[1] = unix.Timespec{Sec: int64(in.Mtime), Nsec: int64(in.Mtimensec)}
		if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
			ts[1] = unix.Timespec{Nsec: unix.UTIME_NOW}
		}
	}
	if ts[0].Nsec == unix.UTIME_OMIT && ts[1].Nsec == unix.UTIME_OMIT {
		return nil
	}
	return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
}

func (n *liveNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.at(func(fd int) error {
		var s syscall.Statfs_t
		if err := syscall.Fstatfs(fd, &s); err != nil {
			return err
		}
		out.FromStatfsT(&s)
		return nil
	})
}

func (n *liveNode) Getxattr(_ context.Context, attr string, dest []byte) (size uint32, errno syscall.Errno) {
	errno = n.at(func(fd int) error {
		sz, err := unix.Getxattr(procPath(fd), attr, dest)
		size = uint32(max(sz, 0))
		return err
	})
	return size, errno
}

// Listxattr leaves out what the kernel shows to root alone: this process may be
// root where its caller is not.
func (n *liveNode) Listxattr(ctx context.Context, dest []byte) (size uint32, errno syscall.Errno) {
	caller, ok := fuse.FromContext(ctx)
	all := dest
	if ok && caller.Uid != 0 {
		all = make([]byte, maxXattrList)
	}
	errno = n.at(func(fd int) error {
		sz, err := unix.Listxattr(procPath(fd), all)
		size = uint32(max(sz, 0))
		return err
	})
	if errno != 0 || !ok || caller.Uid == 0 {
		return size, errno
	}
	var shown []byte
	for name := range bytes.SplitAfterSeq(all[:size], []byte{0}) {
		if !bytes.HasPrefix(name, []byte("trusted.")) {
			shown = append(shown, name...)
		}
	}
	size, st := putXattr(dest, shown)
	return size, syscall.Errno(st)
}

// maxXattrList is how long the kernel lets a list of attributes be.
const maxXattrList = 64 << 10

func (n *liveNode) Setxattr(_ context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	return n.at(func(fd int) error { return unix.Setxattr(procPath(fd), attr, data, int(flags)) })
}

func (n *liveNode) Removexattr(_ context.Context, attr string) syscall.Errno {
	return n.at(func(fd int) error { return unix.Removexattr(procPath(fd), attr) })
}
