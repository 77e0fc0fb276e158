// Package snapshot holds the words that every other package shares: what a
// snapshot is, what an entry of its tree is, and what a source of snapshots
// must be able to do. It imports nothing of s4.
//
// A snapshot is a volume as it was at one moment, whatever holds it. A source
// holds snapshots: a repository or a btrfs subvolume. A version is one
// distinct state of one path; unchanged from snapshot to snapshot it stays one
// version.
//
// Paths are raw bytes kept in strings: relative to the volume's root,
// separated by "/", without a leading or trailing "/", never cleaned or
// normalised. The root itself is "". Times are nanoseconds since the Unix
// epoch unless they are a [time.Time], which is always UTC.
package snapshot

import (
	"context"
	"io"
	"time"
)

// Info describes one snapshot.
type Info struct {
	Num     int64     // the index's number for it: unique within one index, never used twice; 0 before the index knows it
	ID      string    // what names the moment across sources: recorded by s4 at push, else equal to Handle
	Parent  string    // ID of the snapshot it was made on top of; "" when unknown
	Volume  string    // id of the volume it belongs to; "" when unrecorded, as in archives not made by s4
	Series  string    // snapshots of one source with equal Series show one tree as it changed; see the index package
	Source  string    // id of the source that holds it
	Handle  string    // the source's own id of it: for a repository, the archive id in hex
	Name    string    // what people call it at the source: the archive's name
	Dir     string    // its directory name under .s4/history, given by the history package
	Time    time.Time // when it was taken, UTC
	Host    string
	User    string
	Message string // what the person who pushed it wrote
	Files   int64  // number of regular files; 0 when unknown
	Size    int64  // sum of their sizes in bytes
	Indexed bool   // whether the index holds its tree
}

// DirFormat is the layout of a snapshot's directory name, always in UTC.
const DirFormat = "2006-01-02T15-04-05Z"

// Entry is one name in a snapshot's tree with all of its metadata.
type Entry struct {
	Version int64  // the index's number for this version of the path; equal while nothing about it changes
	Dir     int64  // for a directory, the number to list it by; else 0
	Name    string // last element of the path; "" for the root
	Mode    uint32 // st_mode: type and permission bits
	UID     uint32
	GID     uint32
	User    string // owner's name when recorded
	Group   string
	Size    int64 // of a regular file's content in bytes; else 0
	Holes   int64 // bytes of it that are known to be zeros and nothing else, which need not be stored
	Rdev    uint64
	Mtime   int64 // ns
	Ctime   int64 // ns; 0 when unrecorded
	Atime   int64 // ns; 0 when unrecorded
	Birth   int64 // ns; 0 when unrecorded
	Target  string
	Xattrs  []Xattr // sorted by name; ACLs appear as system.posix_acl_* in the kernel's form
	Flags   uint32  // inode flags: see FlagNoDump and its neighbours
	LinkID  uint64  // names the hard-link group within the snapshot; 0 when Nlink is 1
	Nlink   uint32  // names in the hard-link group; 1 for directories
	Subdirs uint32  // how many directories lie in a directory; only where one snapshot's tree was asked
	Damaged bool    // parts of the content are lost and read as zeros
}

// Inode flags as archives record them.
const (
	FlagNoDump    = 1
	FlagImmutable = 2
	FlagAppend    = 4
)

// Xattr is one extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is one piece of a regular file's content, in file order without
// gaps, as its source names it.
type Extent struct {
	ID   [32]byte
	Size uint32
	Hole bool // zeros and nothing else
}

// Ever is what was at one path over time: the newest entry there, and what all
// that were there have in common.
type Ever struct {
	Entry
	Perm     uint32 // permission bits that each of them had
	OneOwner bool   // they belonged to the same user and group
}

// Moment is an entry in the first snapshot that has it.
type Moment struct {
	Info  Info
	Entry Entry
}

// Gone is a path that the newest snapshot lacks, as the last one that had it
// did; or a directory that is still there, of which Last.Num is 0.
type Gone struct {
	Last  Info
	Entry Entry
}

// Item is an entry on its way into the index.
type Item struct {
	Path string // the whole path; Entry.Name, Version, Dir, LinkID and Nlink are not set
	Entry
	Content []Extent // none of a source that opens files by their path
	// LinkTo is the path of the first member of the item's hard-link group,
	// set on every member including the first; "" when it has no group.
	// Members after the first carry no Content and no Size.
	LinkTo string
}

// Source holds snapshots. All methods are safe for concurrent use.
type Source interface {
	// ID names the source; it never changes: "borg:" and the repository id in
	// hex, "btrfs:" and the volume's id.
	ID() string
	// Local tells whether content comes from this machine, not over a network.
	Local() bool
	// Snapshots lists what the source holds now, in any order.
	Snapshots(ctx context.Context) ([]Info, error)
	// Scan begins to walk through the whole tree of one snapshot. Sections
	// among known are not read where the snapshot has them.
	Scan(ctx context.Context, s Info, known []Section) Scanner
	// Open gives a regular file's content.
	Open(ctx context.Context, content []Extent) (File, error)
}

// File is a regular file's content for reading. ReadAt and WriteTo may be
// called from many goroutines. Bytes that are lost give an error that wraps
// [ErrDamaged]; everything else stays readable.
type File interface {
	io.WriterTo // from the beginning, reading ahead
	io.Closer
	Size() int64
	// ReadAtContext is io.ReaderAt with a context.
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
}

// View is a range of a file's content, lent and not copied.
type View struct {
	Parts   [][]byte // in order, not to be written to
	Release func()   // gives it back; its parts must not be used after that
}

// Viewer is a File that can lend what others copy out of it.
type Viewer interface {
	// View is ReadAtContext that lends n bytes from off on. It lends nothing
	// where there is an error.
	View(ctx context.Context, off int64, n int) (View, error)
}

// Seeker is a File that knows where its holes are.
type Seeker interface {
	// Seek gives the first offset at or after off that lies in a hole, or in
	// data, as lseek(2) does: the end is a hole, and where there is none it
	// is ENXIO.
	Seek(ctx context.Context, off int64, hole bool) (int64, error)
}

// Node is an entry with its whole path, as a walk over a tree yields it.
type Node struct {
	Path string
	Entry
}
