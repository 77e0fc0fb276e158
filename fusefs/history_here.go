package fusefs

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/s4-storage/s4/snapshot"
)

// The time line is found from every directory: SUB/.s4, which is not listed,
// leads to the directory of SUB in .s4/.versions, where another name that is
// not listed, .s4 again, has history/, versions/ and deleted/ as they are seen
// from SUB. Links lead there and on from there, because the kernel wants one
// place for a directory.

// shortcuts are the names in .s4 of directories of this package. They are
// links, and only these are listed, so that what copies or crawls a whole tree
// stays out of the past.
var shortcuts = []struct {
	name, hidden string
	link, dir    uint64 // their node ids
}{
	{nameHistory, "." + nameHistory, idHistoryLink, idHistory},
	{nameVersions, "." + nameVersions, idVersionsLink, idVersions},
	{nameDeleted, "." + nameDeleted, idDeletedLink, idDeleted},
}

// shortcut gives the place of a name in shortcuts.
func shortcut(name string) (i int, ok bool) {
	for i := range shortcuts {
		if shortcuts[i].name == name {
			return i, true
		}
	}
	return 0, false
}

// ours gives the id of a name that this package puts into .s4.
func ours(name string) (id uint64, ok bool) {
	for _, s := range shortcuts {
		switch name {
		case s.name:
			return s.link, true
		case s.hidden:
			return s.dir, true
		}
	}
	return 0, false
}

// up leads from a directory so many levels up.
func up(levels int) string { return strings.Repeat("../", levels) }

// depth is the number of names in a path from the root, "" having none.
func depth(p string) int {
	if p == "" {
		return 0
	}
	return strings.Count(p, "/") + 1
}

// hereTail is where the time line seen from the directory at p lies, from the
// mount's .s4.
func hereTail(p string) string {
	if p == "" {
		return "."
	}
	return "." + nameVersions + "/" + p + "/" + dotS4
}

// hereFromLive is the target of the link .s4 in the live directory at p.
func hereFromLive(p string) string { return up(depth(p)) + dotS4 + "/" + hereTail(p) }

// hereLink is a link in a directory of a snapshot, with number dir: .s4, or in
// a .s4 that the snapshot itself has, one of the shortcuts.
func (f *historyFS) hereLink(ctx context.Context, n *node, name string) (c child, ok bool, err error) {
	number := n.entry.Dir
	if number <= 0 || number > maxVersion {
		return c, false, nil
	}
	id := bitHistory | bitSpecial | bitHereLink | uint64(number)
	if n.rootView() {
		id |= bitHereRootView
	}
	if i, is := shortcut(name); is && n.entry.Name == dotS4 && n.kind == kindEntry {
		id |= uint64(i+1) << hereWhich
	} else if name != dotS4 {
		return c, false, nil
	}
	c, err = f.fixedChild(ctx, name, id)
	c.keep = briefly
	return c, err == nil, err
}

// hereLinkNode is what hereLink made an id for.
func (f *historyFS) hereLinkNode(ctx context.Context, id uint64) (node, error) {
	at, err := f.history.DirPath(ctx, int64(id&maxVersion))
	if err != nil {
		return node{}, err
	}
	target := up(depth(at) + 2) // .s4/.history/TIME/…
	if id&bitHereRootView != 0 {
		target = up(depth(at)) + dotS4 + "/"
	}
	which := id >> hereWhich & 3
	if which == 0 {
		return linkNode(id, target+hereTail(at)), nil
	}
	parent := path.Dir(at)
	if parent == "." {
		parent = ""
	}
	return linkNode(id, path.Join(target+hereTail(parent), shortcuts[which-1].name)), nil
}

// everHere is what shows the time line as it is seen from a directory: .s4 in
// n, a directory of .s4/versions, or a name in a .s4 that really was there.
func (f *historyFS) everHere(ctx context.Context, n *node, name string) (c child, ok bool, err error) {
	if name == dotS4 && n.path != "" {
		c, err = f.hereChild(ctx, name, 0, n.ever.Dir)
		return c, err == nil, err
	}
	i, is := shortcut(name)
	parent, base := path.Split(n.path)
	if !is || base != dotS4 || parent == "" {
		return c, false, nil
	}
	ever, err := f.history.EverAt(ctx, parent[:len(parent)-1])
	if err == nil {
		c, err = f.hereChild(ctx, name, i+1, ever.Dir)
	}
	return c, err == nil, err
}

// hereChild is the directory that hereNode makes of these numbers.
func (f *historyFS) hereChild(ctx context.Context, name string, which int, dir int64) (child, error) {
	id, err := indexID(bitHere|uint64(which)<<hereWhich, dir)
	if err != nil {
		return child{}, err
	}
	c, err := f.fixedChild(ctx, name, id)
	c.keep = briefly
	return c, err
}

// lookupHere finds a name in a directory that shows the time line as it is
// seen from n.path.
func (f *historyFS) lookupHere(ctx context.Context, n *node, name string) (child, error) {
	i, ok := shortcut(name)
	if !ok {
		return child{}, fs.ErrNotExist
	}
	return f.hereChild(ctx, name, i+1, n.ever.Dir)
}

// listHere lists such a directory.
func (f *historyFS) listHere(ctx context.Context, n *node) ([]child, error) {
	page := make([]child, len(shortcuts))
	for i := range shortcuts {
		var err error
		if page[i], err = f.lookupHere(ctx, n, shortcuts[i].name); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// hereNode is a directory .s4/.versions/PATH/.s4, or a name in it.
func (f *historyFS) hereNode(ctx context.Context, id uint64) (n node, err error) {
	n = node{kind: kindHere, id: id}
	if n.path, err = f.history.DirPath(ctx, int64(id&maxVersion)); err != nil {
		return n, err
	}
	if n.ever, err = f.history.EverAt(ctx, n.path); err != nil {
		return n, err
	}
	switch which := id >> hereWhich & 3; {
	case which == 0:
	case shortcuts[which-1].name == nameHistory:
		n.kind = kindHereHistory
	case shortcuts[which-1].name == nameVersions:
		return linkNode(id, ".."), nil
	default:
		return linkNode(id, up(depth(n.path)+2)+"."+nameDeleted+"/"+n.path), nil
	}
	return n, nil
}

// listHereHistory lists the snapshots that have a directory at n.path.
func (f *historyFS) listHereHistory(ctx context.Context, n *node) ([]child, error) {
	infos, err := f.history.Holding(ctx, n.path)
	if err != nil {
		return nil, err
	}
	page := make([]child, len(infos))
	for i, info := range infos {
		if page[i], err = f.hereMoment(ctx, n, info.Dir, info); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// lookupHereHistory finds one of them by its name or by TIME.
func (f *historyFS) lookupHereHistory(ctx context.Context, n *node, name string) (child, error) {
	info, err := f.moment(ctx, name)
	if err != nil {
		return child{}, err
	}
	if info.Indexed {
		held, err := f.history.Holding(ctx, n.path)
		if err != nil {
			return child{}, err
		}
		if !holds(held, info.Num) {
			return child{}, fmt.Errorf("%q in %s: %w", n.path, info.Dir, fs.ErrNotExist)
		}
	}
	return f.hereMoment(ctx, n, name, info)
}

func holds(infos []snapshot.Info, num int64) bool {
	for _, info := range infos {
		if info.Num == num {
			return true
		}
	}
	return false
}

// hereMoment is a link to the directory at n.path in a snapshot.
func (f *historyFS) hereMoment(ctx context.Context, n *node, name string, info snapshot.Info) (child, error) {
	id, err := hereMomentID(info, n.ever.Dir)
	if err != nil {
		return child{}, err
	}
	c, err := f.fixedChild(ctx, name, id)
	c.keep = briefly
	return c, err
}

// hereMomentNode is what hereMoment made an id for.
func (f *historyFS) hereMomentNode(ctx context.Context, id uint64) (node, error) {
	num, dir := hereMomentOf(id)
	at, err := f.history.DirPath(ctx, dir)
	if err != nil {
		return node{}, err
	}
	m, err := f.line.get(ctx)
	if err != nil {
		return node{}, err
	}
	info, ok := m.num(num)
	if !ok {
		return node{}, fmt.Errorf("snapshot %d: %w", num, fs.ErrNotExist)
	}
	n := linkNode(id, up(depth(at)+3)+"."+nameHistory+"/"+info.Dir+"/"+at)
	n.info = info
	return n, nil
}

func linkNode(id uint64, target string) node { return node{kind: kindLink, id: id, target: target} }
