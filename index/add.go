package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"iter"
	"strings"

	"github.com/s4-storage/s4/snapshot"
)

// Added tells what became of a snapshot's items.
type Added struct {
	Items       int64    // entries of the tree, synthesised directories included
	NewVersions int64    // rows that had to be made for them
	Skipped     []string // what was left out and why, at most maxSkipped lines
	SkippedAll  int64    // how many were left out
}

const maxSkipped = 20

// Add is [Index.AddScan] for items that come without sections.
func (x *Index) Add(ctx context.Context, num int64, items iter.Seq2[*snapshot.Item, error]) (Added, error) {
	return x.AddScan(ctx, num, func([]snapshot.Section) snapshot.Scanner { return snapshot.ScanItems(items) })
}

// AddScan indexes a known snapshot from the stream of its items, which may
// come in any order. Sections of the stream that a neighbour in the chain has,
// too, need not be read: scan is told of them. It is not called when the
// snapshot is indexed already, and twice where the stream is not as its objects
// made believe. An error of the stream undoes everything. Items
// that make no tree (absolute paths, "..", a path twice) are left out and
// reported. Writers of other processes wait meanwhile, readers don't.
//
// Memory grows by some bytes for each item, up to a bound; for the newest snapshot
// of a chain, by some for each item of the sections that are not shared.
func (x *Index) AddScan(ctx context.Context, num int64, scan func(known []snapshot.Section) snapshot.Scanner) (Added, error) {
	added, err := x.addScan(ctx, num, true, scan)
	if errors.Is(err, errUnexpected) {
		added, err = x.addScan(ctx, num, false, scan)
	}
	if err != nil {
		return Added{}, fmt.Errorf("add snapshot %d: %w", num, err)
	}
	return added, nil
}

// addScan is AddScan, with an inventory that may be partial. Then it may end with
// errUnexpected.
func (x *Index) addScan(ctx context.Context, num int64, partial bool, scan func(known []snapshot.Section) snapshot.Scanner) (added Added, err error) {
	err = x.writing(ctx, func(c *conn) error {
		p, ok, err := placeOf(c, num)
		if err != nil {
			return err
		}
		if !ok {
			return fs.ErrNotExist
		}
		if p.indexed {
			return nil
		}
		base, err := x.inventoryOf(c, p, partial)
		if err != nil {
			return err
		}
		a, err := newAdder(c, p, base, newInventory(p, base, x.spare))
		if err != nil {
			return err
		}
		defer a.close()
		if err := a.run(ctx, scan); err != nil {
			return err
		}
		added = a.added
		if base != nil && base.partial {
			x.hold(nil, nil) // the next one begins as this did
		} else {
			x.hold(a.next, base)
		}
		return nil
	})
	return added, err
}

// adder carries one snapshot into the table of versions.
//
// Every item is compared with the rows that its directory has in the
// neighbouring snapshots. A row that is equal is seen: it stays, or is
// stretched to include the snapshot. For an item without equal row one is
// inserted. What was not seen at the end is cut off around the snapshot.
//
// Where a neighbour's inventory is known, the rows of most items are found
// there: see add_known.go.
type adder struct {
	c *conn
	place
	base     *inventory // of a neighbour; nil when it is not known
	next     *inventory // of this snapshot; nil when there will be none
	summer   *summer
	revoked  map[uint32]bool   // versions in next that are not in the snapshot after all
	closed   bitset            // versions of base that end between the neighbours
	expected map[[32]byte]bool // sections of a partial base that are still to come
	counting bool              // files are to be counted
	owners   ownerNumbers
	seed     [2]maphash.Seed
	added    Added

	firstVersion, lastVersion int64 // numbers given out by this transaction: (first, last]
	lastDir                   int64

	open  map[string]*openDir // by path
	held  int                 // rows in open, for evicting
	cur   *openDir            // the last one used,
	curAt string              // and its path

	kept map[int64]ref // rows of the neighbours, by id; what is seen may have changed since

	seen      bitset // versions that are in the snapshot
	candidate bitset // versions of the neighbours in directories looked at
	loaded    bitset // directories whose rows are among candidate
	present   bitset // directories that came as an item
	needed    bitset // directories that something lies in
	oldDirs   int64  // directories up to this number were there before

	files, size int64
	links       bool // table temp.link is in use
	meta        []byte
	content     []byte
}

func newAdder(c *conn, p place, base, next *inventory) (*adder, error) {
	a := &adder{
		c: c, place: p,
		base: base, next: next, revoked: map[uint32]bool{},
		owners: ownerNumbers{c, map[owner]uint64{}},
		seed:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		open:   map[string]*openDir{}, kept: map[int64]ref{},
		// nil would be NULL, an empty content is not
		content: []byte{},
	}
	err := c.query("SELECT version, dir FROM counter", nil, func(row []driver.Value) error {
		a.firstVersion, a.lastDir = row[0].(int64), row[1].(int64)
		return nil
	})
	a.lastVersion, a.oldDirs = a.firstVersion, a.lastDir
	if err == nil {
		a.summer, err = newSummer(c)
	}
	return a, err
}

func (a *adder) run(ctx context.Context, scan func(known []snapshot.Section) snapshot.Scanner) error {
	var known []snapshot.Section
	if a.base != nil {
		known = a.base.known()
	}
	s := scan(known)
	defer s.Close()
	if err := a.useBase(s); err != nil {
		return err
	}
	for count := 0; s.Next(); {
		files, size := a.files, a.size
		if s.Known() {
			if err := a.knownSection(s.Section()); err != nil {
				return err
			}
			continue
		}
		for s.NextItem() {
			if count++; count%256 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if leapt, err := a.leap(s); leapt || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			if err := a.scanned(s); err != nil {
				return err
			}
		}
		a.endSection(inventorySection{Section: s.Section(), files: a.files - files, size: a.size - size})
	}
	if err := errors.Join(s.Err(), ctx.Err()); err != nil {
		return err
	}
	return a.finish(ctx)
}

// item takes in one item of the stream and gives the version that it alone
// stands for, if there is one.
func (a *adder) item(it *snapshot.Item) (version int64, err error) {
	path := it.Path
	if path == "." {
		path = ""
	}
	if why := badPath(path); why != "" {
		a.skip(path, why)
		return 0, nil
	}
	if it.Mode&modeType == 0 {
		a.skip(path, "no file type")
		return 0, nil
	}
	a.count(it)
	if it.LinkTo != "" && it.Mode&modeType != modeDir {
		return 0, a.holdLink(path, it)
	}
	e := it.Entry
	e.LinkID, e.Nlink = 0, 1
	return a.entry(path, &e, it.Content)
}

func (a *adder) count(it *snapshot.Item) {
	if it.Mode&modeType == modeRegular {
		a.files++
		a.size += it.Size
	}
}

// entry puts one finished entry into the snapshot.
func (a *adder) entry(path string, e *snapshot.Entry, extents []snapshot.Extent) (version int64, err error) {
	owner, err := a.owners.number(owner{e.UID, e.GID, e.User, e.Group})
	if err != nil {
		return 0, err
	}
	a.meta = appendMeta(a.meta[:0], e, owner)
	a.content = appendContent(a.content[:0], extents)
	return a.put(path, e.Mode&modeType == modeDir, a.meta, a.content)
}

// put finds or makes the version for a packed entry. It is 0 when the entry
// was left out.
func (a *adder) put(path string, isDir bool, meta, content []byte) (version int64, err error) {
	parent, name := cutLast(path)
	dir, err := a.dirOf(path, parent)
	if err != nil {
		return 0, err
	}
	ref, err := a.match(dir, name, meta, content)
	if err != nil {
		return 0, err
	}
	if ref.id != 0 {
		if has, err := a.has(ref.id, ref.until); err != nil {
			return 0, err
		} else if has {
			a.skip(path, "twice in the archive")
			return 0, nil
		}
		a.seen.set(ref.id)
		a.added.Items++
		if ref.child != 0 {
			a.present.set(ref.child)
			if a.open[path] == nil {
				a.remember(path, a.newDir(ref.child))
			}
		}
		return ref.id, a.stretch(ref)
	}
	var child int64
	if isDir {
		d, err := a.dir(path)
		if err != nil {
			return 0, err
		}
		child = d.id
		a.present.set(child)
	}
	return a.insert(dir.id, name, child, meta, content, path)
}

// insert makes a row that holds in this snapshot alone, open where it has no
// neighbour.
func (a *adder) insert(dir int64, name string, child int64, meta, content []byte, path string) (version int64, err error) {
	since, until := a.key, a.key
	if a.before == 0 {
		since = 0
	}
	if a.after == 0 {
		until = 0
	}
	a.lastVersion++
	insert := func() (int64, error) {
		return a.c.exec("INSERT INTO version (id, dir, name, since, until, child, meta, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dir, name, since, until) DO NOTHING",
			a.lastVersion, dir, []byte(name), since, until, child, meta, content)
	}
	n, err := insert()
	if err != nil {
		return 0, err
	}
	if n == 0 { // the path is there already; a directory must win, things may lie in it
		a.skip(path, "twice in the archive")
		if child == 0 {
			return 0, nil
		}
		lost, ok, err := a.c.integer("SELECT id FROM version WHERE dir = ? AND name = ? AND since = ? AND until = ? AND child = 0 AND id > ?",
			dir, []byte(name), since, until, a.firstVersion)
		if err != nil || !ok {
			return 0, err
		}
		if err := a.remove(lost); err != nil {
			return 0, err
		}
		if _, err := insert(); err != nil {
			return 0, err
		}
	}
	a.added.Items++
	a.added.NewVersions++
	return a.lastVersion, nil
}

// remove deletes a row that this transaction made.
func (a *adder) remove(version int64) error {
	a.revoke(version)
	a.added.Items--
	a.added.NewVersions--
	_, err := a.c.exec("DELETE FROM version WHERE id = ?", version)
	return err
}

// stretch makes a row of one neighbour include the snapshot. A row of both, or
// one open towards the snapshot, does so already.
func (a *adder) stretch(r ref) (err error) {
	switch {
	case a.before == 0 || a.after == 0:
	case r.until == a.before:
		_, err = a.c.exec("UPDATE version SET until = ? WHERE id = ?", a.key, r.id)
	case r.since == a.after:
		_, err = a.c.exec("UPDATE version SET since = ? WHERE id = ?", a.key, r.id)
	}
	return err
}

func (a *adder) skip(path, why string) {
	a.added.SkippedAll++
	if len(a.added.Skipped) < maxSkipped {
		if len(path) > 200 {
			path = path[:200]
		}
		a.added.Skipped = append(a.added.Skipped, fmt.Sprintf("%q: %s", path, why))
	}
}

// close frees what the transaction does not.
func (a *adder) close() {
	if a.links {
		// Fails only where the connection is unusable anyway.
		_ = a.c.script("DROP TABLE IF EXISTS temp.link")
	}
}

const (
	modeType    = 0o170000
	modeDir     = 0o040000
	modeRegular = 0o100000

	maxName = 255
	maxPath = 32 << 10
)

// badPath tells why a path cannot be a place in a tree; "" when it can.
func badPath(path string) string {
	switch {
	case path == "":
		return ""
	case path[0] == '/':
		return "absolute path"
	case len(path) > maxPath:
		return "path too long"
	case strings.IndexByte(path, 0) >= 0:
		return "NUL in path"
	}
	for elem := range strings.SplitSeq(path, "/") {
		switch {
		case elem == "":
			return "empty name in path"
		case elem == "." || elem == "..":
			return "relative name in path"
		case len(elem) > maxName:
			return "name too long"
		}
	}
	return ""
}

// cutLast splits a path into its directory and its last name.
func cutLast(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

// errNoTree says that a directory is not connected to its chain.
var errNoTree = errors.New("directory row missing")
