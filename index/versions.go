package index

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io/fs"
	"strings"

	"github.com/s4-storage/s4/snapshot"
)

// PathVersion is one version of a path with the snapshots that it is in: from
// First to Last without a gap, as far as the chain is indexed.
type PathVersion struct {
	snapshot.Entry
	First, Last snapshot.Info
}

// Versions gives every version that a path has in the chain of snapshot num,
// oldest first. Where one ends and the next does not begin at the following
// snapshot, the path was missing. A path that never was is fs.ErrNotExist.
func (x *Index) Versions(ctx context.Context, num int64, path string) (versions []PathVersion, err error) {
	err = x.consistently(ctx, func(c *conn) error {
		chain, ok, err := c.integer("SELECT chain FROM snapshot WHERE num = ?", num)
		if err != nil {
			return err
		}
		if !ok {
			return absent(c, num)
		}
		dir, name, ok, err := placeOfPath(c, chain, path)
		if err != nil {
			return err
		}
		if !ok {
			return fs.ErrNotExist
		}
		versions, err = x.scanVersions(c, `SELECT `+entryColumns+`, v.since, v.until FROM version v
			WHERE v.dir = ? AND v.name = ? ORDER BY v.since`, num, dir, []byte(name))
		if err == nil && len(versions) == 0 {
			err = fs.ErrNotExist
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("versions of %q: %w", path, err)
	}
	return versions, nil
}

// placeOfPath gives the directory and the name of a path's versions. No
// snapshot is needed: a path's directories are the same in all of a chain.
func placeOfPath(c *conn, chain int64, path string) (dir int64, name string, ok bool, err error) {
	dir = -chain
	if path == "" {
		return dir, "", true, nil
	}
	for elem := range strings.SplitSeq(path, "/") {
		dir, ok, err = c.integer("SELECT id FROM dir WHERE parent = ? AND name = ?", dir, []byte(name))
		if err != nil || !ok {
			return 0, "", false, err
		}
		name = elem
	}
	return dir, name, true, nil
}

// Deleted gives at most limit names, bytewise after the given one, that the
// directory holds in some snapshot of the chain but not in snapshot num: the
// newest version of each.
func (x *Index) Deleted(ctx context.Context, num, dir int64, after string, limit int) (versions []PathVersion, err error) {
	err = x.consistently(ctx, func(c *conn) error {
		if err := present(c, num); err != nil {
			return err
		}
		versions, err = x.scanVersions(c, `SELECT `+entryColumns+`, v.since, v.until FROM version v
			WHERE v.dir = ?2 AND v.name > ?3
			AND NOT EXISTS (SELECT 1 FROM version w WHERE w.dir = v.dir AND w.name = v.name AND w.since > v.since)
			AND NOT EXISTS (SELECT 1 FROM version w WHERE w.dir = v.dir AND w.name = v.name
				AND w.since <= `+atKey+` AND (w.until = 0 OR w.until >= `+atKey+`))
			ORDER BY v.name LIMIT ?4`, num, num, dir, []byte(after), int64(limit))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("deleted in directory %d: %w", dir, err)
	}
	return versions, nil
}

// scanVersions reads rows of entryColumns, since and until, in the chain of
// snapshot num.
func (x *Index) scanVersions(c *conn, query string, num int64, args ...driver.Value) (versions []PathVersion, err error) {
	chain, _, err := c.integer("SELECT chain FROM snapshot WHERE num = ?", num)
	if err != nil {
		return nil, err
	}
	b, err := loadBounds(c, chain)
	if err != nil {
		return nil, err
	}
	err = c.query(query, args, func(row []driver.Value) error {
		v, err := x.scanVersion(c, b, chain, row)
		versions = append(versions, v)
		return err
	})
	return versions, err
}

// scanVersion makes a version of a row of entryColumns, since and until.
func (x *Index) scanVersion(c *conn, b *bounds, chain int64, row []driver.Value) (v PathVersion, err error) {
	if v.Entry, err = x.scan(c, row); err != nil {
		return v, err
	}
	if v.First, err = b.at(row[4].(int64), b.first[chain]); err != nil {
		return v, err
	}
	v.Last, err = b.at(row[5].(int64), b.last[chain])
	return v, err
}

// bounds are the snapshots that intervals begin and end with.
type bounds struct {
	byKey       map[int64]snapshot.Info
	first, last map[int64]snapshot.Info // by chain: what is meant by an open end
}

// loadBounds reads the indexed snapshots of a chain, or of all with 0.
func loadBounds(c *conn, chain int64) (*bounds, error) {
	b := &bounds{map[int64]snapshot.Info{}, map[int64]snapshot.Info{}, map[int64]snapshot.Info{}}
	err := c.query("SELECT "+infoColumns+" WHERE s.indexed AND (?1 = 0 OR s.chain = ?1) ORDER BY s.key", []driver.Value{chain}, func(row []driver.Value) error {
		s, key, of := scanInfo(row), row[15].(int64), row[16].(int64)
		if b.first[of].Num == 0 {
			b.first[of] = s
		}
		b.last[of], b.byKey[key] = s, s
		return nil
	})
	return b, err
}

func (b *bounds) at(key int64, open snapshot.Info) (snapshot.Info, error) {
	if key == 0 {
		return open, nil
	}
	s, ok := b.byKey[key]
	if !ok {
		return s, fmt.Errorf("snapshot at %d: %w", key, fs.ErrNotExist)
	}
	return s, nil
}
