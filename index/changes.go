package index

import (
	"bytes"
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/s4-storage/s4/snapshot"
)

// Change is a path that differs between two snapshots. Old is nil where the
// second has it new, New where it lacks it. A path that became another kind of
// thing has both.
type Change struct {
	Path     string
	Old, New *snapshot.Entry
}

// maxClosed is how many changed rows are collected before a walk over both
// trees, which needs no memory, is the better way.
const maxClosed = 100_000

// Changes tells how the tree of snapshot b differs from that of a, in metadata
// or content, in the order of [Index.Walk]. Within one chain the work is
// proportional to what changed. Between sources [snapshot.Alike] decides, since
// each names content in its own way.
func (x *Index) Changes(ctx context.Context, a, b int64) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if a == b {
			return
		}
		err := x.changes(ctx, a, b, func(c Change) bool { return yield(c, nil) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(Change{}, fmt.Errorf("changes from snapshot %d to %d: %w", a, b, err))
		}
	}
}

// errStopped ends a scan whose consumer wants no more.
var errStopped = errors.New("stopped")

func (x *Index) changes(ctx context.Context, a, b int64, yield func(Change) bool) error {
	infoA, err := x.Snapshot(ctx, a)
	if err != nil {
		return err
	}
	infoB, err := x.Snapshot(ctx, b)
	if err != nil {
		return err
	}
	if !infoA.Indexed || !infoB.Indexed {
		return ErrNotIndexed
	}
	if infoA.Source == infoB.Source && infoA.Series == infoB.Series {
		closed, ok, err := x.closedBetween(ctx, a, b)
		if err != nil {
			return err
		}
		if ok {
			return x.yieldClosed(ctx, closed, yield)
		}
	}
	m := merger{x: x, a: a, b: b, oneSource: infoA.Source == infoB.Source, yield: yield}
	return m.run(ctx)
}

// closedPair is a path with the numbers of its versions in a and in b, 0 for
// none.
type closedPair struct {
	path     string
	old, new int64
}

// closedBetween finds the rows of a's and b's chain that end between them. ok
// is false when there are more than maxClosed.
func (x *Index) closedBetween(ctx context.Context, a, b int64) (pairs []closedPair, ok bool, err error) {
	type place struct {
		dir  int64
		name string
	}
	found := map[place]*closedPair{}
	err = x.consistently(ctx, func(c *conn) error {
		var keyA, keyB int64
		for num, key := range map[int64]*int64{a: &keyA, b: &keyB} {
			if *key, ok, err = c.integer("SELECT key FROM snapshot WHERE num = ?", num); err != nil {
				return err
			}
			if !ok {
				return absent(c, num)
			}
		}
		back := keyA > keyB
		if back {
			keyA, keyB = keyB, keyA
		}
		const between = `SELECT v.id, v.dir, v.name FROM snapshot s CROSS JOIN version v
			WHERE s.chain = (SELECT chain FROM snapshot WHERE num = ?1) AND s.indexed AND s.key BETWEEN ?2 AND ?3 `
		for _, side := range []struct {
			query string
			old   bool
		}{
			{between + "AND s.key < ?3 AND v.until = s.key AND v.until > 0 AND v.since <= ?2", true},
			{between + "AND s.key > ?2 AND v.since = s.key AND v.since > 0 AND (v.until = 0 OR v.until >= ?3)", false},
		} {
			err := c.query(side.query, []driver.Value{a, keyA, keyB}, func(row []driver.Value) error {
				if len(found) > maxClosed {
					return errStopped
				}
				at := place{row[1].(int64), text(row[2])}
				p := found[at]
				if p == nil {
					p = &closedPair{}
					found[at] = p
				}
				if side.old != back {
					p.old = row[0].(int64)
				} else {
					p.new = row[0].(int64)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		dirs := map[int64]string{}
		for at, p := range found {
			if err := ctx.Err(); err != nil {
				return err
			}
			if at.dir < 0 { // the root itself
				pairs = append(pairs, *p)
				continue
			}
			dir, known := dirs[at.dir]
			if !known {
				var err error
				if dir, err = dirPath(c, at.dir); err != nil {
					return err
				}
				dirs[at.dir] = dir
			}
			p.path = joinPath(dir, at.name)
			pairs = append(pairs, *p)
		}
		return nil
	})
	if errors.Is(err, errStopped) {
		return nil, false, nil
	}
	slices.SortFunc(pairs, func(a, b closedPair) int { return comparePaths(a.path, b.path) })
	return pairs, err == nil, err
}

// yieldClosed reads the versions and leaves out what changed and changed back.
func (x *Index) yieldClosed(ctx context.Context, pairs []closedPair, yield func(Change) bool) error {
	const page = 256
	for len(pairs) > 0 {
		var out []Change
		n := min(page, len(pairs))
		err := x.reading(ctx, func(c *conn) error {
			for _, p := range pairs[:n] {
				old, err := x.rowOf(c, p.old)
				if err != nil {
					return err
				}
				now, err := x.rowOf(c, p.new)
				if err != nil {
					return err
				}
				if old == nil && now == nil || old != nil && now != nil && old.equal(now) {
					continue
				}
				out = append(out, Change{p.path, old.entryOrNil(), now.entryOrNil()})
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, c := range out {
			if !yield(c) {
				return errStopped
			}
		}
		pairs = pairs[n:]
	}
	return nil
}

// versionRow is an entry with its bytes as they are stored, to compare by.
type versionRow struct {
	entry         snapshot.Entry
	meta, content []byte
}

func (r *versionRow) equal(o *versionRow) bool {
	return bytes.Equal(r.meta, o.meta) && bytes.Equal(r.content, o.content)
}

func (r *versionRow) entryOrNil() *snapshot.Entry {
	if r == nil {
		return nil
	}
	return &r.entry
}

// rowOf reads one version; nil for number 0 and for one that is gone.
func (x *Index) rowOf(c *conn, id int64) (r *versionRow, err error) {
	if id == 0 {
		return nil, nil
	}
	err = c.query("SELECT "+entryColumns+", v.content FROM version v WHERE v.id = ?", []driver.Value{id}, func(row []driver.Value) error {
		e, err := x.scan(c, row)
		meta, _ := row[3].([]byte)
		content, _ := row[4].([]byte)
		r = &versionRow{e, meta, content}
		return err
	})
	return r, err
}

// comparePaths orders paths as a walk meets them: by names, parents first.
func comparePaths(a, b string) int {
	for {
		x, restA, moreA := strings.Cut(a, "/")
		y, restB, moreB := strings.Cut(b, "/")
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
		if !moreA || !moreB {
			switch {
			case moreB:
				return -1
			case moreA:
				return 1
			}
			return 0
		}
		a, b = restA, restB
	}
}
