package btrfsvol

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// name is a name that an inode has in the new tree.
type name struct {
	path    string
	oldPath string // where the old tree has it; "" if it is an additional one
}

// settle tells what has become of all nodes when the stream has ended.
func (t *tree) settle(ctx context.Context) ([]Change, error) {
	var changes []Change
	find := linkFinder{dir: t.new, dirs: map[uint64]string{}}
	if t.root.touched {
		if err := t.update(t.root, []name{{".", "."}}, &changes); err != nil {
			return nil, err
		}
	}
	for _, n := range t.nodes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !n.touched && slices.Equal(n.was, n.now) {
			continue
		}
		names, gone, err := t.names(n, &find)
		if err != nil {
			return nil, err
		}
		for _, old := range gone {
			changes = append(changes, Change{
				Kind: Deleted, Path: old, OldPath: old,
				Ino: n.stat.Ino, Mode: fileMode(n.stat.Mode), Size: n.stat.Size,
			})
		}
		if len(names) > 0 {
			if err := t.update(n, names, &changes); err != nil {
				return nil, err
			}
		}
	}
	return changes, nil
}

// names tells an inode's names in the new tree, and the paths of the old tree
// that none of them comes from. Sorted additional names and sorted lost ones
// make up the renames.
func (t *tree) names(n *node, find *linkFinder) (names []name, gone []string, err error) {
	for _, p := range n.now {
		path, err := t.newPath(p)
		if err != nil {
			return nil, nil, err
		}
		x := name{path: path}
		if slices.Contains(n.was, p) {
			x.oldPath = p.oldPath()
		}
		names = append(names, x)
	}
	for _, p := range n.was {
		if !slices.Contains(n.now, p) {
			gone = append(gone, p.oldPath())
		}
	}
	if !n.dir && !n.created && int(n.stat.Nlink) > len(n.was) {
		// The stream did not speak of all its names.
		paths, err := find.paths(n.stat.Ino)
		if err != nil {
			return nil, nil, err
		}
		for _, path := range paths {
			if slices.ContainsFunc(names, func(x name) bool { return x.path == path }) {
				continue
			}
			p, err := t.place(path)
			if err != nil {
				return nil, nil, err
			}
			names = append(names, name{path, p.oldPath()})
		}
	}
	slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.path, b.path) })
	slices.Sort(gone)
	for i := range names {
		if x := &names[i]; x.oldPath == "" && len(gone) > 0 {
			x.oldPath, gone = gone[0], gone[1:]
		}
	}
	return names, gone, nil
}

// update adds the changes of an inode that the new tree has.
func (t *tree) update(n *node, names []name, changes *[]Change) error {
	st, err := statAt(t.new, names[0].path)
	if err != nil {
		return err
	}
	c := Change{Ino: st.Ino, Mode: fileMode(st.Mode), Size: st.Size}
	if n.created {
		c.Kind = Created
	} else {
		c.Meta = n.meta | differences(n.stat, st)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		if n.created {
			c.Extents = tidy(n.extents, st.Size)
		} else {
			before := n.stat.Size
			small, large := min(before, st.Size), max(before, st.Size)
			c.Extents = tidy(append(n.extents, Extent{small, large - small}), large)
		}
	}
	// Further names are those that are new, but for the first one if all are.
	target := slices.IndexFunc(names, func(x name) bool { return x.oldPath != "" && !within(x.path, t.exclude) })
	if target < 0 {
		target = max(0, slices.IndexFunc(names, func(x name) bool { return x.oldPath != "" }))
	}
	for i, x := range names {
		c := c
		c.Path, c.OldPath = x.path, x.oldPath
		switch {
		case x.oldPath == "" && i != target:
			c.Kind, c.LinkTo, c.Meta, c.Extents = Linked, names[target].path, 0, nil
		case x.oldPath == "": // Created
		case t.renamed(n, x):
			c.Kind = Renamed
		default:
			c.Kind = Changed
			if c.Meta == 0 && len(c.Extents) == 0 {
				continue
			}
		}
		*changes = append(*changes, c)
	}
	return nil
}

// renamed reports whether a name is not where it was: in the same directory,
// wherever that is now, under the same name.
func (t *tree) renamed(n *node, x name) bool {
	for _, p := range n.was {
		if p.oldPath() == x.oldPath {
			return !slices.Contains(n.now, p)
		}
	}
	return false // the root, and what the stream did not speak of
}

// differences tells what else than content differs.
func differences(a, b *unix.Stat_t) Meta {
	var m Meta
	if a.Mode != b.Mode {
		m |= MetaMode
	}
	if a.Uid != b.Uid || a.Gid != b.Gid {
		m |= MetaOwner
	}
	if a.Mtim != b.Mtim || a.Ctim != b.Ctim {
		m |= MetaTimes
	}
	if a.Nlink != b.Nlink && a.Mode&unix.S_IFMT != unix.S_IFDIR {
		m |= MetaNlink
	}
	return m
}

// within reports whether a path is the directory or below it.
func within(path, dir string) bool {
	return dir != "" && (path == dir || strings.HasPrefix(path, dir+"/"))
}
