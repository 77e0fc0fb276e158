package fusefs

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// Timeline tells which snapshots there are.
type Timeline interface {
	// Timeline lists the snapshots, oldest first, with Dir set. One whose
	// Num is 0 is not shown. One that is not Indexed is listed, but Tree is
	// asked only when somebody enters it, and may take its time then.
	Timeline(ctx context.Context) ([]snapshot.Info, error)
	// Resolve finds the snapshot that a TIME means; an unknown one wraps
	// fs.ErrNotExist.
	Resolve(ctx context.Context, when string) (snapshot.Info, error)
	// Watch sends whenever the time line may have changed, having looked at
	// least every poll. It closes the channel once ctx is done.
	Watch(ctx context.Context, poll time.Duration) <-chan struct{}
}

// Tree answers for the names and metadata of snapshots. What is missing wraps
// fs.ErrNotExist.
type Tree interface {
	Root(ctx context.Context, num int64) (snapshot.Entry, error)
	// Lookup finds a name in the directory with number dir (Entry.Dir).
	Lookup(ctx context.Context, num, dir int64, name string) (snapshot.Entry, error)
	// List gives up to limit entries of a directory with names after the
	// given one, in a fixed order. Fewer than limit means there are no more.
	List(ctx context.Context, num, dir int64, after string, limit int) ([]snapshot.Entry, error)
	// Stat finds an entry by its version number. The number may be outdated,
	// if the source has merged versions since; then the entry has another.
	Stat(ctx context.Context, num, version int64) (snapshot.Entry, error)
}

// Paths answers for paths over all of time, as far as that is indexed. A
// directory's and a version's numbers name a path, too, as long as anything
// holds it.
type Paths interface {
	// Ever gives up to limit names after the given one that the directory at
	// path ever held, in a fixed order. Fewer than limit means there are no
	// more. A path that never was a directory wraps fs.ErrNotExist.
	Ever(ctx context.Context, path, after string, limit int) ([]snapshot.Ever, error)
	// EverAt is what was at one path.
	EverAt(ctx context.Context, path string) (snapshot.Ever, error)
	// Distinct gives every version of a path, oldest first, each with the
	// first snapshot that has it.
	Distinct(ctx context.Context, path string) ([]snapshot.Moment, error)
	// Gone gives, in a fixed order, the names in the directory at path that
	// the newest snapshot lacks, and those of directories that it has but that
	// something is gone below.
	Gone(ctx context.Context, path string) ([]snapshot.Gone, error)
	// GoneAt is what Gone has for one path; one at which nothing is gone, and
	// no directory is, wraps fs.ErrNotExist.
	GoneAt(ctx context.Context, path string) (snapshot.Gone, error)
	// Holding gives the snapshots that have a directory at path, oldest first.
	Holding(ctx context.Context, path string) ([]snapshot.Info, error)
	DirPath(ctx context.Context, dir int64) (string, error)
	Path(ctx context.Context, version int64) (string, error)
}

// Content opens a regular file's content.
type Content interface {
	// Content tells of what extents a file consists, and which are holes.
	Content(ctx context.Context, version int64) ([]snapshot.Extent, error)
	// Local tells whether reading a snapshot's content needs no network.
	Local(ctx context.Context, num int64) (bool, error)
	Open(ctx context.Context, num int64, e snapshot.Entry) (snapshot.File, error)
}

// History is what the history side reads. It must be safe for concurrent use
// and honour its contexts.
type History interface {
	Timeline
	Tree
	Paths
	Content
}

// Options say what to mount and how.
type Options struct {
	// Live is the directory to pass through, opened before it may be
	// covered by the mount; it must hold .s4. The caller keeps it open until
	// [Server.Wait] has returned, and closes it. Nil mounts History alone,
	// read-only.
	Live    *os.File
	History History

	// Snapshot is what the root shows when Live is nil; nil means the newest.
	Snapshot *snapshot.Info
	// Follow moves the root on when a newer snapshot appears; Snapshot must
	// be nil. A directory in use stays in the snapshot it was opened in.
	Follow bool
	// OneArchive shows the snapshot alone, without .s4/history.
	OneArchive bool

	AllowOther    bool     // let users other than the one who mounts in; modes are always enforced
	MountOptions  []string // as after mount -o: ro, nosuid, noexec, noatime, transform_symlinks and the like
	FSName        string   // the mount's source as df and mountinfo show it
	NoPassthrough bool     // read and write through this process even where the kernel could do it
	Debug         bool     // log every request

	// ContentTimeout ends a read whose content does not arrive: the reader
	// gets EIO. 0 means 60 s.
	ContentTimeout time.Duration
	// Poll is how often the time line is looked at. 0 means 500 ms.
	Poll   time.Duration
	Logger *slog.Logger // nil discards

	linksInside bool // from MountOptions: absolute links in a snapshot stay inside it
}

// XattrRoot is an extended attribute of the root of a mounted live tree. Its
// value is a path, /proc/PID/fd/N, that leads to the directory below the
// mount, for processes that need the real tree.
const XattrRoot = "user.s4.root"

// Extended attributes of everything in a snapshot, found by name and not listed.
const (
	XattrSnapshot = "user.s4.snapshot" // the snapshot's directory name
	XattrVersions = "user.s4.versions" // how many distinct versions the path has over all of time
	XattrLocal    = "user.s4.local"    // "1" where reading the content needs no network, else "0"
	XattrDamaged  = "user.s4.damaged"  // "1" where parts of the content are known to be lost, else "0"
)

// Names that this package adds to a tree or keeps out of it.
const (
	dotS4        = ".s4"
	nameHistory  = "history"
	nameVersions = "versions"
	nameDeleted  = "deleted"
	nameLatest   = "latest"
)
