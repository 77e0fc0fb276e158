package fusefs

import (
	"context"
	"syscall"

	"github.com/cespare/xxhash/v2"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// liveHere is the link .s4 in a directory of the live tree that the past has,
// too: see hereTail.
type liveHere struct{ fs.Inode }

var (
	_ fs.NodeGetattrer  = (*liveHere)(nil)
	_ fs.NodeReadlinker = (*liveHere)(nil)
)

func newLiveHere(ctx context.Context, dir *liveNode, out *fuse.EntryOut) *fs.Inode {
	of, p := dir.StableAttr(), dir.rel()
	n := &liveHere{}
	out.Attr = n.attr(p)
	// Where a link leads the kernel keeps, so it is another one in another place.
	place := xxhash.Sum64String(p)
	return dir.NewInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFLNK, Ino: of.Ino ^ bitHistory, Gen: of.Gen ^ place})
}

// attr are the attributes of the link in the directory at p.
func (*liveHere) attr(p string) fuse.Attr {
	return fuse.Attr{
		Mode: syscall.S_IFLNK | 0o777, Nlink: 1, Size: uint64(len(hereFromLive(p))), Blksize: blockSize,
	}
}

// place is the path of the directory that the link lies in.
func (n *liveHere) place() (p string, errno syscall.Errno) {
	_, dir := n.Parent()
	if dir == nil {
		return "", syscall.ENOENT
	}
	return dir.Path(dir.Root()), 0
}

func (n *liveHere) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	p, errno := n.place()
	out.Attr = n.attr(p)
	return errno
}

func (n *liveHere) Readlink(context.Context) ([]byte, syscall.Errno) {
	p, errno := n.place()
	return []byte(hereFromLive(p)), errno
}
