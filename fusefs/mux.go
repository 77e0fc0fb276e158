package fusefs

import (
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// mux puts the history beside the live tree: a request goes to the side whose
// node id it carries. It adds history to the live tree's .s4, and keeps s4's
// private state out of it.
type mux struct {
	tree    *liveTree
	live    fuse.RawFileSystem // of tree
	history *historyFS
	below   string // value of XattrRoot

	// dotS4 is the live side's id of .s4. It is looked up once and never
	// forgotten, so the id stays as long as the directory does.
	dotS4 atomic.Uint64
}

var _ fuse.RawFileSystem = (*mux)(nil)

func newMux(tree *liveTree, live fuse.RawFileSystem, history *historyFS, below string) *mux {
	return &mux{tree: tree, live: live, history: history, below: below}
}

// side picks who answers for a node.
func (m *mux) side(id uint64) fuse.RawFileSystem {
	if isHistory(id) {
		return m.history
	}
	return m.live
}

func (*mux) String() string { return "s4" }

func (m *mux) SetDebug(on bool) { m.live.SetDebug(on) }

func (m *mux) Init(s *fuse.Server) {
	m.live.Init(s)
	m.history.Init(s)
	var out fuse.EntryOut
	h := fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
	if m.live.Lookup(nil, &h, dotS4, &out) == fuse.OK {
		m.dotS4.Store(out.NodeId)
	}
}

func (m *mux) OnUnmount() {
	m.live.OnUnmount()
	m.tree.dirs.closeAll()
	m.history.OnUnmount()
}

func (m *mux) Forget(id, nlookup uint64) { m.side(id).Forget(id, nlookup) }

func (m *mux) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if m.isDotS4(h.NodeId) {
		if hidden(name) {
			return fuse.ENOENT
		}
		if id, ok := ours(name); ok {
			c, err := m.history.fixedChild(request(h, cancel), name, id)
			if err != nil {
				return m.history.fail("look-up", id, err)
			}
			c.fill(out)
			return fuse.OK
		}
	}
	st := m.lookup(cancel, h, name, out)
	if st == fuse.OK && !isHistory(h.NodeId) && out.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		m.history.habits.look(h.Pid, h.NodeId)
	}
	if st == fuse.OK && h.NodeId == fuse.FUSE_ROOT_ID && name == dotS4 && out.NodeId != 0 {
		m.dotS4.Store(out.NodeId) // another one, if it was replaced below the mount
	}
	return st
}

// lookup keeps the live side's answer true until it is noted: the kernel looks a
// name that it knows up again without a lock on the directory, beside a rename.
func (m *mux) lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if isHistory(h.NodeId) {
		return m.history.Lookup(cancel, h, name, out)
	}
	m.tree.renaming.RLock()
	defer m.tree.renaming.RUnlock()
	return m.live.Lookup(cancel, h, name, out)
}

func (m *mux) isDotS4(id uint64) bool { return id == m.dotS4.Load() && id != 0 }

// addedAt is the position of the first of the shortcuts, which are listed
// behind what .s4 has below. The live side's
// positions are the file system's below; none uses this number or the next.
const addedAt = 1<<62 | 0x7334

// isAdded tells a position from which on only shortcuts follow, and how many of
// them have been listed.
func isAdded(off uint64) (listed int, ok bool) {
	if off < addedAt || off > addedAt+uint64(len(shortcuts)) {
		return 0, false
	}
	return int(off - addedAt), true
}

func (m *mux) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !m.isDotS4(in.NodeId) {
		return m.side(in.NodeId).ReadDir(cancel, in, out)
	}
	listed, ok := isAdded(in.Offset)
	if !ok {
		if st := m.live.ReadDir(cancel, in, out); st != fuse.OK || len(out.Bytes()) > 0 {
			return st
		}
	}
	for ; listed < len(shortcuts) && out.AddDirEntry(addedDirent(listed)); listed++ { //nolint:revive // adding is in the condition
	}
	return fuse.OK
}

func (m *mux) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !m.isDotS4(in.NodeId) {
		return m.side(in.NodeId).ReadDirPlus(cancel, in, out)
	}
	listed, ok := isAdded(in.Offset)
	if !ok {
		if st := m.live.ReadDirPlus(cancel, in, out); st != fuse.OK || len(out.Bytes()) > 0 {
			return st
		}
	}
	for ; listed < len(shortcuts); listed++ {
		entry := out.AddDirLookupEntry(addedDirent(listed))
		if entry == nil {
			break
		}
		c, err := m.history.fixedChild(request(&in.InHeader, cancel), shortcuts[listed].name, shortcuts[listed].link)
		if err == nil {
			c.fill(entry) // else the name alone, to be looked up
		}
	}
	return fuse.OK
}

func addedDirent(i int) fuse.DirEntry {
	s := &shortcuts[i]
	return fuse.DirEntry{Name: s.name, Ino: s.link, Mode: syscall.S_IFLNK, Off: addedAt + uint64(i) + 1}
}

// hidden tells whether that name in .s4 is not shown: what is s4's own on this
// host, and the btrfs snapshots, which .s4/history shows.
func hidden(name string) bool { return name == "local" || name == "snapshots" }

// mayMake tells whether a name may be made in a directory: not one of those
// that this package shows or hides itself.
func (m *mux) mayMake(parent uint64, name string) fuse.Status {
	if _, shown := ours(name); m.isDotS4(parent) && (shown || hidden(name)) {
		return fuse.EPERM
	}
	return fuse.OK
}

// mayRemove tells whether a name may go. The root's .s4 is in use as long as
// the mount is there.
func (m *mux) mayRemove(parent uint64, name string) fuse.Status {
	_, shown := ours(name)
	switch {
	case parent == fuse.FUSE_ROOT_ID && name == dotS4:
		return fuse.EBUSY
	case m.isDotS4(parent) && shown:
		return fuse.EBUSY
	case m.isDotS4(parent) && hidden(name):
		return fuse.ENOENT
	}
	return fuse.OK
}

// aclDefault is a directory's ACL for what is made in it.
const aclDefault = "system.posix_acl_default"

// masked applies the caller's umask to the mode of a file to be made. The
// kernel leaves that to us (CAP_DONT_MASK), because a default ACL takes the
// umask's place and only the file system below knows of one.
func (m *mux) masked(cancel <-chan struct{}, parent *fuse.InHeader, mode, umask uint32) uint32 {
	if mode&umask == 0 || isHistory(parent.NodeId) {
		return mode
	}
	if size, st := m.live.GetXAttr(cancel, parent, aclDefault, nil); st == fuse.OK && size > 0 {
		return mode
	}
	return mode &^ umask
}

func (m *mux) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if isHistory(in.NodeId) != isHistory(in.Newdir) {
		return fuse.EXDEV
	}
	if st := m.mayRemove(in.NodeId, oldName); st != fuse.OK {
		return st
	}
	if st := m.mayMake(in.Newdir, newName); st != fuse.OK {
		return st
	}
	if st := m.mayRemove(in.Newdir, newName); st != fuse.OK {
		return st
	}
	if isHistory(in.NodeId) {
		return m.history.Rename(cancel, in, oldName, newName)
	}
	m.tree.renaming.Lock()
	defer m.tree.renaming.Unlock()
	return m.live.Rename(cancel, in, oldName, newName)
}

func (m *mux) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if isHistory(in.NodeId) != isHistory(in.Oldnodeid) {
		return fuse.EXDEV
	}
	if st := m.mayMake(in.NodeId, name); st != fuse.OK {
		return st
	}
	return m.side(in.NodeId).Link(cancel, in, name, out)
}

// CopyFileRange between the sides makes the kernel copy by reading and writing.
func (m *mux) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if isHistory(in.NodeId) != isHistory(in.NodeIdOut) {
		return 0, fuse.EXDEV
	}
	if in.Uid != 0 {
		to := fuse.InHeader{NodeId: in.NodeIdOut, Caller: in.Caller}
		if st := m.clearSetID(cancel, &to, in.FhOut); st != fuse.OK {
			return 0, st
		}
	}
	return m.side(in.NodeId).CopyFileRange(cancel, in)
}

func (m *mux) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if h.NodeId == fuse.FUSE_ROOT_ID && attr == XattrRoot {
		return putXattr(dest, []byte(m.below))
	}
	return m.side(h.NodeId).GetXAttr(cancel, h, attr, dest)
}

func (m *mux) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if in.NodeId == fuse.FUSE_ROOT_ID && attr == XattrRoot {
		return fuse.EPERM
	}
	st := m.side(in.NodeId).SetXAttr(cancel, in, attr, data)
	if st == fuse.OK && in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		return m.clearSetgid(cancel, &in.InHeader)
	}
	return st
}
