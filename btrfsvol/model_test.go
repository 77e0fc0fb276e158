package btrfsvol

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inode is one of the model's: what a user sees of a file.
type inode struct {
	stat     unix.Stat_t
	target   string
	xattrs   map[string]string
	content  []byte
	children map[string]*inode
}

func (n *inode) dir() bool  { return n.stat.Mode&unix.S_IFMT == unix.S_IFDIR }
func (n *inode) file() bool { return n.stat.Mode&unix.S_IFMT == unix.S_IFREG }

// readModel reads a tree without what lies at or below exclude.
func readModel(t *testing.T, root, exclude string) *inode {
	t.Helper()
	linked := map[uint64]*inode{}
	var read func(rel string) *inode
	read = func(rel string) *inode {
		n := lookAt(t, root, rel)
		if n.stat.Ino == 2 { // a nested subvolume's place
			return nil
		}
		if m := linked[n.stat.Ino]; m != nil {
			return m
		}
		if n.stat.Nlink > 1 {
			linked[n.stat.Ino] = n
		}
		if n.file() {
			n.content = make([]byte, n.stat.Size)
			readAt(t, root, rel, n.content, 0)
		}
		if n.dir() {
			entries, err := os.ReadDir(filepath.Join(root, rel))
			do(t, err)
			for _, e := range entries {
				rel := path.Join(rel, e.Name())
				if rel == exclude {
					continue
				}
				if child := read(rel); child != nil {
					n.children[e.Name()] = child
				}
			}
		}
		return n
	}
	return read(".")
}

// lookAt reads all of an inode but content.
func lookAt(t *testing.T, root, rel string) *inode {
	t.Helper()
	p := filepath.Join(root, rel)
	n := &inode{xattrs: map[string]string{}, children: map[string]*inode{}}
	do(t, unix.Lstat(p, &n.stat))
	if n.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		var err error
		n.target, err = os.Readlink(p)
		do(t, err)
	}
	buf := make([]byte, 4096)
	size, err := unix.Llistxattr(p, buf)
	do(t, err)
	for name := range strings.SplitSeq(strings.Trim(string(buf[:size]), "\x00"), "\x00") {
		if name != "" {
			value := make([]byte, 65536)
			size, err := unix.Lgetxattr(p, name, value)
			do(t, err)
			n.xattrs[name] = string(value[:size])
		}
	}
	return n
}

func readAt(t *testing.T, root, rel string, p []byte, offset int64) {
	t.Helper()
	f, err := os.Open(filepath.Join(root, rel))
	do(t, err)
	defer f.Close()
	if _, err := f.ReadAt(p, offset); err != nil {
		t.Fatalf("%s: %d bytes at %d: %v", rel, len(p), offset, err)
	}
}

// find gives the inode at a path, or nil.
func (n *inode) find(p string) *inode {
	if p == "." {
		return n
	}
	for name := range strings.SplitSeq(p, "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// become does to the model what the documentation of Changes says; content and
// attributes come from the new tree only where the changes name them.
func (n *inode) become(t *testing.T, changes []Change, newRoot string) {
	t.Helper()
	aside := map[string]*inode{}
	for _, c := range Leaving(changes) {
		dir := n.find(path.Dir(c.OldPath))
		if dir == nil || dir.children[path.Base(c.OldPath)] == nil {
			t.Fatalf("%v: the old tree has no such path", c)
		}
		gone := dir.children[path.Base(c.OldPath)]
		if c.Kind == Deleted && len(gone.children) > 0 {
			t.Fatalf("%v: not empty: %v", c, slices.Collect(maps.Keys(gone.children)))
		}
		delete(dir.children, path.Base(c.OldPath))
		aside[c.OldPath] = gone
	}
	for _, c := range changes {
		var at *inode
		switch c.Kind {
		case Deleted:
			continue
		case Created:
			at = lookAt(t, newRoot, c.Path)
			at.content = make([]byte, c.Size)
			if !at.file() {
				at.content = nil
			}
		case Renamed:
			at = aside[c.OldPath]
		case Linked:
			at = n.find(c.LinkTo)
		case Changed:
			at = n.find(c.Path)
		}
		if at == nil {
			t.Fatalf("%v: there is no such inode", c)
		}
		if c.Kind != Changed {
			dir := n.find(path.Dir(c.Path))
			if dir == nil || !dir.dir() || dir.children[path.Base(c.Path)] != nil {
				t.Fatalf("%v: no directory, or the path is not free", c)
			}
			dir.children[path.Base(c.Path)] = at
		}
		at.update(t, c, newRoot)
	}
}

func (n *inode) update(t *testing.T, c Change, newRoot string) {
	t.Helper()
	now := lookAt(t, newRoot, c.Path)
	if c.Meta&MetaMode != 0 {
		n.stat.Mode = now.stat.Mode
	}
	if c.Meta&MetaOwner != 0 {
		n.stat.Uid, n.stat.Gid = now.stat.Uid, now.stat.Gid
	}
	if c.Meta&MetaTimes != 0 {
		n.stat.Mtim, n.stat.Ctim = now.stat.Mtim, now.stat.Ctim
	}
	if c.Meta&MetaNlink != 0 {
		n.stat.Nlink = now.stat.Nlink
	}
	if c.Meta&MetaXattr != 0 {
		n.xattrs = now.xattrs
	}
	if len(c.Extents) > 0 {
		n.content = append(n.content[:min(int64(len(n.content)), c.Size)], make([]byte, max(0, c.Size-int64(len(n.content))))...)
	}
	end := int64(-1)
	for _, e := range c.Extents {
		if e.Offset <= end || e.Length <= 0 {
			t.Fatalf("%v: extents are not sorted and apart", c)
		}
		end = e.Offset + e.Length
		if from, to := min(e.Offset, c.Size), min(end, c.Size); to > from {
			readAt(t, newRoot, c.Path, n.content[from:to], from)
		}
	}
}

// lines describe a tree, one line a path. Groups tells which paths are one
// inode.
func (n *inode) lines(groups bool) map[string]string {
	lines := map[string]string{}
	first := map[*inode]string{}
	var walk func(p string, n *inode)
	walk = func(p string, n *inode) {
		s := n.stat
		if first[n] == "" {
			first[n] = p
		}
		line := fmt.Sprintf("mode %o owner %d:%d rdev %d mtime %v ctime %v size %d target %q xattrs %q content %x",
			s.Mode, s.Uid, s.Gid, s.Rdev, s.Mtim, s.Ctim, len(n.content), n.target, n.xattrs, sha256.Sum256(n.content))
		if !n.dir() {
			line += fmt.Sprint(" nlink ", s.Nlink)
		}
		if groups {
			line += " inode " + first[n]
		}
		lines[p] = line
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			walk(path.Join(p, name), n.children[name])
		}
	}
	walk(".", n)
	return lines
}

// checkChanges sees to it that the changes make the old tree the new one, and
// that there is none without a cause.
func checkChanges(t *testing.T, oldRoot, newRoot, exclude string) []Change {
	t.Helper()
	changes, err := Changes(t.Context(), oldRoot, newRoot, Options{Exclude: exclude})
	do(t, err)
	model := readModel(t, oldRoot, exclude)
	before := model.lines(false)
	model.become(t, changes, newRoot)
	wanted := readModel(t, newRoot, exclude)
	got, want := model.lines(exclude == ""), wanted.lines(exclude == "")
	var wrong bytes.Buffer
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if got[p] != want[p] {
			fmt.Fprintf(&wrong, "%s\n\tis     %s\n\tshould %s\n\twas    %s\n", p, got[p], want[p], before[p])
		}
		delete(got, p)
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(&wrong, "%s\n\tshould not be there\n", p)
	}
	now := wanted.lines(false)
	seen := map[string]bool{}
	for _, c := range changes {
		if key := fmt.Sprint(c.Kind == Deleted, c.Path); seen[key] {
			fmt.Fprintf(&wrong, "%v: told twice\n", c)
		} else {
			seen[key] = true
		}
		if c.Kind == Changed && len(c.Extents) == 0 && before[c.OldPath] == now[c.Path] {
			fmt.Fprintf(&wrong, "%v: nothing differs\n", c)
		}
	}
	if wrong.Len() > 0 {
		for _, c := range changes {
			fmt.Fprintf(&wrong, "\t%+v\n", c)
		}
		t.Fatalf("from %s to %s without %q:\n%s", oldRoot, newRoot, exclude, wrong.String())
	}
	return changes
}

// openFile opens a regular file for the time of a call, and no other.
func openFile(p string, flags int, use func(fd int) error) error {
	if st, err := os.Lstat(p); err == nil && !st.Mode().IsRegular() {
		return unix.EINVAL
	}
	f, err := os.OpenFile(p, os.O_RDWR|flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(use(int(f.Fd())), f.Close())
}
