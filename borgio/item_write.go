package borgio

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// AppendItem appends an item as Borg packs it, its fields and xattrs sorted by
// name. Reading it gives the same Item, except that what Damaged stands for is
// not kept. Times are written as they are; stock borg shows those outside of
// 1970 to 2038 as the nearest in it.
func AppendItem(b []byte, it *Item) []byte {
	kind := it.Mode & unix.S_IFMT
	linkable := kind != unix.S_IFDIR && kind != unix.S_IFLNK // and then Source is a hard link's
	fields := 0
	start := len(b)
	b = append(b, 0xde, 0, 0) // a map; how many fields is known at the end
	name := func(s string) {
		fields++
		b = msgpack.AppendBytes(b, s)
	}
	number := func(s string, v int64) {
		name(s)
		b = msgpack.AppendInt(b, v)
	}
	text := func(s, v string) {
		name(s)
		b = appendOptional(b, v)
	}

	if it.ACLAccess != nil {
		name("acl_access")
		b = msgpack.AppendBytes(b, it.ACLAccess)
	}
	if it.ACLDefault != nil {
		name("acl_default")
		b = msgpack.AppendBytes(b, it.ACLDefault)
	}
	if it.HasAtime {
		number("atime", it.Atime)
	}
	if it.HasBirthtime {
		number("birthtime", it.Birthtime)
	}
	if it.BSDFlags != 0 {
		number("bsdflags", int64(it.BSDFlags))
	}
	if it.hasContent() {
		name("chunks")
		b = appendChunks(b, it.Chunks)
	}
	if it.HasCtime {
		number("ctime", it.Ctime)
	}
	number("gid", int64(it.GID))
	text("group", it.Group)
	if linkable && it.Source == "" {
		name("hardlink_master")
		b = msgpack.AppendBool(b, it.HardlinkMaster)
	}
	number("mode", int64(it.Mode))
	number("mtime", it.Mtime)
	name("path")
	b = msgpack.AppendBytes(b, it.Path)
	if kind == unix.S_IFBLK || kind == unix.S_IFCHR {
		number("rdev", int64(it.Rdev))
	}
	if it.hasContent() || it.Size != 0 {
		number("size", it.Size)
	}
	if it.Source != "" {
		text("source", it.Source)
	}
	number("uid", int64(it.UID))
	text("user", it.User)
	if len(it.Xattrs) > 0 {
		name("xattrs")
		b = appendXattrs(b, it.Xattrs)
	}
	if fields < 16 {
		b[start] = 0x80 | byte(fields)
		return slices.Delete(b, start+1, start+3)
	}
	b[start+2] = byte(fields)
	return b
}

// hasContent reports whether the item has content of its own, and so counts as a
// file: it is regular, and not a further hard link.
func (it *Item) hasContent() bool {
	return len(it.Chunks) > 0 || it.Mode&unix.S_IFMT == unix.S_IFREG && it.Source == ""
}

func appendOptional(b []byte, s string) []byte {
	if s == "" {
		return msgpack.AppendNil(b)
	}
	return msgpack.AppendBytes(b, s)
}

func appendChunks(b []byte, chunks []Chunk) []byte {
	b = msgpack.AppendArray(b, len(chunks))
	for i := range chunks {
		b = msgpack.AppendBytes(msgpack.AppendArray(b, 3), chunks[i].ID[:])
		b = msgpack.AppendInt(b, int64(chunks[i].Size))
		b = msgpack.AppendInt(b, int64(chunks[i].Stored))
	}
	return b
}

func appendXattrs(b []byte, xattrs []Xattr) []byte {
	byName := func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(xattrs, byName) {
		xattrs = slices.SortedFunc(slices.Values(xattrs), byName)
	}
	b = msgpack.AppendMap(b, len(xattrs))
	for _, x := range xattrs {
		b = msgpack.AppendBytes(b, x.Name)
		if len(x.Value) == 0 { // what Borg has for it
			b = msgpack.AppendNil(b)
		} else {
			b = msgpack.AppendBytes(b, x.Value)
		}
	}
	return b
}

// ComparePaths orders items' paths as a walk through a tree gives them that
// lists each directory sorted by bytes, before what is in it: a directory's
// content follows it at once. The root "." is first.
func ComparePaths(a, b string) int {
	if a == "." {
		a = ""
	}
	if b == "." {
		b = ""
	}
	n := min(len(a), len(b))
	for i := range n {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			case x < y:
				return -1
			}
			return 1
		}
	}
	return len(a) - len(b)
}

// isUnder reports whether path is dir or lies in it.
func isUnder(path, dir string) bool {
	return dir == "." || strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}
