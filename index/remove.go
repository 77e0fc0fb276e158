package index

import (
	"database/sql/driver"
	"errors"
)

// place is where a snapshot stands in its chain, among the indexed ones.
type place struct {
	num, chain, key int64
	indexed         bool
	before, after   int64 // keys of the indexed neighbours; 0 where there is none
	filesSaid       int64 // that the source counts; 0 where it does not say
	sizeSaid        int64 // and their bytes
}

func (p place) alone() bool { return p.before == 0 && p.after == 0 }

// placeOf finds a snapshot; ok is false when it is not known.
func placeOf(c *conn, num int64) (p place, ok bool, err error) {
	err = c.query(`SELECT s.chain, s.key, s.indexed,
		coalesce((SELECT max(b.key) FROM snapshot b WHERE b.chain = s.chain AND b.key < s.key AND b.indexed), 0),
		coalesce((SELECT min(a.key) FROM snapshot a WHERE a.chain = s.chain AND a.key > s.key AND a.indexed), 0),
		s.files, s.size FROM snapshot s WHERE s.num = ?`, []driver.Value{num}, func(row []driver.Value) error {
		p = place{
			num: num, chain: row[0].(int64), key: row[1].(int64), indexed: row[2].(int64) != 0,
			before: row[3].(int64), after: row[4].(int64), filesSaid: row[5].(int64), sizeSaid: row[6].(int64),
		}
		ok = true
		return nil
	})
	return p, ok, err
}

// removeSnapshot forgets a snapshot and what only it has, and brings the rows
// that ended at it back into canonical form.
func removeSnapshot(c *conn, num int64) error {
	p, ok, err := placeOf(c, num)
	if err != nil || !ok {
		return err
	}
	if _, err := c.exec("DELETE FROM snapshot WHERE num = ?", num); err != nil {
		return err
	}
	if !p.indexed {
		return nil
	}
	if p.after == 0 {
		if err := storeInventory(c, p.chain, nil); err != nil {
			return err
		}
	}
	if p.alone() {
		return removeTree(c, -p.chain)
	}
	if err := removeOnly(c, p); err != nil {
		return err
	}
	switch {
	case p.before == 0: // what the next one began is now open
		_, err = c.exec("UPDATE version SET since = 0 WHERE since = ? AND since > 0", p.after)
		return err
	case p.after == 0: // likewise what the last one ended
		_, err = c.exec("UPDATE version SET until = 0 WHERE until = ? AND until > 0", p.before)
		return err
	}
	if _, err := c.exec("UPDATE version SET until = ? WHERE until = ? AND until > 0", p.before, p.key); err != nil {
		return err
	}
	if _, err := c.exec("UPDATE version SET since = ? WHERE since = ? AND since > 0", p.after, p.key); err != nil {
		return err
	}
	return joinEqual(c, p.before, p.after)
}

// removeOnly deletes the rows that are in no snapshot but the one at p, and
// the directories that with them are nowhere any more.
func removeOnly(c *conn, p place) error {
	// A side without neighbour is open: 0 instead of the key.
	query := "FROM version WHERE since = ?1 AND until = ?2 AND since > 0 AND until >= 0"
	since, until := p.key, p.key
	if p.after == 0 {
		until = 0
	}
	if p.before == 0 {
		since = 0
		query = "FROM version WHERE since = ?1 AND until = ?2 AND until > 0"
	}
	type contents struct{ dir, name driver.Value }
	var dirs []contents
	err := c.query("SELECT dir, name "+query+" AND child > 0", []driver.Value{since, until}, func(row []driver.Value) error {
		dirs = append(dirs, contents{row[0], row[1]})
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := c.exec("DELETE "+query, since, until); err != nil {
		return err
	}
	for _, d := range dirs {
		_, err := c.exec(`DELETE FROM dir WHERE parent = ?1 AND name = ?2 AND NOT EXISTS
			(SELECT 1 FROM version WHERE version.dir = ?1 AND version.name = ?2 AND child > 0)`, d.dir, d.name)
		if err != nil {
			return err
		}
	}
	return nil
}

// joinEqual makes one row of two where a path is the same in the neighbouring
// snapshots before and after: what differed lay between and is gone.
func joinEqual(c *conn, before, after int64) error {
	type pair struct{ old, new, since int64 }
	var pairs []pair
	err := c.query(`SELECT a.id, b.id, a.since FROM version b JOIN version a
		ON a.dir = b.dir AND a.name = b.name AND a.until = ?1 AND a.meta = b.meta AND a.content = b.content
		WHERE b.since = ?2 AND b.since > 0`, []driver.Value{before, after}, func(row []driver.Value) error {
		pairs = append(pairs, pair{row[0].(int64), row[1].(int64), row[2].(int64)})
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range pairs {
		_, e1 := c.exec("DELETE FROM version WHERE id = ?", p.old)
		_, e2 := c.exec("UPDATE version SET since = ? WHERE id = ?", p.since, p.new)
		_, e3 := c.exec("UPDATE moved SET target = ?2 WHERE target = ?1", p.old, p.new)
		_, e4 := c.exec("INSERT INTO moved (id, target) VALUES (?, ?)", p.old, p.new)
		if err := errors.Join(e1, e2, e3, e4); err != nil {
			return err
		}
	}
	return nil
}

// removeTree deletes everything below a directory, the chain's pseudo-directory
// for a whole chain.
func removeTree(c *conn, dir int64) error {
	below := `WITH RECURSIVE below(id) AS (SELECT ?1 UNION SELECT dir.id FROM dir JOIN below ON dir.parent = below.id) `
	if _, err := c.exec(below+"DELETE FROM version WHERE dir IN below", dir); err != nil {
		return err
	}
	_, err := c.exec(below+"DELETE FROM dir WHERE parent IN below", dir)
	return err
}
