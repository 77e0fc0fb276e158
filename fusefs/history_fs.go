package fusefs

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// historyFS is the history side. It keeps nothing for a file that the kernel
// remembers, only for one that is open.
type historyFS struct {
	history History
	line    *line
	root    mountRoot
	alone   bool          // one archive without .s4/history
	timeout time.Duration // for content

	// unopened tells the kernel not to tell us that files are opened. It is for
	// a whole mount, so there must be no live tree in it.
	unopened bool

	linksInside bool // absolute links lead to the same path in the snapshot
	log         *slog.Logger

	habits  *habits
	entries entryCache
	recent  recentFiles
	dirs    handles[*historyDir]
}

var _ fuse.RawFileSystem = (*historyFS)(nil)

func newHistoryFS(ctx context.Context, o *Options, log *slog.Logger) (*historyFS, error) {
	f := &historyFS{history: o.History, line: newLine(o.History, log), alone: o.OneArchive, timeout: o.ContentTimeout, log: log, linksInside: o.linksInside, habits: &habits{}, unopened: o.Live == nil}
	if o.Live != nil {
		return f, nil
	}
	var err error
	f.root, err = newMountRoot(ctx, o, f.line)
	return f, err
}

func (*historyFS) String() string        { return "history" }
func (*historyFS) SetDebug(bool)         {}
func (*historyFS) Init(*fuse.Server)     {}
func (f *historyFS) OnUnmount()          { f.recent.dropAll() }
func (*historyFS) Forget(uint64, uint64) {}

// request makes a call's context: it ends when the caller is interrupted.
func request(h *fuse.InHeader, cancel <-chan struct{}) context.Context {
	return &fuse.Context{Caller: h.Caller, Cancel: cancel}
}

// fail says what the caller is told, and logs what the caller is not told.
func (f *historyFS) fail(op string, id uint64, err error) fuse.Status {
	st := statusOf(err)
	if st == fuse.EIO {
		_, num, version := splitID(id)
		f.log.Warn("history: "+op, "snapshot", num, "version", version, "err", err)
	}
	return st
}

func (f *historyFS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	ctx := request(h, cancel)
	n, err := f.node(ctx, h.NodeId)
	if err != nil {
		return f.fail("look-up", h.NodeId, err)
	}
	c, err := f.lookup(ctx, &n, name)
	if err == nil {
		if c.attr.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			f.habits.look(h.Pid, h.NodeId)
		}
		c.fill(out)
		return fuse.OK
	}
	if errnoOf(err) == syscall.ENOENT && (n.kind == kindEntry || n.kind == kindSnapshot || n.kind == kindRoot && !f.root.follow) {
		out.SetEntryTimeout(forever) // node id 0: there is no such name
		return fuse.OK
	}
	return f.fail("look-up", h.NodeId, err)
}

// stat gives what an id stands for, its attributes, and how long they hold.
func (f *historyFS) stat(ctx context.Context, id uint64) (n node, a fuse.Attr, keep time.Duration, err error) {
	if n, err = f.node(ctx, id); err == nil {
		a, keep, err = f.attr(ctx, &n)
	}
	return n, a, keep, err
}

func (f *historyFS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	_, a, keep, err := f.stat(request(&in.InHeader, cancel), in.NodeId)
	if err != nil {
		return f.fail("stat", in.NodeId, err)
	}
	out.Attr = a
	out.SetTimeout(keep)
	return fuse.OK
}

func (f *historyFS) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, a, keep, err := f.stat(request(&in.InHeader, cancel), in.NodeId)
	if err != nil {
		return f.fail("stat", in.NodeId, err)
	}
	out.SetTimeout(keep)
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: a.Blksize, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid,
		Mode: uint16(a.Mode), Ino: a.Ino, Size: a.Size, Blocks: a.Blocks,
		Atime:     fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec},
		Mtime:     fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec},
		Ctime:     fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec},
		RdevMajor: unix.Major(uint64(a.Rdev)), RdevMinor: unix.Minor(uint64(a.Rdev)),
	}
	if n.entry.Birth != 0 {
		out.Mask |= unix.STATX_BTIME
		out.Btime.Sec, out.Btime.Nsec = splitNS(n.entry.Birth)
	}
	return fuse.OK
}

func (f *historyFS) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.node(request(h, cancel), h.NodeId)
	switch {
	case err != nil:
		return nil, f.fail("readlink", h.NodeId, err)
	case n.kind == kindLink:
		return []byte(n.target), fuse.OK
	case n.entry.Mode&syscall.S_IFMT != syscall.S_IFLNK:
		return nil, fuse.EINVAL
	}
	target, err := f.target(request(h, cancel), &n)
	if err != nil {
		return nil, f.fail("readlink", h.NodeId, err)
	}
	return []byte(target), fuse.OK
}

// target is where a link in a snapshot leads.
func (f *historyFS) target(ctx context.Context, n *node) (string, error) {
	target := n.entry.Target
	if !f.linksInside || !strings.HasPrefix(target, "/") {
		return target, nil
	}
	at, err := f.history.Path(ctx, n.entry.Version)
	return up(depth(at)-1) + "." + target, err
}

// Access is answered by the kernel from mode and ACL (default_permissions).
func (*historyFS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

func (f *historyFS) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	ctx := request(h, cancel)
	n, err := f.node(ctx, h.NodeId)
	if err != nil {
		return 0, f.fail("getxattr", h.NodeId, err)
	}
	if value, ok, err := f.toolXattr(ctx, &n, attr); err != nil {
		return 0, f.fail("getxattr", h.NodeId, err)
	} else if ok {
		return putXattr(dest, []byte(value))
	}
	for _, x := range n.entry.Xattrs {
		if x.Name == attr {
			return putXattr(dest, x.Value)
		}
	}
	return 0, fuse.ENODATA
}

// toolXattr gives the attributes that tell tools more of an entry. They are
// not listed, so that no copy takes them along.
func (f *historyFS) toolXattr(ctx context.Context, n *node, attr string) (value string, ok bool, err error) {
	if n.num == 0 || n.entry.Mode == 0 {
		return "", false, nil
	}
	switch attr {
	case XattrSnapshot:
		m, err := f.line.get(ctx)
		if err != nil {
			return "", false, err
		}
		info, ok := m.num(n.num)
		return info.Dir, ok, nil
	case XattrVersions:
		path, err := f.history.Path(ctx, n.entry.Version)
		if err != nil {
			return "", false, err
		}
		all, err := f.history.Distinct(ctx, path)
		return strconv.Itoa(len(all)), err == nil, err
	case XattrLocal:
		local, err := f.history.Local(ctx, n.num)
		return yesNo(local), err == nil, err
	case XattrDamaged:
		return yesNo(n.entry.Damaged), true, nil
	}
	return "", false, nil
}

// yesNo is how an attribute says whether something is so.
func yesNo(is bool) string {
	if is {
		return "1"
	}
	return "0"
}

func (f *historyFS) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, err := f.node(request(h, cancel), h.NodeId)
	if err != nil {
		return 0, f.fail("listxattr", h.NodeId, err)
	}
	var names []byte
	for _, x := range n.entry.Xattrs {
		names = append(append(names, x.Name...), 0)
	}
	return putXattr(dest, names)
}

// putXattr copies a value if it fits; its length is told in any case.
func putXattr(dest, value []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// StatFs tells the size of the snapshot that the node lies in.
func (f *historyFS) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: blockSize, Frsize: blockSize, NameLen: 255}
	ctx := request(h, cancel)
	var info snapshot.Info
	var err error
	if h.NodeId == fuse.FUSE_ROOT_ID || h.NodeId == idDotS4 {
		info, err = f.root.current(ctx, f.line)
	} else {
		num, ok := snapshotNum(h.NodeId)
		if !ok && h.NodeId&bitSpecial == 0 {
			_, num, _ = splitID(h.NodeId)
		}
		var m *moments
		if m, err = f.line.get(ctx); err == nil {
			info, _ = m.num(num)
		}
	}
	if err != nil {
		return f.fail("statfs", h.NodeId, err)
	}
	out.Blocks = uint64(info.Size+blockSize-1) / blockSize
	out.Files = uint64(info.Files)
	return fuse.OK
}
