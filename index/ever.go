package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"

	"github.com/s4-storage/s4/snapshot"
)

// Ever gives at most limit names, bytewise after the given one, that the
// directory at path holds in some indexed snapshot of the chain of snapshot
// num. A path that never was a directory is fs.ErrNotExist.
func (x *Index) Ever(ctx context.Context, num int64, path, after string, limit int) ([]snapshot.Ever, error) {
	var all []snapshot.Ever
	err := x.everIn(ctx, num, path+"/x", func(c *conn, dir int64, _ string) error {
		more, err := x.scanEver(c, limit, "v.name > ? ORDER BY v.name, v.since", dir, after)
		all = more
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("what was in %q: %w", path, err)
	}
	return all, nil
}

// EverAt tells what was at a path in the chain of snapshot num.
func (x *Index) EverAt(ctx context.Context, num int64, path string) (e snapshot.Ever, err error) {
	err = x.everIn(ctx, num, path, func(c *conn, dir int64, name string) error {
		all, err := x.scanEver(c, 1, "v.name = ? ORDER BY v.since", dir, name)
		if err == nil && len(all) == 0 {
			err = fs.ErrNotExist
		}
		if err == nil {
			e = all[0]
		}
		return err
	})
	if err != nil {
		return e, fmt.Errorf("what was at %q: %w", path, err)
	}
	return e, nil
}

// everIn finds the directory that a path lies in.
func (x *Index) everIn(ctx context.Context, num int64, path string, f func(c *conn, dir int64, name string) error) error {
	return x.consistently(ctx, func(c *conn) error {
		chain, ok, err := c.integer("SELECT chain FROM snapshot WHERE num = ?", num)
		if err != nil {
			return err
		}
		if !ok {
			return absent(c, num)
		}
		if path != "" && path[0] == '/' {
			path = path[1:] // of the root
		}
		dir, name, ok, err := placeOfPath(c, chain, path)
		if err == nil && !ok {
			err = fs.ErrNotExist
		}
		if err != nil {
			return err
		}
		return f(c, dir, name)
	})
}

// scanEver sums up the versions of each name, which come one after the other.
func (x *Index) scanEver(c *conn, limit int, which string, dir int64, name string) (all []snapshot.Ever, err error) {
	err = c.query("SELECT "+entryColumns+" FROM version v WHERE v.dir = ? AND "+which, []driver.Value{dir, []byte(name)}, func(row []driver.Value) error {
		e, err := x.scan(c, row)
		if err != nil {
			return err
		}
		n := len(all)
		if n > 0 && all[n-1].Name == e.Name {
			all[n-1] = Join(all[n-1], snapshot.Ever{Entry: e, Perm: e.Mode & 0o7777, OneOwner: true})
			return nil
		}
		if n == limit {
			return errFound
		}
		all = append(all, snapshot.Ever{Entry: e, Perm: e.Mode & 0o7777, OneOwner: true})
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return all, err
}

// Join makes one of two, whose newest entry is b's. A path that once was a
// directory counts as one, so that what lay in it is found.
func Join(a, b snapshot.Ever) snapshot.Ever {
	b.Perm &= a.Perm
	b.OneOwner = b.OneOwner && a.OneOwner && a.UID == b.UID && a.GID == b.GID
	if a.Dir != 0 && b.Dir == 0 {
		perm, one := b.Perm, b.OneOwner
		b.Entry = a.Entry
		b.Perm, b.OneOwner = perm, one
	}
	return b
}

// DirPath gives the path of a directory, by its number.
func (x *Index) DirPath(ctx context.Context, dir int64) (path string, err error) {
	err = x.reading(ctx, func(c *conn) error {
		path, err = dirPath(c, dir)
		if errors.Is(err, errNoTree) {
			err = fs.ErrNotExist
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("directory %d: %w", dir, err)
	}
	return path, nil
}
