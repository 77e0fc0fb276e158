package fusefs

import (
	"context"
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// liveFile is an open regular file. Reading, writing and what else needs only
// the descriptor is go-fuse's.
type liveFile struct {
	*fs.LoopbackFile
	node   *liveNode
	file   *os.File // LoopbackFile's, which closes it
	writer uint32   // user who may write through it; 0 for root, and for who only reads
}

// openFlags are the flags of open(2) that make sense below. O_APPEND is not
// among them: the kernel knows the end and sends the offset.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_DIRECT | unix.O_SYNC | unix.O_NOATIME | unix.O_NONBLOCK

func (n *liveNode) newFile(ctx context.Context, fd int, flags uint32) *liveFile {
	file := os.NewFile(uintptr(fd), "")
	f := &liveFile{LoopbackFile: fs.NewLoopbackFileFromOS(file), node: n, file: file}
	if caller, ok := fuse.FromContext(ctx); ok && writes(flags) {
		f.writer = caller.Uid
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open == nil {
		n.open = make(map[*liveFile]struct{})
	}
	n.open[f] = struct{}{}
	return f
}

// with calls fn with the open descriptor.
func (f *liveFile) with(fn func(fd int) error) syscall.Errno {
	conn, err := f.file.SyscallConn()
	if err != nil {
		return syscall.EBADF
	}
	inner := error(syscall.EBADF)
	if err := conn.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return syscall.EBADF
	}
	return errnoOf(inner)
}

func (f *liveFile) Release(ctx context.Context) syscall.Errno {
	f.node.mu.Lock()
	delete(f.node.open, f)
	f.node.mu.Unlock()
	return f.LoopbackFile.Release(ctx)
}

func (f *liveFile) Ioctl(_ context.Context, cmd uint32, _ uint64, in, out []byte) (result int32, errno syscall.Errno) {
	errno = f.with(func(fd int) error { return flagsIoctl(fd, cmd, in, out) })
	return 0, errno
}

func (n *liveNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fd, err := n.openIt(int(flags) & openFlags)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	return n.newFile(ctx, fd, flags), n.tree.openedAs(flags), 0
}

func (n *liveNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	fd := -1
	var x unix.Statx_t
	errno := n.dir(func(dir int) error {
		how := int(flags)&openFlags | unix.O_NOFOLLOW | unix.O_CLOEXEC
		var err error
		fd, err = unix.Openat(dir, name, how|unix.O_CREAT|unix.O_EXCL, mode&0o7777)
		if errors.Is(err, unix.EEXIST) && flags&unix.O_EXCL == 0 {
			// Made below the mount a moment ago: it keeps its owner.
			if fd, err = unix.Openat(dir, name, how, 0); err == nil {
				err = statEmpty(fd, &x)
			}
			return err
		}
		if err != nil {
			return err
		}
		if err = n.tree.settle(ctx, dir, fd, mode, &x); err != nil {
			_ = unix.Unlinkat(dir, name, 0) // the first error counts
		}
		return err
	})
	if errno != 0 {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, nil, 0, errno
	}
	child := n.child(ctx, name, &x, out)
	return child, child.Operations().(*liveNode).newFile(ctx, fd, flags), n.tree.openedAs(flags), 0
}

// Tmpfile makes a file without a name (O_TMPFILE); Link may give it one.
func (n *liveNode) Tmpfile(ctx context.Context, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	fd := -1
	var x unix.Statx_t
	errno := n.dir(func(dir int) (err error) {
		how := int(flags)&(openFlags|unix.O_EXCL) | unix.O_TMPFILE | unix.O_CLOEXEC
		if fd, err = unix.Openat(dir, ".", how, mode&0o7777); err != nil {
			return err
		}
		return n.tree.settle(ctx, dir, fd, mode, &x)
	})
	if errno != 0 {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, nil, 0, errno
	}
	child := n.child(ctx, "", &x, out)
	return child, child.Operations().(*liveNode).newFile(ctx, fd, flags), n.tree.openedAs(flags), 0
}

func (n *liveNode) CopyFileRange(_ context.Context, fhIn fs.FileHandle, offIn uint64, _ *fs.Inode,
	fhOut fs.FileHandle, offOut, length, flags uint64,
) (count uint32, errno syscall.Errno) {
	from, ok1 := fhIn.(*liveFile)
	to, ok2 := fhOut.(*liveFile)
	if !ok1 || !ok2 {
		return 0, syscall.EXDEV
	}
	// The answer has 32 bits.
	size := int(min(length, 1<<30))
	errno = from.with(func(in int) error {
		return bare(to.with(func(out int) error {
			rin, rout := int64(offIn), int64(offOut)
			copied, err := unix.CopyFileRange(in, &rin, out, &rout, size, int(flags))
			count = uint32(max(copied, 0))
			return err
		}))
	})
	return count, errno
}

// flagsIoctl serves chattr(1) and lsattr(1). Nothing else is passed on: it
// would run with this process's rights instead of the caller's.
func flagsIoctl(fd int, cmd uint32, in, out []byte) error {
	switch cmd {
	case unix.FS_IOC_GETFLAGS, unix.FS_IOC_SETFLAGS:
	default:
		return syscall.ENOTTY
	}
	var flags [8]byte // the kernel writes an int, whatever the number says
	copy(flags[:], in)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&flags)))
	copy(out, flags[:])
	return bare(errno)
}
