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
		return a.put(text(row[1]), false, appendMeta(nil, &e, owner), content)
	})
}
