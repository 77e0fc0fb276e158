package index

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

const infoColumns = `s.num, s.indexed, s.handle, s.ident, s.parent, s.volume, s.name, s.time,
	s.host, s.user, s.message, s.files, s.size, c.name, o.name, s.key, s.chain
	FROM snapshot s JOIN chain c ON c.id = s.chain JOIN source o ON o.id = c.source`

func scanInfo(row []driver.Value) snapshot.Info {
	return snapshot.Info{
		Num: row[0].(int64), Indexed: row[1].(int64) != 0,
		Handle: text(row[2]), ID: text(row[3]), Parent: text(row[4]), Volume: text(row[5]), Name: text(row[6]),
		Time: time.Unix(0, row[7].(int64)).UTC(),
		Host: text(row[8]), User: text(row[9]), Message: text(row[10]),
		Files: row[11].(int64), Size: row[12].(int64),
		Series: text(row[13]), Source: text(row[14]),
	}
}

// Snapshots lists what is known of a source, or of all with source "", oldest
// first. Dir is not set.
func (x *Index) Snapshots(ctx context.Context, source string) ([]snapshot.Info, error) {
	var infos []snapshot.Info
	err := x.reading(ctx, func(c *conn) (err error) {
		infos, err = listSnapshots(c, source)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return infos, nil
}

func listSnapshots(c *conn, source string) (infos []snapshot.Info, err error) {
	err = c.query("SELECT "+infoColumns+" WHERE ?1 = '' OR o.name = ?1 ORDER BY s.time, s.key", []driver.Value{source}, func(row []driver.Value) error {
		infos = append(infos, scanInfo(row))
		return nil
	})
	return infos, err
}

// Snapshot describes the snapshot with that number.
func (x *Index) Snapshot(ctx context.Context, num int64) (info snapshot.Info, err error) {
	err = x.reading(ctx, func(c *conn) error {
		return c.query("SELECT "+infoColumns+" WHERE s.num = CAST(? AS INTEGER)", []driver.Value{num}, func(row []driver.Value) error {
			info = scanInfo(row)
			return nil
		})
	})
	if err == nil && info.Num == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return info, fmt.Errorf("snapshot %d: %w", num, err)
	}
	return info, nil
}

// Announce tells what the source holds now. Snapshots are matched by Handle:
// new ones become known, not yet indexed; the names and messages of known ones
// are updated; those that the source no longer holds are removed with
// everything that only they have. Source, Num and Indexed of infos are not
// looked at. Nothing is locked where there is no news.
func (x *Index) Announce(ctx context.Context, source string, infos []snapshot.Info) error {
	known, err := x.Snapshots(ctx, source)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	if n := compareNews(known, infos); n.none() {
		return nil
	}
	err = x.writing(ctx, func(c *conn) error {
		known, err := listSnapshots(c, source) // again: another process may have been first
		if err != nil {
			return err
		}
		n := compareNews(known, infos)
		if len(n.gone) > 0 {
			x.last = nil // rows may be joined
		}
		for _, s := range n.gone {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := removeSnapshot(c, s.Num); err != nil {
				return fmt.Errorf("remove %s: %w", s.Name, err)
			}
		}
		for _, s := range n.changed {
			if err := updateSnapshot(c, s); err != nil {
				return err
			}
		}
		for _, s := range n.fresh {
			if err := insertSnapshot(c, source, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return nil
}

// news is how what a source holds differs from what is known of it.
type news struct{ fresh, changed, gone []snapshot.Info }

func (n news) none() bool { return len(n.fresh)+len(n.changed)+len(n.gone) == 0 }

func compareNews(known, now []snapshot.Info) (n news) {
	byHandle := make(map[string]snapshot.Info, len(known))
	for _, s := range known {
		byHandle[s.Handle] = s
	}
	kept := make(map[string]bool, len(now))
	for _, s := range now {
		if kept[s.Handle] {
			continue
		}
		kept[s.Handle] = true
		old, ok := byHandle[s.Handle]
		switch {
		case !ok:
			n.fresh = append(n.fresh, s)
		case old.Name != s.Name || old.Message != s.Message || old.ID != identOf(s) || old.Parent != s.Parent || old.Volume != s.Volume:
			s.Num = old.Num
			n.changed = append(n.changed, s)
		}
	}
	for _, s := range known {
		if !kept[s.Handle] {
			n.gone = append(n.gone, s)
		}
	}
	slices.SortFunc(n.fresh, func(a, b snapshot.Info) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Handle, b.Handle))
	})
	return n
}

func identOf(s snapshot.Info) string { return cmp.Or(s.ID, s.Handle) }

func updateSnapshot(c *conn, s snapshot.Info) error {
	_, err := c.exec("UPDATE snapshot SET name = ?, message = ?, ident = ?, parent = ?, volume = ? WHERE num = ?",
		s.Name, s.Message, identOf(s), s.Parent, s.Volume, s.Num)
	return err
}

func insertSnapshot(c *conn, source string, s snapshot.Info) error {
	if _, err := c.exec("INSERT OR IGNORE INTO source (name) VALUES (?)", source); err != nil {
		return err
	}
	if _, err := c.exec("INSERT OR IGNORE INTO chain (source, name) SELECT id, ? FROM source WHERE name = ?", s.Series, source); err != nil {
		return err
	}
	chain, ok, err := c.integer("SELECT c.id FROM chain c JOIN source o ON o.id = c.source WHERE o.name = ? AND c.name = ?", source, s.Series)
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("chain is missing")
	}
	key := max(1, s.Time.UnixMicro())
	for {
		taken, _, err := c.integer("SELECT count(*) FROM snapshot WHERE key = ?", key)
		if err != nil {
			return err
		}
		if taken == 0 {
			break
		}
		key++
	}
	_, err = c.exec(`INSERT INTO snapshot (chain, key, handle, ident, parent, volume, name, time, host, user, message, files, size)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		chain, key, s.Handle, identOf(s), s.Parent, s.Volume, s.Name, s.Time.UnixNano(), s.Host, s.User, s.Message, s.Files, s.Size)
	return err
}
