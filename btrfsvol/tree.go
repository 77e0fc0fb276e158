package btrfsvol

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/send"
)

// tree follows a stream: it begins as the old tree, of which it learns only what
// the stream speaks about, and does to it what the stream says.
type tree struct {
	old, new *os.File // the snapshots' roots
	exclude  string
	root     *node
	nodes    []*node          // all but the root
	linked   map[uint64]*node // those of the old tree with several names, by inode
}

// node is an inode of the old tree, or one that the stream has made.
type node struct {
	created  bool
	dir      bool
	touched  bool         // the stream speaks of the inode itself
	oldPath  string       // one of its paths in the old tree
	stat     *unix.Stat_t // in the old tree, once it was looked at
	was, now []place      // its names, in the old tree as far as they are known
	// children are those of a directory that are known; nil is a name that the
	// old tree has and this one has not any more.
	children map[string]*node
	meta     Meta // MetaXattr and MetaAttrs
	extents  []Extent
}

type place struct {
	dir  *node
	name string
}

func newTree(old, new *os.File) *tree {
	return &tree{old: old, new: new, root: &node{dir: true}, linked: map[uint64]*node{}}
}

// apply does what a command says.
func (t *tree) apply(c *send.Command) error {
	err := t.do(c)
	if err != nil {
		return fmt.Errorf("%v %q: %w", c.Kind, c.Path, err)
	}
	return nil
}

func (t *tree) do(c *send.Command) error {
	switch c.Kind {
	case send.Snapshot:
		return nil
	case send.MkFile, send.MkDir, send.MkNod, send.MkFifo, send.MkSock, send.Symlink:
		p, err := t.place(c.Path)
		if err != nil {
			return err
		}
		n := &node{created: true, dir: c.Kind == send.MkDir}
		t.nodes = append(t.nodes, n)
		return n.attach(p)
	case send.Rename:
		return t.rename(c.Path, c.To)
	case send.Link:
		n, _, err := t.lookup(c.Link)
		if err != nil {
			return err
		}
		if n.dir {
			return unix.EISDIR
		}
		p, err := t.place(c.Path)
		if err != nil {
			return err
		}
		return n.attach(p)
	case send.Unlink, send.Rmdir:
		n, p, err := t.lookup(c.Path)
		if err != nil {
			return err
		}
		n.detach(p)
		return nil
	}
	n, _, err := t.lookup(c.Path)
	if err != nil {
		return err
	}
	n.touched = true
	switch c.Kind {
	case send.Chmod, send.Chown, send.Utimes: // the trees tell
	case send.SetXattr, send.RemoveXattr:
		n.meta |= MetaXattr
	case send.FileAttr, send.EnableVerity:
		n.meta |= MetaAttrs
	case send.Write:
		n.extent(c.Offset, uint64(len(c.Data)))
	case send.EncodedWrite:
		n.extent(c.Offset, c.UnencodedFileLen)
	case send.Clone, send.UpdateExtent, send.Fallocate:
		n.extent(c.Offset, c.Size)
	case send.Truncate:
		n.extent(c.Size, math.MaxUint64)
	default:
		return fmt.Errorf("%w: not a command for a change", send.ErrFormat)
	}
	return nil
}

func (t *tree) rename(from, to string) error {
	n, p, err := t.lookup(from)
	if err != nil {
		return err
	}
	if over, q, err := t.lookup(to); err == nil {
		if over == n {
			return nil
		}
		over.detach(q)
	}
	q, err := t.place(to)
	if err != nil {
		return err
	}
	for dir := q.dir; ; dir = dir.now[0].dir {
		if dir == n {
			return fmt.Errorf("into itself: %w", unix.EINVAL)
		}
		if len(dir.now) == 0 {
			break
		}
	}
	n.detach(p)
	return n.attach(q)
}

// place finds the directory that a path leads into.
func (t *tree) place(path string) (place, error) {
	dir := t.root
	for {
		name, rest, more := strings.Cut(path, "/")
		if !more {
			return place{dir, name}, nil
		}
		var err error
		if dir, err = t.child(place{dir, name}, true); err != nil {
			return place{}, err
		}
		path = rest
	}
}

// lookup finds the node at a path.
func (t *tree) lookup(path string) (*node, place, error) {
	if path == "" {
		return t.root, place{}, t.look(t.root)
	}
	p, err := t.place(path)
	if err != nil {
		return nil, p, err
	}
	n, err := t.child(p, false)
	if err != nil {
		return nil, p, err
	}
	return n, p, t.look(n)
}

// child finds the node at a place. That something is below it tells that it is
// a directory.
func (t *tree) child(p place, isDir bool) (*node, error) {
	n, known := p.dir.children[p.name]
	switch {
	case known && n == nil, !known && p.dir.created, p.name == "":
		return nil, fs.ErrNotExist
	case known && isDir && !n.dir:
		return nil, unix.ENOTDIR
	case known:
		return n, nil
	}
	n = &node{dir: isDir, oldPath: join(p.dir.oldPath, p.name)}
	if !isDir {
		if err := t.look(n); err != nil {
			return nil, err
		}
		n.dir = n.stat.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	if !n.dir && n.stat.Nlink > 1 {
		if m := t.linked[n.stat.Ino]; m != nil {
			n = m
		}
		t.linked[n.stat.Ino] = n
	}
	if len(n.was) == 0 {
		t.nodes = append(t.nodes, n)
	}
	n.was = append(n.was, p)
	return n, n.attach(p)
}

// look sees to it that what the old tree tells about a node is known.
func (t *tree) look(n *node) error {
	if n.created || n.stat != nil {
		return nil
	}
	st, err := statAt(t.old, n.oldPath)
	if err != nil {
		return fmt.Errorf("in the old tree: %w", err)
	}
	n.stat = st
	return nil
}

func (n *node) attach(p place) error {
	if !p.dir.dir || p.name == "" {
		return unix.ENOTDIR
	}
	if p.dir.children[p.name] != nil {
		return fs.ErrExist
	}
	if p.dir.children == nil {
		p.dir.children = map[string]*node{}
	}
	p.dir.children[p.name] = n
	n.now = append(n.now, p)
	return nil
}

func (n *node) detach(p place) {
	if p.dir == nil {
		return // the root stays
	}
	p.dir.children[p.name] = nil
	n.now = slices.DeleteFunc(n.now, func(q place) bool { return q == p })
}

// extent notes that a range of the content changed.
func (n *node) extent(offset, length uint64) {
	offset = min(offset, math.MaxInt64)
	e := Extent{int64(offset), int64(min(length, math.MaxInt64-offset))}
	if last := len(n.extents) - 1; last >= 0 && n.extents[last].Offset+n.extents[last].Length == e.Offset {
		n.extents[last].Length += e.Length
		return
	}
	n.extents = append(n.extents, e)
}

// newPath is a place's path in the tree as it has become.
func (t *tree) newPath(p place) (string, error) {
	path := p.name
	for dir := p.dir; dir != t.root; dir = dir.now[0].dir {
		if len(dir.now) == 0 {
			return "", fmt.Errorf("%w: %q is in a deleted directory", send.ErrFormat, path)
		}
		path = join(dir.now[0].name, path)
	}
	return path, nil
}

func (p place) oldPath() string { return join(p.dir.oldPath, p.name) }

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// statAt looks at what is at a path below a directory, "" being itself.
func statAt(dir *os.File, path string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if path == "" {
		path = "."
	}
	if err := unix.Fstatat(int(dir.Fd()), path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return &st, nil
}
