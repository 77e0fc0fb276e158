package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/s4-storage/s4/snapshot"
)

// ErrNotIndexed is the answer to questions about the tree of a snapshot that
// is known but not yet added.
var ErrNotIndexed = errors.New("snapshot is not indexed yet")

const (
	entryColumns = "v.id, v.name, v.child, v.meta"
	// atKey is NULL, and nothing is found, unless the snapshot ?1 is indexed.
	atKey   = "(SELECT key FROM snapshot WHERE num = ?1 AND indexed)"
	validAt = "v.since <= " + atKey + " AND (v.until = 0 OR v.until >= " + atKey + ")"

	// inSnapshot are the columns of an entry of snapshot ?1, which tell of a
	// directory how many directories lie in it.
	inSnapshot = entryColumns + ", iif(v.child > 0, (SELECT count(*) FROM version d INDEXED BY version_child WHERE d.dir = v.child AND d.child > 0 AND d.since <= " +
		atKey + " AND (d.until = 0 OR d.until >= " + atKey + ")), 0)"

	rootSQL = "SELECT " + inSnapshot + " FROM version v WHERE v.dir = -(SELECT chain FROM snapshot WHERE num = ?1) AND v.name = x'' AND " +
		validAt + " ORDER BY v.since DESC LIMIT 1"
	// CAST hides a parameter from the query planner. When that has looked at
	// one, sqlite parses the whole statement anew for each value.
	lookupSQL = "SELECT " + inSnapshot + " FROM version v WHERE v.dir = CAST(?2 AS INTEGER) AND v.name = CAST(?3 AS BLOB) AND " +
		validAt + " ORDER BY v.since DESC LIMIT 1"
	listSQL = "SELECT " + inSnapshot + " FROM version v WHERE v.dir = CAST(?2 AS INTEGER) AND v.name > CAST(?3 AS BLOB) AND " +
		validAt + " ORDER BY v.name LIMIT ?4"
	statSQL = "SELECT " + inSnapshot + " FROM version v WHERE v.id = ?2 AND " + validAt
	// The same path as a version has that is not, or no more, in the snapshot.
	siblingSQL = "SELECT " + inSnapshot + " FROM version o JOIN version v ON v.dir = o.dir AND v.name = o.name WHERE o.id = ?2 AND " + validAt
)

// scanInSnapshot makes an entry of a row of inSnapshot.
func (x *Index) scanInSnapshot(c *conn, row []driver.Value) (snapshot.Entry, error) {
	e, err := x.scan(c, row)
	e.Subdirs = uint32(row[4].(int64))
	return e, err
}

// scan makes an entry of a row of entryColumns.
func (x *Index) scan(c *conn, row []driver.Value) (e snapshot.Entry, err error) {
	e.Version = row[0].(int64)
	e.Name = text(row[1])
	e.Dir = row[2].(int64)
	meta, _ := row[3].([]byte)
	id, err := decodeMeta(meta, &e)
	if err != nil {
		return e, fmt.Errorf("version %d: %w", e.Version, err)
	}
	o, err := x.ownerOf(c, id)
	e.UID, e.GID, e.User, e.Group = o.uid, o.gid, o.user, o.group
	return e, err
}

// one gives the entry that the query finds in snapshot num.
func (x *Index) one(ctx context.Context, num int64, query string, args ...driver.Value) (e snapshot.Entry, err error) {
	err = x.reading(ctx, func(c *conn) error {
		found := false
		err := c.query(query, append([]driver.Value{num}, args...), func(row []driver.Value) (err error) {
			found = true
			e, err = x.scanInSnapshot(c, row)
			return err
		})
		if err == nil && !found {
			err = absent(c, num)
		}
		return err
	})
	return e, err
}

// absent tells why nothing was found in snapshot num; it never gives nil.
func absent(c *conn, num int64) error {
	if err := present(c, num); err != nil {
		return err
	}
	return fs.ErrNotExist
}

// present gives an error unless snapshot num is there and indexed.
func present(c *conn, num int64) error {
	indexed, ok, err := c.integer("SELECT indexed FROM snapshot WHERE num = ?", num)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("snapshot is gone: %w", fs.ErrNotExist)
	case indexed == 0:
		return ErrNotIndexed
	}
	return nil
}

// Root gives the root of a snapshot's tree.
func (x *Index) Root(ctx context.Context, num int64) (snapshot.Entry, error) {
	e, err := x.one(ctx, num, rootSQL)
	if err != nil {
		return e, fmt.Errorf("root of snapshot %d: %w", num, err)
	}
	return e, nil
}

// Lookup finds a name in a directory, given by its [snapshot.Entry.Dir]. A
// missing one is fs.ErrNotExist.
func (x *Index) Lookup(ctx context.Context, num, dir int64, name string) (snapshot.Entry, error) {
	if name == "" {
		return snapshot.Entry{}, fmt.Errorf("look up an empty name: %w", fs.ErrNotExist)
	}
	e, err := x.one(ctx, num, lookupSQL, dir, []byte(name))
	if err != nil {
		return e, fmt.Errorf("look up %q in snapshot %d: %w", name, num, err)
	}
	return e, nil
}

// List gives at most limit entries of a directory, bytewise by name, that come
// after the given name.
func (x *Index) List(ctx context.Context, num, dir int64, after string, limit int) ([]snapshot.Entry, error) {
	entries := make([]snapshot.Entry, 0, min(limit, 64))
	err := x.reading(ctx, func(c *conn) error {
		err := c.query(listSQL, []driver.Value{num, dir, []byte(after), int64(limit)}, func(row []driver.Value) error {
			e, err := x.scanInSnapshot(c, row)
			entries = append(entries, e)
			return err
		})
		if err == nil && len(entries) < limit {
			// A snapshot deleted between two pages must not look like a
			// directory that ends here.
			err = present(c, num)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list directory %d in snapshot %d: %w", dir, num, err)
	}
	return entries, nil
}

// Stat gives the entry of a version that is, or once was, in the snapshot. A
// number from before the snapshot's neighbours came or went is understood; the
// entry then has the number of today.
func (x *Index) Stat(ctx context.Context, num, version int64) (snapshot.Entry, error) {
	e, err := x.one(ctx, num, statSQL, version)
	if errors.Is(err, fs.ErrNotExist) {
		e, err = x.one(ctx, num, siblingSQL, version)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if target, e2 := x.movedTo(ctx, version); e2 == nil && target != 0 {
			return x.Stat(ctx, num, target)
		}
	}
	if err != nil {
		return e, fmt.Errorf("stat version %d in snapshot %d: %w", version, num, err)
	}
	return e, nil
}

// movedTo gives the number of the row that a version was joined with, or 0.
func (x *Index) movedTo(ctx context.Context, version int64) (target int64, err error) {
	err = x.reading(ctx, func(c *conn) (err error) {
		target, _, err = c.integer("SELECT target FROM moved WHERE id = ?", version)
		return err
	})
	return target, err
}

// Find walks to a path. Symbolic links are not followed.
func (x *Index) Find(ctx context.Context, num int64, path string) (snapshot.Entry, error) {
	e, err := x.Root(ctx, num)
	if err != nil || path == "" {
		return e, err
	}
	for name := range strings.SplitSeq(path, "/") {
		if e.Dir == 0 {
			return e, fmt.Errorf("find %q in snapshot %d: %w", path, num, fs.ErrNotExist)
		}
		e, err = x.Lookup(ctx, num, e.Dir, name)
		if err != nil {
			return e, fmt.Errorf("find %q: %w", path, err)
		}
	}
	return e, nil
}

// Content gives a regular file's extents; none for an empty file and for all
// that is no file.
func (x *Index) Content(ctx context.Context, version int64) (extents []snapshot.Extent, err error) {
	found := false
	err = x.reading(ctx, func(c *conn) error {
		return c.query("SELECT content FROM version WHERE id = ?", []driver.Value{version}, func(row []driver.Value) (err error) {
			found = true
			b, _ := row[0].([]byte)
			extents, err = decodeContent(b)
			return err
		})
	})
	if err == nil && !found {
		target, e := x.movedTo(ctx, version)
		switch {
		case e != nil:
			err = e
		case target != 0:
			return x.Content(ctx, target)
		default:
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		return nil, fmt.Errorf("content of version %d: %w", version, err)
	}
	return extents, nil
}

// Path gives the path of a version.
func (x *Index) Path(ctx context.Context, version int64) (path string, err error) {
	err = x.consistently(ctx, func(c *conn) error {
		var dir int64
		var name string
		err := c.query("SELECT dir, name FROM version WHERE id = ?", []driver.Value{version}, func(row []driver.Value) error {
			dir, name = row[0].(int64), text(row[1])
			return nil
		})
		switch {
		case err != nil:
			return err
		case dir == 0:
			return fs.ErrNotExist
		case dir < 0:
			return nil
		}
		path, err = dirPath(c, dir)
		path = joinPath(path, name)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("path of version %d: %w", version, err)
	}
	return path, nil
}
