package index

import (
	"context"
	"database/sql/driver"

	"github.com/cespare/xxhash/v2"

	"github.com/s4-storage/s4/snapshot"
)

// holdLink sets a member of a hard-link group aside until all are known. They
// wait in a temporary table, for there may be a million of them.
func (a *adder) holdLink(path string, it *snapshot.Item) error {
	if !a.links {
		err := a.c.script("DROP TABLE IF EXISTS temp.link; CREATE TEMP TABLE link (grp BLOB, path BLOB, meta BLOB, content BLOB)")
		if err != nil {
			return err
		}
		a.links = true
	}
	owner, err := a.owners.number(owner{it.UID, it.GID, it.User, it.Group})
	if err != nil {
		return err
	}
	e := it.Entry
	e.LinkID, e.Nlink = 0, 1
	_, err = a.c.exec("INSERT INTO temp.link VALUES (?, ?, ?, ?)",
		[]byte(it.LinkTo), []byte(path), appendMeta(nil, &e, owner), appendContent([]byte{}, it.Content))
	return err
}

// releaseLinks puts the members into the snapshot: with the content and size
// of the group's first member, the number of names, and the hash of the
// bytewise smallest of them, which doesn't depend on the order of items. A
// member alone is an ordinary file.
func (a *adder) releaseLinks(ctx context.Context) error {
	if !a.links {
		return nil
	}
	if err := a.adoptFirst(ctx); err != nil {
		return err
	}
	var (
		group   string
		content []byte
		size    int64
		steps   int
	)
	return a.c.query(`SELECT grp, path, meta, content, count(*) OVER g, min(path) OVER g FROM temp.link
		WINDOW g AS (PARTITION BY grp) ORDER BY grp, path <> grp, path`, nil, func(row []driver.Value) error {
		if steps++; steps%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var e snapshot.Entry
		owner, err := decodeMeta(row[2].([]byte), &e)
		if err != nil {
			return err
		}
		if g := text(row[0]); g != group || steps == 1 {
			group, content, size = g, row[3].([]byte), e.Size
		}
		e.Size = size
		if n := row[4].(int64); n > 1 {
			e.Nlink = uint32(n)
			e.LinkID = max(1, xxhash.Sum64(row[5].([]byte)))
		}
		version, err := a.put(text(row[1]), false, appendMeta(nil, &e, owner), content)
		a.other(version)
		return err
	})
}

// adoptFirst completes the groups whose first member did not say that it is
// one, as in archives of Borg 1.0: it is among the ordinary entries.
func (a *adder) adoptFirst(ctx context.Context) error {
	var groups []string
	err := a.c.query("SELECT grp FROM temp.link GROUP BY grp HAVING sum(path = grp) = 0", nil, func(row []driver.Value) error {
		groups = append(groups, text(row[0]))
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		found, err := a.adopt(path)
		if err != nil {
			return err
		}
		if !found {
			a.skip(path, "missing, but other items are hard links of it")
		}
	}
	return nil
}

func (a *adder) adopt(path string) (found bool, err error) {
	dir, name, ok, err := placeOfPath(a.c, a.chain, path)
	if err != nil || !ok {
		return false, err
	}
	type member struct {
		id, until     int64
		meta, content driver.Value
	}
	var rows []member
	err = a.c.query("SELECT id, until, meta, content FROM version WHERE dir = ? AND name = ? AND child = 0", []driver.Value{dir, []byte(name)},
		func(row []driver.Value) error {
			rows = append(rows, member{row[0].(int64), row[1].(int64), row[2], row[3]})
			return nil
		})
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		out, err := a.takeOut(r.id, r.until)
		if err != nil {
			return false, err
		}
		if !out || found {
			continue
		}
		found = true
		if _, err := a.c.exec("INSERT INTO temp.link VALUES (?, ?, ?, ?)", []byte(path), []byte(path), r.meta, r.content); err != nil {
			return false, err
		}
	}
	return found, nil
}
