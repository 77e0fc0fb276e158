package btrfsvol

import (
	"cmp"
	"io/fs"
	"slices"
	"strings"
)

// Kind tells what became of a path.
type Kind int

// The kinds of change.
const (
	Deleted Kind = iota // Path is no name of its inode any more
	Created             // a new inode
	Renamed             // the inode that was at OldPath
	Changed             // the same inode as before: what differs is in Meta and Extents
	Linked              // a further name of the inode that is at LinkTo
)

func (k Kind) String() string {
	return [...]string{"deleted", "created", "renamed", "changed", "linked"}[k]
}

// Meta tells what differs of an inode besides content: a set of bits.
type Meta uint

// The bits of Meta.
const (
	MetaMode  Meta = 1 << iota // the permissions, with set-id and sticky bits
	MetaOwner                  // user or group
	MetaXattr                  // extended attributes, and ACLs
	MetaTimes                  // mtime or ctime; atime does not count
	MetaNlink                  // the number of hard links
	MetaAttrs                  // flags as of chattr(1), or fs-verity, from kernels that tell
)

func (m Meta) String() string {
	var s []string
	for i, name := range []string{"mode", "owner", "xattr", "times", "nlink", "attrs"} {
		if m&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	return strings.Join(s, ",")
}

// Extent is a range of a file, in bytes.
type Extent struct {
	Offset, Length int64
}

// Change is what became of one path between two snapshots. Paths are relative
// to the subvolume, with slashes; the root is ".".
type Change struct {
	Kind    Kind
	Path    string // in the new tree; of what is Deleted, in the old one
	OldPath string // in the old tree; "" of what is Created or Linked
	LinkTo  string // of what is Linked: a path in the new tree that is not Linked itself

	// The inode, as it is in the new tree; what is Deleted, as it was.
	Ino  uint64
	Mode fs.FileMode
	Size int64 // of a file's content, or of a symbolic link's target

	// What differs from before of a Renamed or Changed inode. All of what is
	// Created is new; of what is Linked, see the change at LinkTo.
	Meta Meta
	// Where a regular file's content differs from before: sorted, apart from each
	// other, and at most as far as the file reached before or reaches now. Holes
	// count, and so does what was cut off, which lies behind Size. Of a file that
	// is Created: where there is anything but zeros.
	Extents []Extent
}

// OnlyTimes reports whether nothing but times changed: so it is with a
// directory when what changed is in it, and with a file that was touched.
func (c *Change) OnlyTimes() bool {
	return c.Kind == Changed && c.Meta&^MetaTimes == 0 && len(c.Extents) == 0
}

// Leaving gives the changes of what leaves its old path, Deleted or Renamed, by
// OldPath from the last to the first: what is in a directory before it.
func Leaving(changes []Change) []*Change {
	var leaving []*Change
	for i := range changes {
		if c := &changes[i]; c.Kind == Deleted || c.Kind == Renamed {
			leaving = append(leaving, c)
		}
	}
	slices.SortFunc(leaving, func(a, b *Change) int { return strings.Compare(b.OldPath, a.OldPath) })
	return leaving
}

// order sorts changes as [Changes] promises.
func order(changes []Change) {
	class := func(k Kind) int {
		switch k {
		case Deleted:
			return 0
		case Linked:
			return 2
		}
		return 1
	}
	slices.SortFunc(changes, func(a, b Change) int {
		if a.Kind == Deleted && b.Kind == Deleted {
			return strings.Compare(b.Path, a.Path)
		}
		return cmp.Or(class(a.Kind)-class(b.Kind), strings.Compare(a.Path, b.Path))
	})
}

// tidy sorts and joins extents and cuts them off at size.
func tidy(extents []Extent, size int64) []Extent {
	slices.SortFunc(extents, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var out []Extent
	for _, e := range extents {
		e.Length = min(e.Length, size-e.Offset)
		if e.Length <= 0 {
			continue
		}
		if n := len(out) - 1; n >= 0 && e.Offset <= out[n].Offset+out[n].Length {
			out[n].Length = max(out[n].Length, e.Offset+e.Length-out[n].Offset)
			continue
		}
		out = append(out, e)
	}
	return out
}

// fileMode makes Go's mode of the kernel's.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & 0o170000 {
	case 0o040000:
		m |= fs.ModeDir
	case 0o120000:
		m |= fs.ModeSymlink
	case 0o020000:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case 0o060000:
		m |= fs.ModeDevice
	case 0o010000:
		m |= fs.ModeNamedPipe
	case 0o140000:
		m |= fs.ModeSocket
	}
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}
