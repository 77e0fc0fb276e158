package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Whoever writes into a file without being allowed to keep its set-id bits
// takes them away, and its capabilities. The kernel leaves that to us
// (CAP_HANDLE_KILLPRIV_V2): else it would ask, before every single write(2),
// what capabilities the file has, which halves the speed of writing. It says
// with a request that the bits have to go; the file system below sees to the
// capabilities, and to everything when this process is not root.
//
// Writes that bypass this process (passthrough) say nothing. So a file with
// such bits is never opened that way by those who would lose them, and nobody
// gives bits to a file that others are writing into that way.

const setID = unix.S_ISUID | unix.S_ISGID

// clearSetID takes the set-id bits from a regular file, open as fh unless that is
// 0. Without execution by the group, its bit is one of a lock, of old.
func (m *mux) clearSetID(cancel <-chan struct{}, h *fuse.InHeader, fh uint64) fuse.Status {
	mode, st := m.mode(cancel, h, fh)
	if st != fuse.OK || mode&syscall.S_IFMT != syscall.S_IFREG {
		return st
	}
	clear := uint32(unix.S_ISUID)
	if mode&unix.S_IXGRP != 0 {
		clear = setID
	}
	return m.clearBits(cancel, h, fh, mode, clear)
}

// clearSetgid is for one who sets an ACL and is not in the file's group. The file
// system below would do it for the caller, but not for us.
func (m *mux) clearSetgid(cancel <-chan struct{}, h *fuse.InHeader) fuse.Status {
	mode, st := m.mode(cancel, h, 0)
	if st != fuse.OK {
		return st
	}
	return m.clearBits(cancel, h, 0, mode, unix.S_ISGID)
}

// mode gives st_mode.
func (m *mux) mode(cancel <-chan struct{}, h *fuse.InHeader, fh uint64) (uint32, fuse.Status) {
	in := fuse.GetAttrIn{InHeader: *h, Fh_: fh}
	if fh != 0 {
		in.Flags_ = fuse.FUSE_GETATTR_FH
	}
	var out fuse.AttrOut
	st := m.side(h.NodeId).GetAttr(cancel, &in, &out)
	return out.Mode, st
}

// clearBits takes bits from a mode, if it has any of them.
func (m *mux) clearBits(cancel <-chan struct{}, h *fuse.InHeader, fh uint64, mode, bits uint32) fuse.Status {
	if mode&bits == 0 {
		return fuse.OK
	}
	var in fuse.SetAttrIn
	in.InHeader, in.Valid, in.Mode = *h, fuse.FATTR_MODE, mode&0o7777&^bits
	if fh != 0 {
		in.Valid |= fuse.FATTR_FH
		in.Fh = fh
	}
	var out fuse.AttrOut
	return m.side(h.NodeId).SetAttr(cancel, &in, &out)
}

// watchSetID lets writes into a file with set-id bits come to this process.
func (m *mux) watchSetID(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Uid == 0 || !writes(in.Flags) {
		return fuse.OK
	}
	mode, st := m.mode(cancel, &in.InHeader, out.Fh)
	if mode&setID != 0 {
		// Not through the page cache either: the kernel does not mix the two.
		out.OpenFlags = out.OpenFlags&^fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_DIRECT_IO
		out.BackingID = 0
	}
	return st
}

func writes(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }

// mayGainSetID refuses set-id bits that a file does not have yet while a user
// other than the caller has it open for writing.
func (n *liveNode) mayGainSetID(ctx context.Context, fh fs.FileHandle, mode uint32) syscall.Errno {
	caller, _ := fuse.FromContext(ctx)
	others := false
	n.mu.Lock()
	for f := range n.open {
		others = others || f.writer != 0 && (caller == nil || f.writer != caller.Uid)
	}
	n.mu.Unlock()
	if !others {
		return 0
	}
	var x unix.Statx_t
	errno := n.stat(fh, &x)
	if errno == 0 && mode&setID&^uint32(x.Mode) != 0 {
		errno = syscall.ETXTBSY
	}
	return errno
}
