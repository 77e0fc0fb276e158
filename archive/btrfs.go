package archive

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/worktree"
)

// ErrTooTangled says that directories were renamed in a way that only looking at
// all of the tree can follow: into each other's place, or with hard links in them.
var ErrTooTangled = errors.New("directories took each other's places")

// FromBtrfs tells what has changed between the snapshot that the base was made
// of and the one at root, given what btrfs says. Only what it names is looked at.
// left is told of what cannot be; it counts as not changed.
//
// Errors: ErrTooTangled; [fs.ErrNotExist] when the snapshot lacks what btrfs names.
func FromBtrfs(ctx context.Context, root *worktree.Root, changes []btrfsvol.Change,
	exclude func(string, bool) bool, left func(path string, err error),
) (iter.Seq2[Changed, error], error) {
	b := fromBtrfs{ctx: ctx, root: root, exclude: exclude, found: map[string]Changed{}, content: map[uint64]*btrfsvol.Change{}}
	for i := range changes {
		if c := &changes[i]; c.Kind == btrfsvol.Renamed || c.Kind == btrfsvol.Changed {
			b.content[c.Ino] = c
		}
	}
	for i := range changes {
		b.leave(&changes[i])
	}
	for i := range changes {
		if err := b.arrive(&changes[i]); err != nil {
			return nil, err
		}
	}
	// From the last path to the first: what is in a directory before it.
	for i := range changes {
		c := &changes[len(changes)-1-i]
		if c.Kind != btrfsvol.Renamed || !c.Mode.IsDir() {
			continue
		}
		// Of what moved away with a directory nothing is told.
		if now, ok := b.found[c.OldPath]; ok && now.Live != nil && isDir(now.Live.Mode) {
			return nil, ErrTooTangled
		}
		if b.hidden(c.Path, true) {
			if b.hidden(c.OldPath, true) {
				continue
			}
			return nil, ErrTooTangled // other names of what is in it are not told
		}
		if err := b.moved(c); err != nil {
			return nil, err
		}
	}
	all := make([]Changed, 0, len(b.found))
	for _, c := range b.found {
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y Changed) int { return borgio.ComparePaths(x.Path, y.Path) })
	return func(yield func(Changed, error) bool) {
		for _, l := range b.lost {
			left(l.path, l.err)
		}
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}, nil
}

// Moved tells of a path whether it moved along with a directory, for
// [Maker.Moved]. Files that were made in one moment have the same times: where
// directories took each other's places these tell nothing.
func Moved(changes []btrfsvol.Change) func(path string) bool {
	dirs := map[string]bool{}
	for i := range changes {
		if c := &changes[i]; c.Kind == btrfsvol.Renamed && c.Mode.IsDir() {
			dirs[c.Path] = true
		}
	}
	return func(p string) bool {
		for p = path.Dir(p); p != "."; p = path.Dir(p) {
			if dirs[p] {
				return true
			}
		}
		return false
	}
}

type fromBtrfs struct {
	ctx     context.Context
	root    *worktree.Root
	exclude func(string, bool) bool
	lost    []lost // what cannot be looked at
	found   map[string]Changed
	content map[uint64]*btrfsvol.Change // by inode: what tells where its content was
}

type lost struct {
	path string
	err  error
}

// leave notes the path that something is not at any more.
func (b *fromBtrfs) leave(c *btrfsvol.Change) {
	old := c.OldPath
	if c.Kind == btrfsvol.Deleted {
		old = c.Path
	}
	if (c.Kind == btrfsvol.Deleted || c.Kind == btrfsvol.Renamed) && !b.hidden(old, c.Mode.IsDir()) {
		b.found[old] = Changed{Path: old}
	}
}

// arrive notes the path that something is at now.
func (b *fromBtrfs) arrive(c *btrfsvol.Change) error {
	if c.Kind == btrfsvol.Deleted || b.hidden(c.Path, c.Mode.IsDir()) {
		return nil
	}
	l, err := b.root.Stat(livePath(c.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil:
		b.lost = append(b.lost, lost{livePath(c.Path), err})
		return nil //nolint:nilerr // left is told of it
	case isSocket(l.Mode):
		return nil
	}
	n := Changed{Path: c.Path, Live: &l}
	if known := b.content[c.Ino]; known != nil && isRegular(l.Mode) {
		n.From = known.OldPath
		for _, e := range known.Extents {
			n.Extents = append(n.Extents, borgio.Extent{Start: e.Offset, Length: e.Length})
		}
	}
	b.found[c.Path] = n
	return nil
}

// moved notes what moved along with a directory.
func (b *fromBtrfs) moved(c *btrfsvol.Change) error {
	vanished := false // into what is hidden, where it was not
	o := worktree.Options{Paths: []string{c.Path}, Exclude: b.exclude, Attributes: func() bool { return true }}
	o.Hidden = func(p string, dir bool) {
		rel, below := strings.CutPrefix(p, c.Path+"/")
		vanished = vanished || below && !b.hidden(path.Join(c.OldPath, rel), dir)
	}
	for l, err := range b.root.Walk(b.ctx, o) {
		if err != nil && (l.Path == "" || b.ctx.Err() != nil || errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		if err != nil {
			b.lost = append(b.lost, lost{l.Path, err})
			continue
		}
		rel, below := strings.CutPrefix(l.Path, c.Path+"/")
		if !below || isSocket(l.Mode) {
			continue
		}
		if linked(&l) {
			return ErrTooTangled
		}
		if now := b.found[l.Path]; now.Live != nil {
			continue // told, or moved with a directory in this one
		}
		n := Changed{Path: l.Path, Live: &l}
		if isRegular(l.Mode) {
			n.From = path.Join(c.OldPath, rel)
		}
		b.found[l.Path] = n
	}
	if vanished { // other names of it are not told
		return ErrTooTangled
	}
	return b.ctx.Err()
}

// hidden tells whether a path, or a directory above it, is in no archive.
func (b *fromBtrfs) hidden(p string, dir bool) bool {
	for at := p; at != "."; at = path.Dir(at) {
		if b.exclude(at, dir) {
			return true
		}
		dir = true
	}
	return false
}

// livePath is a path as package worktree has it.
func livePath(p string) string {
	if p == "." {
		return ""
	}
	return p
}

// FromScan tells what has changed since the base, given how the tree strictly
// compares with it. All that has several names counts, since renaming a directory
// can make another one the master, and shows nowhere else. What could not be looked at is reported to left, and stays as it was.
func FromScan(changes iter.Seq2[worktree.Change, error], left func(path string, err error)) iter.Seq2[Changed, error] {
	return func(yield func(Changed, error) bool) {
		for c, err := range changes {
			switch {
			case err != nil && c.Path == "":
				yield(Changed{}, err)
				return
			case errors.Is(err, fs.ErrNotExist):
				continue
			case err != nil:
				left(c.Path, err)
				continue
			}
			n := Changed{Path: itemPath(c.Path), Live: c.New}
			if c.Kind == worktree.Same && isRegular(c.New.Mode) {
				n.From = n.Path
			}
			if n.Live != nil {
				n.Live.Xattrs = nil // a comparison need not have read all of them
			}
			if c.New != nil && isSocket(c.New.Mode) {
				if c.Old == nil {
					continue
				}
				n.Live = nil
			}
			if !yield(n, nil) {
				return
			}
		}
	}
}
