package diff

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// What differs about a path.
type What uint16

// The differences. Added, Removed and Renamed exclude each other; so do
// Added, Removed, Kind and Content.
const (
	Added What = 1 << iota
	Removed
	Renamed    // with what else differs between the two paths
	Kind       // a file became a directory, and the like
	Content    // a file's bytes, a link's target, a device's number
	Unsure     // content may differ: it was touched and could not be compared
	Mode       // permission bits
	Owner      // user or group, by number
	Time       // the mtime of anything but a directory
	Attributes // extended attributes, ACLs, inode flags
	Links      // how many names the file has
)

// table has the letter and the word for each difference, in the order in which
// they are said.
var table = []struct {
	what   What
	letter byte
	word   string
}{
	{Added, 'A', "added"},
	{Removed, 'D', "deleted"},
	{Renamed, 'R', "renamed"},
	{Kind, 'T', "type"},
	{Content, 'M', "modified"},
	{Unsure, '?', "touched"},
	{Mode, 'p', "mode"},
	{Owner, 'o', "owner"},
	{Time, 't', "time"},
	{Attributes, 'x', "attributes"},
	{Links, 'l', "links"},
}

// Letters says it in letters such as "M", "Rp" or "ot". What goes without
// saying is not said: a file with other content has another time, too.
func (w What) Letters() string {
	var b []byte
	for _, row := range table {
		if w.said()&row.what != 0 {
			b = append(b, row.letter)
		}
	}
	return string(b)
}

// Words says it in words such as "modified", "mode", "owner".
func (w What) Words() []string {
	var words []string
	for _, row := range table {
		if w.said()&row.what != 0 {
			words = append(words, row.word)
		}
	}
	return words
}

func (w What) said() What {
	if w&(Content|Kind) != 0 {
		w &^= Time
	}
	return w
}

// MetadataOnly tells whether the path is there on both sides with the same
// content.
func (w What) MetadataOnly() bool {
	return w&(Added|Removed|Renamed|Kind|Content|Unsure) == 0
}

// Change is one path that differs.
type Change struct {
	Path string
	From string          // of a rename, the path on the first side
	Old  *snapshot.Entry // on the first side, nil when added
	New  *snapshot.Entry // on the second side, nil when removed
	What What
}

// metadata compares what is no content.
func metadata(a, b *snapshot.Entry) (w What) {
	if a.Mode&0o7777 != b.Mode&0o7777 {
		w |= Mode
	}
	if a.UID != b.UID || a.GID != b.GID {
		w |= Owner
	}
	if a.Mtime != b.Mtime && !isDir(a.Mode) {
		w |= Time
	}
	if a.Flags != b.Flags || !slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y snapshot.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	}) {
		w |= Attributes
	}
	return w
}

// Become tells what differs when a path turns from old to now: content where it
// is said to, the rest by looking. Other than for two trees the time of a
// directory counts.
func Become(old, now *snapshot.Entry, content bool) What {
	w := shape(old, now)
	if w == Kind {
		return w
	}
	if w |= metadata(old, now); old.Mtime != now.Mtime {
		w |= Time
	}
	if content {
		w |= Content
	}
	return w
}

// shape compares type, and content as far as the entries themselves hold it.
func shape(a, b *snapshot.Entry) What {
	switch {
	case a.Mode&unix.S_IFMT != b.Mode&unix.S_IFMT:
		return Kind
	case isRegular(a.Mode) && a.Size != b.Size, a.Target != b.Target, isDevice(a.Mode) && a.Rdev != b.Rdev:
		return Content
	}
	return 0
}

func isDir(mode uint32) bool     { return mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFREG }
func isLink(mode uint32) bool    { return mode&unix.S_IFMT == unix.S_IFLNK }
func isDevice(mode uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK
}
