package index

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"fmt"

	"github.com/s4-storage/s4/snapshot"
)

// Usage is content that came into a source with one snapshot, in the files of
// one directory without its subdirectories. Bytes count as often as the source
// stores them, once however many files hold them, and are not compressed.
type Usage struct {
	Snapshot int64  // the first indexed one that has the content
	Dir      string // path of the directory
	Added    int64  // bytes
	Only     int64  // bytes of them that no other indexed snapshot has
}

// Usage tells what each indexed snapshot of a source added, in any order. The
// work is proportional to the number of versions, and so is the memory: some
// 40 bytes for each extent.
func (x *Index) Usage(ctx context.Context, source string) (all []Usage, err error) {
	err = x.consistently(ctx, func(c *conn) error {
		u, err := newUsage(c, source)
		if err != nil {
			return err
		}
		if err := u.read(ctx); err != nil {
			return err
		}
		all, err = u.sums()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("usage of %s: %w", source, err)
	}
	return all, nil
}

// usage collects the extents of a source.
type usage struct {
	c       *conn
	nums    []int64           // of the source's indexed snapshots, oldest first
	places  map[int64]int32   // in nums, by key
	ends    map[int64]ends    // by chain
	chainOf map[int64]int64   // by directory
	extents map[uint64]extent // by the beginning of their id, which is a hash
}

// ends are the places of a chain's first and last snapshot.
type ends struct{ first, last int32 }

// extent is where an extent was: from first to last, perhaps with gaps.
type extent struct {
	first, last int32  // places
	size        uint32 // bytes
	dir         uint32 // one that has it in first
}

func newUsage(c *conn, source string) (*usage, error) {
	u := &usage{c: c, places: map[int64]int32{}, ends: map[int64]ends{}, chainOf: map[int64]int64{}, extents: map[uint64]extent{}}
	err := c.query(`SELECT s.num, s.key, s.chain FROM snapshot s JOIN chain c ON c.id = s.chain JOIN source o ON o.id = c.source
		WHERE o.name = ? AND s.indexed ORDER BY s.key`, []driver.Value{source}, func(row []driver.Value) error {
		place, chain := int32(len(u.nums)), row[2].(int64)
		u.nums = append(u.nums, row[0].(int64))
		u.places[row[1].(int64)] = place
		e, ok := u.ends[chain]
		if !ok {
			e.first = place
		}
		e.last = place
		u.ends[chain] = e
		return nil
	})
	if err != nil {
		return nil, err
	}
	for chain := range u.ends {
		err := c.query(`WITH RECURSIVE below(id) AS (SELECT id FROM dir WHERE parent = ?1 UNION ALL SELECT dir.id FROM below JOIN dir ON dir.parent = below.id)
			SELECT id FROM below`, []driver.Value{-chain}, func(row []driver.Value) error {
			u.chainOf[row[0].(int64)] = chain
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return u, nil
}

// read goes through all versions.
func (u *usage) read(ctx context.Context) error {
	steps := 0
	return u.c.query("SELECT dir, since, until, content FROM version WHERE content <> x''", nil, func(row []driver.Value) error {
		if steps++; steps%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		dir := row[0].(int64)
		chain, ok := u.chainOf[dir]
		if !ok {
			return nil // of another source
		}
		in := u.ends[chain]
		if key := row[1].(int64); key != 0 {
			in.first = u.places[key]
		}
		if key := row[2].(int64); key != 0 {
			in.last = u.places[key]
		}
		content, _ := row[3].([]byte)
		extents, err := decodeContent(content)
		for _, e := range extents {
			u.add(e, in, uint32(dir))
		}
		return err
	})
}

func (u *usage) add(e snapshot.Extent, in ends, dir uint32) {
	id := binary.LittleEndian.Uint64(e.ID[:])
	x, ok := u.extents[id]
	if !ok {
		u.extents[id] = extent{in.first, in.last, e.Size, dir}
		return
	}
	if in.first < x.first || in.first == x.first && dir < x.dir {
		x.first, x.dir = in.first, dir
	}
	x.last = max(x.last, in.last)
	u.extents[id] = x
}

// sums adds the extents up.
func (u *usage) sums() ([]Usage, error) {
	type at struct {
		place int32
		dir   uint32
	}
	sums := map[at]*Usage{}
	for _, e := range u.extents {
		s := sums[at{e.first, e.dir}]
		if s == nil {
			s = &Usage{Snapshot: u.nums[e.first]}
			sums[at{e.first, e.dir}] = s
		}
		s.Added += int64(e.size)
		if e.first == e.last {
			s.Only += int64(e.size)
		}
	}
	paths := map[uint32]string{}
	all := make([]Usage, 0, len(sums))
	for at, s := range sums {
		path, ok := paths[at.dir]
		if !ok {
			var err error
			if path, err = dirPath(u.c, int64(at.dir)); err != nil {
				return nil, err
			}
			paths[at.dir] = path
		}
		s.Dir = path
		all = append(all, *s)
	}
	return all, nil
}
