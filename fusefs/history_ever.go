package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/snapshot"
)

// everNode is a directory in .s4/versions or .s4/deleted.
func (f *historyFS) everNode(ctx context.Context, id uint64) (n node, err error) {
	n.id = id
	number := int64(id & maxVersion)
	switch {
	case id&bitEverFile != 0:
		n.kind = kindEverFile
		n.path, err = f.history.Path(ctx, number)
	case id&bitEverDir != 0:
		n.kind = kindEverDir
		n.path, err = f.history.DirPath(ctx, number)
	default:
		n.kind = kindGoneDir
		n.path, err = f.history.DirPath(ctx, number)
	}
	if err == nil {
		n.ever, err = f.history.EverAt(ctx, n.path)
	}
	if err == nil && (n.ever.Dir != 0) != (n.kind != kindEverFile) {
		err = fmt.Errorf("%q is another kind of thing now: %w", n.path, fs.ErrNotExist)
	}
	return n, err
}

// lookupEver finds a name in a directory of .s4/versions.
func (f *historyFS) lookupEver(ctx context.Context, n *node, name string) (child, error) {
	e, err := f.history.EverAt(ctx, path.Join(n.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		if c, ok, hereErr := f.everHere(ctx, n, name); ok || hereErr != nil {
			return c, hereErr
		}
	}
	if err != nil {
		return child{}, err
	}
	return everChild(&e)
}

// lookupVersion finds one version of a path.
func (f *historyFS) lookupVersion(ctx context.Context, n *node, name string) (child, error) {
	all, err := f.listVersions(ctx, n)
	for _, c := range all {
		if c.name == name {
			return c, nil
		}
	}
	if err == nil {
		err = syscall.ENOENT
	}
	return child{}, err
}

// everPager lists what a directory ever held.
func (f *historyFS) everPager(n node) pager {
	after, end := "", false
	return func(ctx context.Context) ([]child, error) {
		if end {
			return nil, nil
		}
		all, err := f.history.Ever(ctx, n.path, after, pageEntries)
		if err != nil {
			return nil, err
		}
		page := make([]child, len(all))
		for i := range all {
			if page[i], err = everChild(&all[i]); err != nil {
				return nil, err
			}
		}
		if end = len(all) < pageEntries; !end {
			after = all[len(all)-1].Name
		}
		return page, nil
	}
}

// listVersions lists the distinct versions of a path, each named for the
// first snapshot that has it, with the path's extension.
func (f *historyFS) listVersions(ctx context.Context, n *node) ([]child, error) {
	all, err := f.history.Distinct(ctx, n.path)
	if err != nil {
		return nil, err
	}
	ext := path.Ext(strings.TrimLeft(path.Base(n.path), "."))
	var page []child
	for i := range all {
		e := &all[i].Entry
		if e.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			continue // from a time when the path was one
		}
		id, err := entryID(false, all[i].Info.Num, e.Version)
		if err != nil {
			return nil, err
		}
		page = append(page, child{
			name: all[i].Info.Dir + ext, id: id, attr: entryAttr(id, all[i].Info.Num, e), keep: briefly, keepAtt: forever,
		})
	}
	return page, nil
}

func everChild(e *snapshot.Ever) (child, error) {
	id, err := everID(&e.Entry)
	return child{name: e.Name, id: id, attr: everAttr(id, e), keep: briefly, keepAtt: briefly}, err
}

// everAttr are the attributes of a directory in .s4/versions. It is open to
// whom each thing at its path was open to, since old versions lie below it; if
// these had several owners, to the one who mounts alone.
func everAttr(id uint64, e *snapshot.Ever) fuse.Attr {
	a := madeDir(id, e.Mtime)
	read := e.Perm & 0o444
	enter := e.Perm & 0o111
	if e.Dir == 0 { // a file's versions are found by who may read it
		enter = read >> 2
	}
	a.Mode = syscall.S_IFDIR | read | enter
	a.Uid, a.Gid = e.UID, e.GID
	if !e.OneOwner {
		a.Mode = syscall.S_IFDIR | 0o500
		a.Uid, a.Gid = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	return a
}

// lookupGone finds a name in a directory of .s4/deleted.
func (f *historyFS) lookupGone(ctx context.Context, n *node, name string) (child, error) {
	g, err := f.history.GoneAt(ctx, path.Join(n.path, name))
	if err != nil {
		return child{}, err
	}
	return f.goneChild(ctx, n, &g)
}

// listGone lists what is gone from a directory, and the directories in it that
// something is gone below.
func (f *historyFS) listGone(ctx context.Context, n *node) ([]child, error) {
	all, err := f.history.Gone(ctx, n.path)
	if err != nil {
		return nil, err
	}
	page := make([]child, len(all))
	for i := range all {
		if page[i], err = f.goneChild(ctx, n, &all[i]); err != nil {
			return nil, err
		}
	}
	return page, nil
}

func (f *historyFS) goneChild(ctx context.Context, n *node, g *snapshot.Gone) (c child, err error) {
	c = child{name: g.Entry.Name, keep: briefly, keepAtt: briefly}
	if g.Last.Num != 0 {
		if c.id, err = entryID(false, g.Last.Num, g.Entry.Version); err == nil {
			c.attr = entryAttr(c.id, g.Last.Num, &g.Entry)
		}
		return c, err
	}
	ever, err := f.history.EverAt(ctx, path.Join(n.path, c.name))
	if err != nil {
		return c, err
	}
	if c.id, err = indexID(bitGoneDir, ever.Dir); err == nil {
		c.attr = everAttr(c.id, &ever)
	}
	return c, err
}
