package fusefs

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"
)

// liveNode is a file of the live tree that the kernel knows. Its place is the
// one go-fuse remembers; every call walks there afresh from the root.
//
// Locks (fcntl and flock) are left to the kernel: it serves everybody who uses
// the mount, can be interrupted, and knows processes, as one descriptor a
// handle below never could.
type liveNode struct {
	fs.Inode
	tree  *liveTree
	dotS4 bool // the root's .s4

	// What follows lets a file without a name be reached.
	mu   sync.Mutex
	open map[*liveFile]struct{}
	last *os.File // O_PATH; see hold
}

var (
	_ fs.NodeLookuper        = (*liveNode)(nil)
	_ fs.NodeOpener          = (*liveNode)(nil)
	_ fs.NodeOpendirHandler  = (*liveNode)(nil)
	_ fs.NodeCreater         = (*liveNode)(nil)
	_ fs.NodeTmpfiler        = (*liveNode)(nil)
	_ fs.NodeMknoder         = (*liveNode)(nil)
	_ fs.NodeMkdirer         = (*liveNode)(nil)
	_ fs.NodeSymlinker       = (*liveNode)(nil)
	_ fs.NodeLinker          = (*liveNode)(nil)
	_ fs.NodeUnlinker        = (*liveNode)(nil)
	_ fs.NodeRmdirer         = (*liveNode)(nil)
	_ fs.NodeRenamer         = (*liveNode)(nil)
	_ fs.NodeReadlinker      = (*liveNode)(nil)
	_ fs.NodeCopyFileRanger  = (*liveNode)(nil)
	_ fs.NodeGetattrer       = (*liveNode)(nil)
	_ fs.NodeSetattrer       = (*liveNode)(nil)
	_ fs.NodeStatxer         = (*liveNode)(nil)
	_ fs.NodeStatfser        = (*liveNode)(nil)
	_ fs.NodeGetxattrer      = (*liveNode)(nil)
	_ fs.NodeSetxattrer      = (*liveNode)(nil)
	_ fs.NodeListxattrer     = (*liveNode)(nil)
	_ fs.NodeRemovexattrer   = (*liveNode)(nil)
	_ fs.NodeOnForgetter     = (*liveNode)(nil)
	_ fs.FilePassthroughFder = (*liveFile)(nil)
)

// rel is the node's path from the root.
func (n *liveNode) rel() string { return n.Path(n.Root()) }

// walk opens the node where it is, whatever is renamed meanwhile.
func (n *liveNode) walk(flags int) (int, error) {
	n.tree.renaming.RLock()
	defer n.tree.renaming.RUnlock()
	return n.find(flags)
}

// find is walk for those who hold tree.renaming.
func (n *liveNode) find(flags int) (int, error) {
	fd, err := n.tree.open(n.rel(), flags, 0)
	if err != nil {
		return -1, err
	}
	// Another file may have come there, below the mount or after this one was
	// deleted. The kernel looks the name up again when it is told so.
	var x unix.Statx_t
	if err = statEmpty(fd, &x); err == nil && n.tree.stable(&x) != n.StableAttr() {
		err = syscall.ESTALE
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// at calls fn with a descriptor (O_PATH) of the node.
func (n *liveNode) at(fn func(fd int) error) syscall.Errno {
	if n.IsRoot() {
		return errnoOf(fn(n.tree.root))
	}
	fd, err := n.walk(unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		// Deleted, but perhaps still open: fchmod(2) and its like carry no
		// handle.
		if errno, ok := n.lent(fn); ok {
			return errno
		}
	}
	if err != nil {
		return errnoOf(err)
	}
	errno := errnoOf(fn(fd))
	_ = unix.Close(fd) // O_PATH: there is nothing to lose
	return errno
}

// lent calls fn with a descriptor that is open anyway, if there is one.
func (n *liveNode) lent(fn func(fd int) error) (errno syscall.Errno, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.open {
		return f.with(fn), true
	}
	if n.last == nil {
		return 0, false
	}
	return errnoOf(fn(int(n.last.Fd()))), true
}

// openIt opens what the kernel found, also if it was replaced or deleted since.
// That may take its time, and holds nobody up.
func (n *liveNode) openIt(flags int) (fd int, err error) {
	reopen := func(at int) (err error) {
		for fd, err = unix.Open(procPath(at), flags|unix.O_CLOEXEC, 0); err == unix.EINTR; {
			fd, err = unix.Open(procPath(at), flags|unix.O_CLOEXEC, 0)
		}
		return err
	}
	at, err := n.walk(unix.O_PATH)
	if err == nil {
		err = reopen(at)
		_ = unix.Close(at) // O_PATH: there is nothing to lose
		return fd, err
	}
	if _, parent := n.Parent(); parent == nil {
		if errno, ok := n.lent(reopen); ok {
			return fd, bare(errno)
		}
	}
	return -1, err
}

func (n *liveNode) replaceLast(f *os.File) (old *os.File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old, n.last = n.last, f
	return old
}

// OnForget is called when the kernel forgets the file.
func (n *liveNode) OnForget() { n.replaceLast(nil).Close() }

func (n *liveNode) Readlink(context.Context) (target []byte, errno syscall.Errno) {
	errno = n.at(func(fd int) error {
		buf := make([]byte, unix.PathMax)
		size, err := unix.Readlinkat(fd, "", buf)
		if err == nil {
			target = buf[:size]
		}
		return err
	})
	return target, errno
}

// bare turns an errno back into an error, nil for none.
func bare(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
