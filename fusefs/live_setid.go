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

// clearSetID takes the set-id bits from a file, open as fh unless that is 0.
func (m *mux) clearSetID(cancel <-chan struct{}, h *fuse.InHeader, fh uint64) fuse.Status {
	mode, st := m.setIDMode(cancel, h, fh)
	if st != fuse.OK || mode&setID == 0 {
		return st
	}
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: *h, Valid: fuse.FATTR_MODE, Mode: mode &^ unix.S_ISUID}}
	if mode&unix.S_IXGRP != 0 { // else the bit is a lock's, of old
		in.Mode &^= unix.S_ISGID
	}
	if fh != 0 {
		in.Valid |= fuse.FATTR_FH
		in.Fh = fh
	}
	if in.Mode == mode {
		return fuse.OK
	}
	var out fuse.AttrOut
	return m.side(h.NodeId).SetAttr(cancel, &in, &out)
}

// setIDMode gives the mode of a regular file, 0 for anything else.
func (m *mux) setIDMode(cancel <-chan struct{}, h *fuse.InHeader, fh uint64) (uint32, fuse.Status) {
	in := fuse.GetAttrIn{InHeader: *h, Fh_: fh}
	if fh != 0 {
		in.Flags_ = fuse.FUSE_GETATTR_FH
	}
	var out fuse.AttrOut
	st := m.side(h.NodeId).GetAttr(cancel, &in, &out)
	if out.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return 0, st
	}
	return out.Mode &^ syscall.S_IFMT, st
}

// watchSetID lets writes into a file with set-id bits come to this process.
func (m *mux) watchSetID(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Uid == 0 || !writes(in.Flags) {
		return fuse.OK
	}
	mode, st := m.setIDMode(cancel, &in.InHeader, out.Fh)
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
