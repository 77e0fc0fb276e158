package btrfsvol

import (
	"context"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// border makes changes into those between two trees without the excluded path.
// What crosses its border with a directory is looked up in the trees.
type border struct {
	*tree
	out    []Change
	placed map[string]bool   // paths of the new tree that have changes of their own
	taken  map[string]bool   // paths of the old tree that have
	links  map[uint64]string // where an inode with several names came in first
}

func leaveOut(ctx context.Context, changes []Change, t *tree) ([]Change, error) {
	b := border{tree: t, placed: map[string]bool{}, taken: map[string]bool{}, links: map[uint64]string{}}
	for _, c := range changes {
		switch c.Kind {
		case Renamed:
			b.taken[c.OldPath], b.placed[c.Path] = true, true
		case Deleted:
			b.taken[c.OldPath] = true
		case Created, Linked:
			b.placed[c.Path] = true
		}
	}
	order(changes) // additional links last
	for _, c := range changes {
		if err := b.add(ctx, c); err != nil {
			return nil, err
		}
	}
	return b.out, nil
}

func (b *border) add(ctx context.Context, c Change) error {
	inside, wasInside := within(c.Path, b.exclude), within(c.OldPath, b.exclude)
	switch {
	case c.Kind == Renamed && inside && !wasInside:
		return b.leave(ctx, c)
	case inside, c.Kind == Changed && wasInside:
		// The latter is in a directory that comes in.
	case c.Kind == Renamed && wasInside:
		return b.enter(ctx, c.Path)
	case c.Kind == Linked && within(c.LinkTo, b.exclude):
		return b.enter(ctx, c.Path)
	default:
		b.out = append(b.out, c)
	}
	return nil
}

// leave tells that what moves into the excluded path is deleted.
func (b *border) leave(ctx context.Context, c Change) error {
	b.out = append(b.out, Change{Kind: Deleted, Path: c.OldPath, OldPath: c.OldPath, Ino: c.Ino, Mode: c.Mode, Size: c.Size})
	if !c.Mode.IsDir() {
		return nil
	}
	return walk(ctx, b.old, c.OldPath, func(path string, st *unix.Stat_t) bool {
		if b.taken[path] {
			return false
		}
		b.out = append(b.out, Change{Kind: Deleted, Path: path, OldPath: path, Ino: st.Ino, Mode: fileMode(st.Mode), Size: st.Size})
		return true
	})
}

// enter tells that what comes out of the excluded path is created.
func (b *border) enter(ctx context.Context, path string) error {
	st, err := statAt(b.new, path)
	if err != nil {
		return err
	}
	b.create(path, st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return walk(ctx, b.new, path, func(path string, st *unix.Stat_t) bool {
		if b.placed[path] {
			return false
		}
		b.create(path, st)
		return true
	})
}

func (b *border) create(path string, st *unix.Stat_t) {
	c := Change{Kind: Created, Path: path, Ino: st.Ino, Mode: fileMode(st.Mode), Size: st.Size}
	first := b.links[st.Ino]
	switch {
	case c.Mode.IsDir():
	case first != "":
		c.Kind, c.LinkTo = Linked, first
	default:
		if c.Mode.IsRegular() && c.Size > 0 {
			c.Extents = []Extent{{0, c.Size}}
		}
		if st.Nlink > 1 {
			b.links[st.Ino] = path
		}
	}
	b.out = append(b.out, c)
}

// walk visits what is below a directory, and below what visit says yes to.
func walk(ctx context.Context, root *os.File, path string, visit func(path string, st *unix.Stat_t) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := openBelow(root, path)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return err
	}
	slices.SortFunc(names, strings.Compare)
	for _, name := range names {
		path := join(path, name)
		st, err := statAt(root, path)
		if err != nil {
			return err
		}
		if st.Ino == nestedIno {
			continue
		}
		if visit(path, st) && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := walk(ctx, root, path, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
