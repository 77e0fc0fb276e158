package index

import (
	"database/sql/driver"
	"errors"
	"fmt"
)

// owner is who an entry belongs to, as its archive recorded it.
type owner struct {
	uid, gid    uint32
	user, group string
}

// ownerOf gives the owner with that number. Rows of table owner never change,
// so what was read once is kept.
func (x *Index) ownerOf(c *conn, id uint64) (owner, error) {
	x.ownerMu.RLock()
	o, ok := x.owners[id]
	x.ownerMu.RUnlock()
	if ok {
		return o, nil
	}
	err := c.query("SELECT uid, gid, user, grp FROM owner WHERE id = ?", []driver.Value{int64(id)}, func(row []driver.Value) error {
		o, ok = owner{uint32(row[0].(int64)), uint32(row[1].(int64)), text(row[2]), text(row[3])}, true
		return nil
	})
	if err == nil && !ok {
		err = errors.New("missing")
	}
	if err != nil {
		return o, fmt.Errorf("owner %d: %w", id, err)
	}
	x.ownerMu.Lock()
	x.owners[id] = o
	x.ownerMu.Unlock()
	return o, nil
}

// ownerNumbers gives owners their numbers within one write transaction. It is
// not shared with readers: the transaction may be rolled back.
type ownerNumbers struct {
	c     *conn
	known map[owner]uint64
}

func (n *ownerNumbers) number(o owner) (uint64, error) {
	if id, ok := n.known[o]; ok {
		return id, nil
	}
	key := []driver.Value{int64(o.uid), int64(o.gid), []byte(o.user), []byte(o.group)}
	if _, err := n.c.exec("INSERT OR IGNORE INTO owner (uid, gid, user, grp) VALUES (?, ?, ?, ?)", key...); err != nil {
		return 0, fmt.Errorf("owner: %w", err)
	}
	id, _, err := n.c.integer("SELECT id FROM owner WHERE uid = ? AND gid = ? AND user = ? AND grp = ?", key...)
	if err != nil {
		return 0, fmt.Errorf("owner: %w", err)
	}
	if len(n.known) > 10_000 { // a hostile archive must not fill the memory
		clear(n.known)
	}
	o.user, o.group = string(key[2].([]byte)), string(key[3].([]byte)) // not the caller's buffer
	n.known[o] = uint64(id)
	return uint64(id), nil
}

// text gives a BLOB or TEXT column as a string.
func text(v driver.Value) string {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case string:
		return v
	}
	return ""
}
