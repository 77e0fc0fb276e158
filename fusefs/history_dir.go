package fusefs

import (
	"context"
	"slices"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// pageEntries is how many entries of a directory are held at once.
const pageEntries = 1000

// pager gives a directory's names piece by piece; nothing means the end. After
// an error it may be called again.
type pager func(ctx context.Context) ([]child, error)

// historyDir is an open directory. A position counts the names before it,
// "." and ".." included; a snapshot's order never changes, so a position keeps
// its meaning however often the listing is begun anew.
type historyDir struct {
	id         uint64
	open       func() pager
	attributes bool // of files are given along, see habits

	mu   sync.Mutex // one listing at a time; it guards what follows
	next pager
	page []child
	base uint64 // position of page[0]
	end  bool
}

// dots is the number of names that every directory begins with.
const dots = 2

func (f *historyFS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := f.node(request(&in.InHeader, cancel), in.NodeId)
	if err != nil {
		return f.fail("opendir", in.NodeId, err)
	}
	if err := f.enter(request(&in.InHeader, cancel), &n); err != nil {
		return f.fail("opendir", in.NodeId, err)
	}
	attributes := f.habits.open(in.Pid, in.NodeId)
	d := &historyDir{id: in.NodeId, open: func() pager { return f.pager(n) }, attributes: attributes}
	out.Fh = f.dirs.add(d)
	if n.kind == kindEntry || n.kind == kindSnapshot || n.kind == kindRoot && !f.root.follow {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR
		if !f.habits.stale(in.NodeId, attributes) {
			out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		}
	}
	return fuse.OK
}

func (f *historyFS) ReleaseDir(in *fuse.ReleaseIn) { f.dirs.remove(in.Fh) }

func (*historyFS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

func (f *historyFS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(cancel, in, func(e fuse.DirEntry, _ *child) bool { return out.AddDirEntry(e) })
}

func (f *historyFS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	d, ok := f.dirs.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	return f.list(cancel, in, func(e fuse.DirEntry, c *child) bool {
		entry := out.AddDirLookupEntry(e)
		if entry != nil && c != nil && (d.attributes || isDir(c.attr.Mode)) {
			c.fill(entry)
		}
		return entry != nil
	})
}

func isDir(mode uint32) bool { return mode&syscall.S_IFMT == syscall.S_IFDIR }

// list adds names from the wanted position on until add has no more room.
func (f *historyFS) list(cancel <-chan struct{}, in *fuse.ReadIn, add func(fuse.DirEntry, *child) bool) fuse.Status {
	d, ok := f.dirs.get(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	ctx := request(&in.InHeader, cancel)
	d.mu.Lock()
	defer d.mu.Unlock()
	for pos := in.Offset; ; pos++ {
		e := fuse.DirEntry{Off: pos + 1, Mode: syscall.S_IFDIR}
		var c *child
		switch pos {
		case 0:
			e.Name, e.Ino = ".", d.id
		case 1:
			e.Name = ".." // its number is not known here, and nobody needs it
		default:
			var err error
			if c, err = d.at(ctx, pos); err != nil {
				if pos > in.Offset {
					return fuse.OK // the next call meets the error again
				}
				return f.fail("list", d.id, err)
			}
			if c == nil {
				return fuse.OK
			}
			e.Name, e.Ino, e.Mode = c.name, c.attr.Ino, c.attr.Mode
		}
		if !add(e, c) {
			return fuse.OK
		}
	}
}

// at gives the name at a position, nil behind the last.
func (d *historyDir) at(ctx context.Context, pos uint64) (*child, error) {
	if d.next == nil || pos < d.base {
		d.next, d.page, d.base, d.end = d.open(), nil, dots, false
	}
	for pos >= d.base+uint64(len(d.page)) {
		if d.end {
			return nil, nil
		}
		page, err := d.next(ctx)
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			d.end = true
			continue
		}
		d.base += uint64(len(d.page))
		d.page = page
	}
	return &d.page[pos-d.base], nil
}

// pager lists any directory of the history side.
func (f *historyFS) pager(n node) pager {
	switch n.kind {
	case kindHistory:
		return once(f.listMoments)
	case kindRoot:
		if f.alone {
			return f.entryPager(n)
		}
		return inTurn(once(f.listDotS4), f.entryPager(n, dotS4))
	case kindDotS4:
		return inTurn(once(f.listShortcuts), f.entryPager(n, nameHistory, nameVersions, nameDeleted))
	case kindEverDir:
		return f.everPager(n)
	case kindGoneDir:
		return once(func(ctx context.Context) ([]child, error) { return f.listGone(ctx, &n) })
	case kindEverFile:
		return once(func(ctx context.Context) ([]child, error) { return f.listVersions(ctx, &n) })
	case kindHere:
		return once(func(ctx context.Context) ([]child, error) { return f.listHere(ctx, &n) })
	case kindHereHistory:
		return once(func(ctx context.Context) ([]child, error) { return f.listHereHistory(ctx, &n) })
	case kindLink:
		return once(func(context.Context) ([]child, error) { return nil, syscall.ENOTDIR })
	default:
		return f.entryPager(n)
	}
}

// entryPager lists a directory of a snapshot, without the names that this
// package puts there itself.
func (f *historyFS) entryPager(n node, hide ...string) pager {
	after, end := "", n.entry.Mode == 0
	return func(ctx context.Context) ([]child, error) {
		for !end {
			entries, err := f.history.List(ctx, n.num, n.entry.Dir, after, pageEntries)
			if err != nil {
				return nil, err
			}
			page := make([]child, 0, len(entries))
			for i := range entries {
				e := &entries[i]
				if slices.Contains(hide, e.Name) {
					continue
				}
				c, err := f.entryChild(&n, e)
				if err != nil {
					return nil, err
				}
				if e.Mode&syscall.S_IFMT == syscall.S_IFDIR {
					f.entries.add(entryKey{n.num, e.Version}, *e) // it may well be listed next
				}
				page = append(page, c)
			}
			if end = len(entries) < pageEntries; !end {
				after = entries[len(entries)-1].Name
			}
			if len(page) > 0 {
				return page, nil
			}
		}
		return nil, nil
	}
}

// listMoments lists .s4/history.
func (f *historyFS) listMoments(ctx context.Context) ([]child, error) {
	m, err := f.line.get(ctx)
	if err != nil {
		return nil, err
	}
	var page []child
	for _, info := range m.infos {
		c, err := f.snapshotChild(ctx, info)
		if errnoOf(err) == syscall.ENOENT {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		page = append(page, c)
	}
	if newest, ok := m.newest(); ok {
		c, err := momentChild(nameLatest, newest)
		if err != nil {
			return nil, err
		}
		page = append(page, c)
	}
	return page, nil
}

func (f *historyFS) listDotS4(ctx context.Context) ([]child, error) {
	c, err := f.fixedChild(ctx, dotS4, idDotS4)
	return []child{c}, err
}

func (f *historyFS) listShortcuts(ctx context.Context) (page []child, err error) {
	page = make([]child, len(shortcuts))
	for i, s := range shortcuts {
		if page[i], err = f.fixedChild(ctx, s.name, s.link); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// once makes a pager of a listing in one piece.
func once(list func(context.Context) ([]child, error)) pager {
	done := false
	return func(ctx context.Context) ([]child, error) {
		if done {
			return nil, nil
		}
		page, err := list(ctx)
		done = err == nil
		return page, err
	}
}

// inTurn lists with one pager after the other.
func inTurn(pagers ...pager) pager {
	return func(ctx context.Context) ([]child, error) {
		for len(pagers) > 0 {
			page, err := pagers[0](ctx)
			if err != nil || len(page) > 0 {
				return page, err
			}
			pagers = pagers[1:]
		}
		return nil, nil
	}
}
