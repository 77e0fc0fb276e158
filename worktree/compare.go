package worktree

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Kind is how a live path differs from a snapshot.
type Kind string

// The kinds of change. Each path has the first that fits.
const (
	Added    Kind = "added"
	Deleted  Kind = "deleted"
	Type     Kind = "type"     // a file became a directory, and the like
	Modified Kind = "modified" // size or mtime, the link's target, the device number
	Metadata Kind = "metadata" // mode, owner, extended attributes, flags
	// Touched: only the ctime, as a rule of a regular file, shows that something
	// happened. The content may differ; only reading it tells.
	Touched Kind = "touched"
	// DirTime: only a directory's mtime differs, as it does after any
	// temporary file came and went. Most callers ignore it.
	DirTime Kind = "dirtime"
	// Same: nothing differs. Only [Options.Strict] tells of it.
	Same Kind = "same"
)

// Change is one path that differs.
type Change struct {
	Path string
	Kind Kind
	Old  *snapshot.Entry // nil when added
	New  *Live           // nil when deleted
}

// Compare yields what in the live tree differs from base. A path whose live
// state cannot be read is yielded as an error with Change.Path set, nothing
// below it is reported as deleted, and the comparison goes on; an error of
// base, of the stamps or of ctx comes with an empty Change and ends it.
// Breaking off at the first change answers "is it dirty?" quickly.
func (r *Root) Compare(ctx context.Context, base Tree, o Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		blind := blindness{}
		standing := standing{root: r, tree: base}
		for w, err := range r.zip(ctx, o, nil, base) {
			if err != nil {
				yield(Change{}, err)
				return
			}
			c := Change{Path: w.path, Old: w.base, New: w.live}
			switch {
			case w.err != nil:
				blind.at(w.path)
				if !yield(Change{Path: w.path}, w.err) {
					return
				}
				continue
			case w.live != nil && w.path != "" && isTemp(w.live.Name):
				continue
			case w.live == nil && blind.covers(w.path):
				continue
			case w.live == nil:
				c.Kind = Deleted
			case w.base == nil && (w.path == "" || isSocket(w.live.Mode)):
				continue // the root is not always recorded, sockets never are
			case w.base == nil:
				c.Kind = Added
			default:
				sure, errBase := standing.sure(ctx, w.live, w.base, w.path)
				if errBase != nil {
					yield(Change{}, errBase)
					return
				}
				c.Kind, err = r.differs(w.live, w.base, w.stamp, sure)
				if c.Kind == "" && o.Strict {
					c.Kind = strictly(&w)
				}
			}
			if err != nil {
				if !yield(Change{Path: w.path}, err) {
					return
				}
			} else if c.Kind != "" && !yield(c, nil) {
				return
			}
		}
	}
}

// blindness remembers where the live tree could not be read, during a pass in
// walk order: what is missing there is not known to be missing.
type blindness struct {
	path string
	set  bool
}

func (b *blindness) at(path string) {
	if !b.covers(path) {
		b.path, b.set = path, true
	}
}

func (b *blindness) covers(path string) bool { return b.set && within(path, b.path) }

// differs tells how l differs from e; "" when it does not. An equal ctime is
// believed where sure says so.
func (r *Root) differs(l *Live, e *snapshot.Entry, stamp *Stamp, sure bool) (Kind, error) {
	if l.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT {
		return Type, nil
	}
	if madeUp(e) {
		return "", nil
	}
	stamped := stamp != nil && stamp.Of == Fingerprint(*e)
	if stamp.vouches(l, e) {
		return "", nil
	}
	kind := differsByStat(l, e)
	if kind != "" && kind != DirTime {
		return kind, nil
	}
	if e.Ctime != 0 && l.Ctime == e.Ctime && sure {
		return kind, nil
	}
	xattrs, err := r.Xattrs(l.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Touched, nil // going away at this moment
	case err != nil:
		return "", err
	}
	switch {
	case !sameXattrs(xattrs, e.Xattrs) || l.Flags != e.Flags:
		return Metadata, nil
	case isRegular(l.Mode) && (e.Ctime != 0 || stamped) && (l.Size > 0 || sure):
		return Touched, nil
	}
	return kind, nil
}

// strictly finds what [Options.Strict] wants told of a path that does not differ.
func strictly(w *row) Kind {
	switch {
	case w.base.Ctime != w.live.Ctime && !madeUp(w.base) && !w.stamp.vouches(w.live, w.base):
		return Touched
	case w.live.Nlink > 1:
		return Same
	}
	return ""
}

// differsByStat compares what stat shows, ctime aside.
func differsByStat(l *Live, e *snapshot.Entry) Kind {
	switch {
	case isRegular(l.Mode) && (l.Size != e.Size || !sameMtime(l, e)),
		isLink(l.Mode) && l.Target != e.Target,
		l.Rdev != e.Rdev && isDevice(l.Mode):
		return Modified
	case l.Mode != e.Mode || l.UID != e.UID || l.GID != e.GID:
		return Metadata
	case sameMtime(l, e):
		return ""
	case isDir(l.Mode):
		return DirTime
	}
	return Metadata
}

func isDevice(mode uint32) bool {
	return mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK
}

// sameMtime allows for borg, which moves times before 1970 to 0 and those
// after 2038 to two days before the end of 32-bit time.
func sameMtime(l *Live, e *snapshot.Entry) bool {
	const end = (math.MaxInt32 - 2*24*60*60) * int64(1e9)
	return l.Mtime == e.Mtime || e.Mtime == 0 && l.Mtime < 0 || e.Mtime >= end && l.Mtime > e.Mtime
}

// AsOnDisk is e as it shows on a disk: with l's mtime where borg could not
// record it, and without attributes that are no part of a file's metadata here.
func AsOnDisk(l *Live, e *snapshot.Entry) *snapshot.Entry {
	shown := *e
	if sameMtime(l, e) {
		shown.Mtime = l.Mtime
	}
	shown.Xattrs = nil
	for _, x := range e.Xattrs {
		if managed(x.Name) {
			shown.Xattrs = append(shown.Xattrs, x)
		}
	}
	return &shown
}

// madeUp tells whether e stands for a directory that the archive does not
// record.
func madeUp(e *snapshot.Entry) bool { return isDir(e.Mode) && e.Mtime == 0 && e.Ctime == 0 }

// managed tells whether an extended attribute is part of a file's metadata
// here. Others belong to the system that the file is on: security labels,
// measurements, a file system's own properties.
func managed(name string) bool {
	switch name {
	case "system.posix_acl_access", "system.posix_acl_default", "security.capability":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")
}

// sameXattrs compares the managed ones; a is sorted and all managed.
func sameXattrs(a, b []snapshot.Xattr) bool {
	i := 0
	for _, x := range b {
		if !managed(x.Name) {
			continue
		}
		if i == len(a) || a[i].Name != x.Name || !bytes.Equal(a[i].Value, x.Value) {
			return false
		}
		i++
	}
	return i == len(a)
}
