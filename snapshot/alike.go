package snapshot

import (
	"bytes"
	"math"
	"slices"
)

// Alike tells whether two entries of one path, from different sources, are the
// same state of it. What a source may leave out counts only where both have it;
// what each numbers and finds out in its own way does not count: the version,
// the times of access, where holes are. A directory without times is one that
// nobody knows more of.
func Alike(a, b *Entry) bool {
	if a.Mode&modeType == modeDir && b.Mode&modeType == modeDir && (a.timeless() || b.timeless()) {
		return true
	}
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		agree(a.User, b.User) && agree(a.Group, b.Group) &&
		a.Size == b.Size && a.Rdev == b.Rdev && a.Target == b.Target &&
		SameTime(a.Mtime, b.Mtime) &&
		(agree(a.Ctime, b.Ctime) || SameTime(a.Ctime, b.Ctime)) && agree(a.Birth, b.Birth) &&
		a.Flags == b.Flags && a.Damaged == b.Damaged &&
		// Borg knows no hard links of symbolic links.
		(a.Mode&modeType == modeSymlink || a.LinkID == b.LinkID && a.Nlink == b.Nlink) &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

const (
	modeType    = 0o170000
	modeSymlink = 0o120000
	modeDir     = 0o040000
)

func (e *Entry) timeless() bool { return e.Mtime == 0 && e.Ctime == 0 }

func agree[T comparable](a, b T) bool {
	var none T
	return a == b || a == none || b == none
}

// SameTime compares times in ns. It allows for borg, which moves those before
// 1970 to 0 and those after 2038 to two days before the end of 32-bit time.
func SameTime(a, b int64) bool {
	const end = (math.MaxInt32 - 2*24*60*60) * int64(1e9)
	return a == b || a <= 0 && b <= 0 && (a == 0 || b == 0) || a >= end && b >= end && (a == end || b == end)
}

// SameContent compares what two regular files consist of, as one source names
// it. It is not known of files whose extents the source does not name.
func SameContent(a, b []Extent) (same, known bool) {
	return slices.Equal(a, b), len(a) > 0 && len(b) > 0
}
