package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/snapshot"
)

// How long the kernel may keep what it was told.
const (
	forever = time.Hour   // what lies inside a snapshot
	briefly = time.Second // what changes with the time line
)

type kind int

const (
	kindEntry       kind = iota // of a snapshot
	kindRoot                    // of a repository mount: a snapshot's root and .s4
	kindDotS4                   // of a repository mount
	kindHistory                 // .s4/history
	kindLink                    // a link of this package's own: a moment link, say
	kindSnapshot                // a snapshot's directory in it
	kindEverDir                 // a directory in .s4/versions, or that itself
	kindEverFile                // the versions of one path in it
	kindGoneDir                 // a directory in .s4/deleted, or that itself
	kindHere                    // .s4 in a directory of .s4/versions
	kindHereHistory             // history in that
)

// node is what a node id stands for, as far as a request needs it.
type node struct {
	kind  kind
	id    uint64
	num   int64          // snapshot; 0 where there is none
	entry snapshot.Entry // zero if there is none or, for kindSnapshot, if it is not known yet
	info  snapshot.Info  // for kindSnapshot, and for kindLink if it leads into one

	target string        // for kindLink
	path   string        // for what lies in .s4/versions and .s4/deleted
	ever   snapshot.Ever // likewise, but zero for these two themselves
}

// rootView tells whether the node is reached from the mount's root.
func (n *node) rootView() bool {
	return n.kind == kindRoot || n.kind == kindDotS4 || n.kind == kindEntry && n.id&bitRootView != 0
}

// child is one name in a directory of the history side.
type child struct {
	name    string
	id      uint64
	attr    fuse.Attr
	keep    time.Duration // how long the name holds
	keepAtt time.Duration // how long the attributes hold
}

func (c *child) fill(out *fuse.EntryOut) {
	out.NodeId = c.id
	out.Attr = c.attr
	out.SetEntryTimeout(c.keep)
	out.SetAttrTimeout(c.keepAtt)
}

// node finds out what an id stands for.
func (f *historyFS) node(ctx context.Context, id uint64) (node, error) {
	switch id {
	case fuse.FUSE_ROOT_ID:
		return f.rootNode(ctx)
	case idHistory:
		return node{kind: kindHistory, id: id}, nil
	case idDotS4:
		return f.dotS4Node(ctx)
	case idVersions:
		return node{kind: kindEverDir, id: id}, nil
	case idDeleted:
		return node{kind: kindGoneDir, id: id}, nil
	}
	for _, s := range shortcuts {
		if id == s.link {
			return linkNode(id, s.hidden), nil
		}
	}
	switch {
	case isHereMoment(id):
		return f.hereMomentNode(ctx, id)
	case id&bitSpecial != 0 && id&bitHereLink != 0:
		return f.hereLinkNode(ctx, id)
	case id&bitSpecial != 0 && id&bitHere != 0:
		return f.hereNode(ctx, id)
	case id&bitSpecial != 0 && id&bitsByIndex != 0:
		return f.everNode(ctx, id)
	}
	if num, ok := momentNum(id); ok {
		m, err := f.line.get(ctx)
		if err != nil {
			return node{}, err
		}
		info, ok := m.num(num)
		if !ok {
			return node{}, fmt.Errorf("snapshot %d: %w", num, fs.ErrNotExist)
		}
		n := linkNode(id, info.Dir)
		n.info = info
		return n, nil
	}
	if num, ok := snapshotNum(id); ok {
		return f.snapshotNode(ctx, id, num)
	}
	_, num, version := splitID(id)
	key := entryKey{num, version} // by the number asked for: see Tree.Stat
	e, ok := f.entries.get(key)
	if !ok {
		var err error
		if e, err = f.history.Stat(ctx, num, version); err != nil {
			return node{}, err
		}
		f.entries.add(key, e)
	}
	return node{kind: kindEntry, id: id, num: num, entry: e}, nil
}

// snapshotNode is a snapshot's directory in .s4/history.
func (f *historyFS) snapshotNode(ctx context.Context, id uint64, num int64) (node, error) {
	m, err := f.line.get(ctx)
	if err != nil {
		return node{}, err
	}
	info, ok := m.num(num)
	if !ok {
		return node{}, fmt.Errorf("snapshot %d: %w", num, fs.ErrNotExist)
	}
	n := node{kind: kindSnapshot, id: id, num: num, info: info}
	if info.Indexed {
		err = f.enter(ctx, &n)
	}
	return n, err
}

// enter makes sure that the root of a snapshot's directory is known. If the
// index does not have the snapshot yet, this waits until it does.
func (f *historyFS) enter(ctx context.Context, n *node) (err error) {
	if n.kind == kindSnapshot && n.entry.Mode == 0 {
		n.entry, err = f.history.Root(ctx, n.num)
	}
	return err
}

// rootNode is a repository mount's root.
func (f *historyFS) rootNode(ctx context.Context) (node, error) {
	n := node{kind: kindRoot, id: fuse.FUSE_ROOT_ID}
	info, err := f.root.current(ctx, f.line)
	if err != nil || info.Num == 0 {
		return n, err
	}
	n.num = info.Num
	n.entry, err = f.history.Root(ctx, info.Num)
	return n, err
}

// dotS4Node is .s4 in a repository mount; the snapshot may have its own,
// whose files stay visible.
func (f *historyFS) dotS4Node(ctx context.Context) (node, error) {
	root, err := f.rootNode(ctx)
	if err != nil {
		return node{}, err
	}
	n := node{kind: kindDotS4, id: idDotS4, num: root.num}
	if root.num == 0 {
		return n, nil
	}
	e, err := f.history.Lookup(ctx, root.num, root.entry.Dir, dotS4)
	switch {
	case err == nil && e.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		n.entry = e
	case err != nil && errnoOf(err) != syscall.ENOENT:
		return node{}, err
	}
	return n, nil
}

// attr gives a node's attributes and how long they hold.
func (f *historyFS) attr(ctx context.Context, n *node) (fuse.Attr, time.Duration, error) {
	switch n.kind {
	case kindEntry:
		return entryAttr(n.id, n.num, &n.entry), forever, nil
	case kindLink:
		return linkAttr(n), briefly, nil
	case kindSnapshot:
		if n.entry.Mode == 0 {
			return pendingDir(n.id, n.info), briefly, nil
		}
		return entryAttr(n.id, n.num, &n.entry), forever, nil
	case kindEverDir, kindEverFile, kindGoneDir, kindHere, kindHereHistory:
		if n.ever.Mode == 0 {
			return madeDir(n.id, 0), forever, nil
		}
		return everAttr(n.id, &n.ever), briefly, nil
	case kindRoot, kindDotS4:
		keep := f.root.keep()
		if n.entry.Mode == 0 {
			return madeDir(n.id, 0), keep, nil
		}
		a := entryAttr(n.id, n.num, &n.entry)
		a.Ino, a.Nlink = n.id, 1
		return a, keep, nil
	default:
		m, err := f.line.get(ctx)
		if err != nil {
			return fuse.Attr{}, 0, err
		}
		newest, _ := m.newest()
		return madeDir(n.id, unixNano(newest.Time)), briefly, nil
	}
}

// lookup finds a name in a directory.
func (f *historyFS) lookup(ctx context.Context, n *node, name string) (child, error) {
	switch n.kind {
	case kindHistory:
		return f.lookupMoment(ctx, name)
	case kindLink:
		return child{}, syscall.ENOTDIR
	case kindRoot:
		if name == dotS4 && !f.alone {
			return f.fixedChild(ctx, dotS4, idDotS4)
		}
	case kindDotS4:
		if id, ok := ours(name); ok {
			return f.fixedChild(ctx, name, id)
		}
	case kindEverDir:
		return f.lookupEver(ctx, n, name)
	case kindEverFile:
		return f.lookupVersion(ctx, n, name)
	case kindGoneDir:
		return f.lookupGone(ctx, n, name)
	case kindHere:
		return f.lookupHere(ctx, n, name)
	case kindHereHistory:
		return f.lookupHereHistory(ctx, n, name)
	}
	if err := f.enter(ctx, n); err != nil {
		return child{}, err
	}
	if n.entry.Mode == 0 { // made by us, with nothing else in it
		return child{}, syscall.ENOENT
	}
	if n.entry.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return child{}, syscall.ENOTDIR
	}
	e, err := f.history.Lookup(ctx, n.num, n.entry.Dir, name)
	if errors.Is(err, fs.ErrNotExist) && !f.alone {
		if c, ok, hereErr := f.hereLink(ctx, n, name); ok || hereErr != nil {
			return c, hereErr
		}
	}
	if err != nil {
		return child{}, err
	}
	f.entries.add(entryKey{n.num, e.Version}, e)
	return f.entryChild(n, &e)
}

// lookupMoment finds a name in .s4/history: a snapshot's directory, or else
// what TIME it is.
func (f *historyFS) lookupMoment(ctx context.Context, name string) (child, error) {
	info, err := f.moment(ctx, name)
	switch {
	case err != nil:
		return child{}, err
	case name == info.Dir:
		return f.snapshotChild(ctx, info)
	default:
		return momentChild(name, info)
	}
}

// moment finds the snapshot with a directory name, or else what TIME it is.
func (f *historyFS) moment(ctx context.Context, name string) (snapshot.Info, error) {
	m, err := f.line.get(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	if info, ok := m.dir(name); ok {
		return info, nil
	}
	if name == nameLatest {
		if newest, ok := m.newest(); ok {
			return newest, nil
		}
		return snapshot.Info{}, syscall.ENOENT
	}
	// File managers ask for .hidden, .Trash and the like everywhere.
	if strings.HasPrefix(name, ".") {
		return snapshot.Info{}, syscall.ENOENT
	}
	return f.line.resolve(ctx, name)
}

// entryChild is an entry of a snapshot as a name in the directory n.
func (f *historyFS) entryChild(n *node, e *snapshot.Entry) (child, error) {
	id, err := entryID(n.rootView(), n.num, e.Version)
	if err != nil {
		return child{}, err
	}
	c := child{name: e.Name, id: id, attr: entryAttr(id, n.num, e), keep: forever, keepAtt: forever}
	if n.kind == kindRoot || n.kind == kindDotS4 {
		c.keep = f.root.keep()
	}
	return c, nil
}

// snapshotChild is a snapshot's root as a name in .s4/history.
func (f *historyFS) snapshotChild(ctx context.Context, info snapshot.Info) (child, error) {
	id, err := snapshotID(info.Num)
	if err != nil {
		return child{}, err
	}
	n := node{kind: kindSnapshot, id: id, num: info.Num, info: info}
	if info.Indexed {
		if err := f.enter(ctx, &n); err != nil {
			return child{}, err
		}
	}
	a, keep, err := f.attr(ctx, &n)
	return child{name: info.Dir, id: id, attr: a, keep: briefly, keepAtt: keep}, err
}

func momentChild(name string, info snapshot.Info) (child, error) {
	id, err := momentID(info)
	if err != nil {
		return child{}, err
	}
	n := linkNode(id, info.Dir)
	n.info = info
	return child{name: name, id: id, attr: linkAttr(&n), keep: briefly, keepAtt: briefly}, nil
}

// fixedChild is a file of this package's own.
func (f *historyFS) fixedChild(ctx context.Context, name string, id uint64) (child, error) {
	n, err := f.node(ctx, id)
	if err != nil {
		return child{}, err
	}
	a, keep, err := f.attr(ctx, &n)
	return child{name: name, id: id, attr: a, keep: forever, keepAtt: keep}, err
}

// madeDir is a directory that no snapshot has. One link means, as on btrfs,
// that its directories are not counted.
func madeDir(id uint64, mtime int64) fuse.Attr {
	a := fuse.Attr{Ino: id, Mode: syscall.S_IFDIR | 0o555, Nlink: 1, Blksize: blockSize}
	setTimes(&a, mtime, 0, 0)
	return a
}

// pendingDir is a snapshot's directory as long as its own metadata is not
// known: only for the one who mounts, since its mode may forbid it to others.
func pendingDir(id uint64, info snapshot.Info) fuse.Attr {
	a := madeDir(id, unixNano(info.Time))
	a.Mode = syscall.S_IFDIR | 0o500
	a.Uid, a.Gid = uint32(os.Geteuid()), uint32(os.Getegid())
	return a
}

func linkAttr(n *node) fuse.Attr {
	a := fuse.Attr{Ino: n.id, Mode: syscall.S_IFLNK | 0o777, Nlink: 1, Size: uint64(len(n.target)), Blksize: blockSize}
	setTimes(&a, unixNano(n.info.Time), 0, 0)
	return a
}

// unixNano is Time.UnixNano with 0 for no time.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
