package index

import (
	"bytes"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"strings"
)

// openDir is a directory that items are being put into, with the rows that
// it has in the neighbouring snapshots.
type openDir struct {
	id     int64
	asked  int // look-ups so far
	tryAt  int // and how many it takes until all rows are loaded
	loaded bool
	rows   map[print]ref // nil when there are none, or too many to hold:
	wide   bool          // then each item is looked up by itself
}

// print stands for a version's name, metadata and content. It is keyed by
// random seeds, so that nobody can make two that collide.
type print [2]uint64

// ref is a row of a neighbouring snapshot.
type ref struct{ id, child, since, until int64 }

const (
	maxDirRows  = 50_000  // wider directories are not held
	maxHeldRows = 200_000 // in all
	dirCost     = 8       // what an open directory counts beside its rows
	maxKeptRows = 20_000  // some 100 bytes each
)

// dirOf gives the directory that path lies in; the root lies in the chain's
// pseudo-directory.
func (a *adder) dirOf(path, parent string) (*openDir, error) {
	if path == "" {
		if d := a.open["/"]; d != nil {
			return d, nil
		}
		return a.remember("/", a.newDir(-a.chain)), nil
	}
	if a.cur != nil && a.curAt == parent {
		return a.cur, nil
	}
	d, err := a.dir(parent)
	if err != nil {
		return nil, err
	}
	a.needed.set(d.id)
	a.cur, a.curAt = d, strings.Clone(parent)
	return d, nil
}

// dir gives the directory with that path and makes it where the chain never
// had one. Its parents are then needed too.
func (a *adder) dir(path string) (*openDir, error) {
	if d := a.open[path]; d != nil {
		return d, nil
	}
	parentID, name := -a.chain, ""
	if path != "" {
		parent, last := cutLast(path)
		d, err := a.dir(parent)
		if err != nil {
			return nil, err
		}
		a.needed.set(d.id)
		parentID, name = d.id, last
	}
	id, err := a.findDir(parentID, name)
	if err != nil {
		return nil, err
	}
	if id == 0 {
		a.lastDir++
		id = a.lastDir
		if _, err := a.c.exec("INSERT INTO dir (id, parent, name) VALUES (?, ?, ?)", id, parentID, []byte(name)); err != nil {
			return nil, err
		}
	}
	return a.remember(path, a.newDir(id)), nil
}

// findDir gives the number of a directory, 0 when the chain never had it. On
// the way it sees whether an item for it was taken in as the neighbour's.
func (a *adder) findDir(parent int64, name string) (id int64, err error) {
	if a.base == nil {
		id, _, err = a.c.integer("SELECT id FROM dir WHERE parent = ? AND name = ?", parent, []byte(name))
		return id, err
	}
	// No join: sqlite would prepare that anew for every look-up.
	err = a.c.query(`SELECT id, (SELECT id FROM version
			WHERE dir = ?1 AND name = ?2 AND since <= ?3 AND (until = 0 OR until >= ?3) AND child > 0)
		FROM dir WHERE parent = ?1 AND name = ?2`, []driver.Value{parent, []byte(name), a.base.key}, func(row []driver.Value) error {
		id = row[0].(int64)
		if version, ok := row[1].(int64); ok && (a.seen.has(version) || a.implied(version, 0)) {
			a.present.set(id)
		}
		return nil
	})
	return id, err
}

func (a *adder) newDir(id int64) *openDir {
	d := &openDir{id: id}
	if a.base != nil {
		d.tryAt = 8
	}
	return d
}

// remember keeps an open directory. Archives come depth first, so when too
// much is held all of it may go: what is needed again is read again, and
// which rows were seen is kept elsewhere.
func (a *adder) remember(path string, d *openDir) *openDir {
	if a.held > maxHeldRows {
		clear(a.open)
		a.held = 0
	}
	a.held += dirCost + len(d.rows)
	a.open[strings.Clone(path)] = d
	return d
}

// match finds the row of a neighbouring snapshot that is equal to an item; its
// id is 0 when there is none.
func (a *adder) match(d *openDir, name string, meta, content []byte) (ref, error) {
	if a.alone() || d.id > a.oldDirs {
		return ref{}, nil
	}
	d.asked++
	if !d.loaded && d.asked > d.tryAt {
		if err := a.load(d); err != nil {
			return ref{}, err
		}
	}
	if d.loaded && !d.wide {
		return d.rows[a.print([]byte(name), meta, content)], nil
	}
	return a.lookUp(d.id, name, meta, content)
}

// lookUp is match by a query of its own. Rows that are not equal are kept for
// when they are going to be cut off.
func (a *adder) lookUp(dir int64, name string, meta, content []byte) (r ref, err error) {
	earlier, later := a.before, max(a.before, a.after)
	if earlier == 0 {
		earlier = later
	}
	err = a.c.query(`SELECT id, child, since, until, meta, content FROM version
		WHERE dir = ? AND name = ? AND since <= ? AND (until = 0 OR until >= ?)`,
		[]driver.Value{dir, []byte(name), later, earlier}, func(row []driver.Value) error {
			switch c := (ref{row[0].(int64), row[1].(int64), row[2].(int64), row[3].(int64)}); {
			case !a.neighbour(c.since, c.until):
			case bytes.Equal(row[4].([]byte), meta) && bytes.Equal(row[5].([]byte), content):
				r = c
			default:
				a.keep(c)
			}
			return nil
		})
	return r, err
}

// keep remembers a row, up to a bound.
func (a *adder) keep(r ref) {
	if len(a.kept) < maxKeptRows {
		a.kept[r.id] = r
	}
}

// row gives a row that is not in the snapshot, from memory if it is kept.
func (a *adder) row(id int64) (r ref, err error) {
	if r, ok := a.kept[id]; ok {
		return r, nil
	}
	err = a.c.query("SELECT child, since, until FROM version WHERE id = ?", []driver.Value{id}, func(row []driver.Value) error {
		r = ref{id, row[0].(int64), row[1].(int64), row[2].(int64)}
		return nil
	})
	return r, err
}

// neighbour tells whether a row is in one of the snapshots beside this one.
// Rows that this transaction stretched are still so; those it made are not.
func (a *adder) neighbour(since, until int64) bool {
	in := func(key int64) bool { return key != 0 && since <= key && (until == 0 || until >= key) }
	return in(a.before) || in(a.after)
}

// load reads a directory's rows in the neighbouring snapshots. With a known
// inventory few of them are asked for, so that it gives up where single
// look-ups are cheaper.
func (a *adder) load(d *openDir) error {
	d.loaded = true
	limit := maxDirRows
	if a.base != nil {
		limit = min(limit, 16*d.asked)
	}
	slot := max(0, d.id) // the pseudo-directory's number is negative
	first := !a.loaded.has(slot)
	a.loaded.set(slot)
	rows := map[print]ref{}
	err := a.c.query(`SELECT id, child, since, until, name, meta, content FROM version
		WHERE dir = ?1 AND ((since <= ?2 AND (until = 0 OR until >= ?2)) OR (since <= ?3 AND (until = 0 OR until >= ?3)))`,
		[]driver.Value{d.id, a.before, a.after}, func(row []driver.Value) error {
			r := ref{row[0].(int64), row[1].(int64), row[2].(int64), row[3].(int64)}
			if !a.neighbour(r.since, r.until) {
				return nil
			}
			if first && a.base == nil { // else they are known
				a.candidate.set(r.id)
			}
			if d.wide = d.wide || len(rows) == limit; d.wide {
				rows = nil
				if a.base != nil {
					return errFound // enough: all candidates are known
				}
				return nil
			}
			rows[a.print(row[4].([]byte), row[5].([]byte), row[6].([]byte))] = r
			return nil
		})
	if errors.Is(err, errFound) {
		d.loaded, d.wide = false, false
		d.tryAt = 4 * d.asked
		return nil
	}
	a.held += len(rows)
	d.rows = rows
	return err
}

// print mixes the lengths in, so that no two fields can be taken for others.
func (a *adder) print(name, meta, content []byte) print {
	var lengths [8]byte
	binary.LittleEndian.PutUint32(lengths[:], uint32(len(name)))
	binary.LittleEndian.PutUint32(lengths[4:], uint32(len(meta)))
	var p print
	for i := range p {
		var h maphash.Hash
		h.SetSeed(a.seed[i])
		h.Write(lengths[:])
		h.Write(name)
		h.Write(meta)
		h.Write(content)
		p[i] = h.Sum64()
	}
	return p
}
