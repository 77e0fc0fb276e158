package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// liveDir is an open directory. Look-ups for a listing with attributes go
// straight from its descriptor, without a walk from the root for each name.
// go-fuse calls it from one goroutine at a time.
type liveDir struct {
	node *liveNode
	fd   int
	bare bool // attributes of directories alone are given, see habits
	buf  []byte
	todo []byte        // what of buf has not been handed out
	last fuse.DirEntry // handed out last
}

var (
	_ fs.FileReaddirenter = (*liveDir)(nil)
	_ fs.FileSeekdirer    = (*liveDir)(nil)
	_ fs.FileLookuper     = (*liveDir)(nil)
	_ fs.FileReleasedirer = (*liveDir)(nil)
	_ fs.FileFsyncdirer   = (*liveDir)(nil)
	_ fs.FileIoctler      = (*liveDir)(nil)
)

// direntBuffer is how many bytes of names are asked for at once.
const direntBuffer = 16 << 10

func (n *liveNode) OpendirHandle(ctx context.Context, _ uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fd, err := n.openIt(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return nil, 0, errnoOf(err)
	}
	caller, ok := fuse.FromContext(ctx)
	return &liveDir{node: n, fd: fd, bare: ok && n.tree.habits.namesOnly(caller.Pid)}, 0, 0
}

func (d *liveDir) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	for {
		if len(d.todo) == 0 {
			if d.buf == nil {
				d.buf = make([]byte, direntBuffer)
			}
			size, err := unix.Getdents(d.fd, d.buf)
			if err != nil {
				return nil, errnoOf(err)
			}
			if size == 0 {
				return nil, 0
			}
			d.todo = d.buf[:size]
		}
		e := &d.last
		d.todo = d.todo[e.Parse(d.todo):]
		// The history is added by the multiplexer.
		if _, shown := ours(e.Name); d.node.dotS4 && (shown || hidden(e.Name)) {
			continue
		}
		return e, 0
	}
}

func (d *liveDir) Seekdir(_ context.Context, off uint64) syscall.Errno {
	d.todo = nil
	_, err := unix.Seek(d.fd, int64(off), unix.SEEK_SET)
	return errnoOf(err)
}

// Lookup gives the attributes of a name in a listing. With any error the name
// is listed without.
func (d *liveDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if d.bare && !isDir(d.last.Mode) && name == d.last.Name {
		return nil, syscall.EAGAIN
	}
	var x unix.Statx_t
	if err := statName(d.fd, name, &x); err != nil {
		return nil, errnoOf(err)
	}
	return d.node.child(ctx, name, &x, out), 0
}

func (d *liveDir) Fsyncdir(context.Context, uint32) syscall.Errno {
	return errnoOf(unix.Fsync(d.fd))
}

func (d *liveDir) Ioctl(_ context.Context, cmd uint32, _ uint64, in, out []byte) (int32, syscall.Errno) {
	return 0, errnoOf(flagsIoctl(d.fd, cmd, in, out))
}

func (d *liveDir) Releasedir(context.Context, uint32) { _ = unix.Close(d.fd) }
