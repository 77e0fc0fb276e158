package worktree

import (
	"encoding/json"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Op is what is done to one path.
type Op string

// The operations.
const (
	Create   Op = "create"   // nothing is there yet
	Replace  Op = "replace"  // new content, or another type
	SetMeta  Op = "metadata" // the content stays
	MakeLink Op = "link"     // becomes a hard link to another path
	Delete   Op = "delete"
)

// Action is one step of a plan.
type Action struct {
	Op     Op
	Path   string
	LinkTo string          // the path that a MakeLink links to
	Old    *Live           // what the plan saw at Path; nil when nothing
	New    *snapshot.Entry // what Path becomes; nil when deleted

	reuse []place // where local files may hold parts of the content
	room  string  // for a deletion in a directory that becomes another type: that directory
}

// Size is the content in bytes that has to be written for the action.
func (a *Action) Size() int64 {
	if a.New == nil || a.Op == SetMeta || a.Op == MakeLink {
		return 0
	}
	return a.New.Size
}

// Type names the kind of file that the path becomes, or was: file, dir,
// symlink, fifo, socket, char or block.
func (a *Action) Type() string {
	mode := uint32(0)
	if a.New != nil {
		mode = a.New.Mode
	} else if a.Old != nil {
		mode = a.Old.Mode
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	}
	return "file"
}

// MarshalJSON gives op, path, type, size in bytes and, for a link, link_to. A
// path that is not UTF-8 is shown with replacement characters, and in full as
// base64 under path_bytes.
func (a Action) MarshalJSON() ([]byte, error) {
	out := struct {
		Op        Op     `json:"op"`
		Path      string `json:"path"`
		PathBytes []byte `json:"path_bytes,omitempty"`
		Type      string `json:"type"`
		Size      int64  `json:"size"`
		LinkTo    string `json:"link_to,omitempty"`
	}{Op: a.Op, Path: a.Path, Type: a.Type(), Size: a.Size(), LinkTo: a.LinkTo}
	if !utf8.ValidString(a.Path) {
		out.PathBytes = []byte(a.Path)
	}
	return json.Marshal(out)
}

// Plan is what has to be done, in walk order. Deletions stand where their
// path does, though Apply does them last.
type Plan struct {
	Actions []Action
	// Problems are paths that the plan leaves alone: unreadable, or of a
	// type that is in the way and may not be removed (these wrap
	// [snapshot.ErrRefused]). Apply reports them again at its end.
	Problems []error
	// Spared counts what the target does not have and PlanOptions.Protect kept.
	Spared int

	verified  []stamped            // clean under a new name: only stamps are missing
	leftovers []*Live              // temporary files of a killed run
	dirs      map[string]*dirState // directories in which something changes
	links     map[inode][]*stamped // live names of inodes that have several
}

type inode struct{ dev, ino uint64 }

// dirState is an existing directory whose children change, so that its mtime
// has to be set again afterwards.
type dirState struct {
	old *Live
	new *snapshot.Entry // nil when it is deleted
}

// stamped is a path known to be an entry.
type stamped struct {
	path  string
	entry *snapshot.Entry
	ino   uint64
}

// place is where a local file may hold the content of an extent.
type place struct {
	path   string
	offset int64
	index  int // of the extent in the file that wants it
}

// Bytes is the size of all content that has to be written; what local files
// hold already is not fetched.
func (p *Plan) Bytes() (total int64) {
	for i := range p.Actions {
		total += p.Actions[i].Size()
	}
	return total
}

// Empty tells whether there is nothing to do that anybody would see.
func (p *Plan) Empty() bool { return len(p.Actions) == 0 && len(p.Problems) == 0 }
