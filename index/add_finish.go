package index

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/s4-storage/s4/snapshot"
)

// finish brings everything into canonical form after the last item.
func (a *adder) finish(ctx context.Context) error {
	if len(a.expected) > 0 {
		return errUnexpected
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"hard links", a.releaseLinks},
		{"orphans", a.orphans},
		{"parents", a.synthesise},
		{"duplicates", a.dropDuplicates},
		{"rows not seen", a.cutOff},
		{"record", a.record},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// synthesise makes the directories that something lies in but that are no
// item of the archive, and the root.
func (a *adder) synthesise(context.Context) error {
	root, err := a.dir("")
	if err != nil {
		return err
	}
	a.needed.set(root.id)
	owner, err := a.owners.number(owner{})
	if err != nil {
		return err
	}
	meta := appendMeta(nil, &snapshot.Entry{Mode: modeDir | 0o755}, owner)
	for {
		var missing []int64
		for id := range a.needed.without(&a.present) {
			missing = append(missing, id)
		}
		if len(missing) == 0 {
			return nil
		}
		for _, id := range missing { // others may turn out to be needed meanwhile
			a.present.set(id)
			if there, err := a.hasRow(id); there || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			path, err := dirPath(a.c, id)
			if err != nil {
				return err
			}
			if err := a.displace(id, path); err != nil {
				return err
			}
			version, err := a.put(path, true, meta, []byte{})
			if err != nil {
				return err
			}
			a.other(version)
		}
	}
}

// displace takes out of the snapshot what is no directory but stands where one
// must be, since something lies in it.
func (a *adder) displace(dir int64, path string) error {
	var rows []ref
	err := a.c.query(`SELECT v.id, v.until FROM version v JOIN dir d ON v.dir = d.parent AND v.name = d.name WHERE d.id = ? AND v.child = 0`,
		[]driver.Value{dir}, func(row []driver.Value) error {
			rows = append(rows, ref{id: row[0].(int64), until: row[1].(int64)})
			return nil
		})
	if err != nil {
		return err
	}
	for _, r := range rows {
		out, err := a.takeOut(r.id, r.until)
		if err != nil {
			return err
		}
		if out {
			a.skip(path, "no directory, but other items lie in it")
		}
	}
	return nil
}

// takeOut takes a row out of the snapshot again, if it is in it.
func (a *adder) takeOut(id, until int64) (out bool, err error) {
	if id > a.firstVersion {
		return true, a.remove(id)
	}
	if out, err = a.has(id, until); out {
		a.added.Items--
		err = a.unsee(id)
	}
	return out, err
}

// unsee undoes what was done when a row was seen.
func (a *adder) unsee(id int64) error {
	a.seen.clear(id)
	a.revoke(id)
	delete(a.kept, id)
	if a.before == 0 || a.after == 0 {
		return nil
	}
	if _, err := a.c.exec("UPDATE version SET until = ? WHERE id = ? AND until = ?", a.before, id, a.key); err != nil {
		return err
	}
	_, err := a.c.exec("UPDATE version SET since = ? WHERE id = ? AND since = ?", a.after, id, a.key)
	return err
}

// dropDuplicates finds paths that came twice in the archive, so that two rows
// are in the snapshot: one seen and one inserted, or one of each neighbour. A
// directory stays, else the row seen, else the older.
func (a *adder) dropDuplicates(context.Context) error {
	if a.alone() {
		return nil
	}
	type pair struct{ old, until, new, dir int64 }
	var pairs []pair
	collect := func(row []driver.Value) error {
		p := pair{row[0].(int64), row[1].(int64), row[2].(int64), row[3].(int64)}
		has, err := a.has(p.old, p.until)
		if has {
			pairs = append(pairs, p)
		}
		return err
	}
	err := a.c.query(`SELECT w.id, w.until, v.id, v.dir FROM version v CROSS JOIN version w ON w.dir = v.dir AND w.name = v.name
		WHERE v.id > ?1 AND w.id <= ?1`, []driver.Value{a.firstVersion}, collect)
	if err == nil && a.before != 0 && a.after != 0 {
		err = a.c.query(`SELECT v.id, v.until, w.id, v.dir FROM version v CROSS JOIN version w ON w.dir = v.dir AND w.name = v.name
			WHERE v.until = ?2 AND v.until > 0 AND v.id <= ?1 AND w.since = ?2 AND w.since > 0 AND w.id <= ?1 AND v.id <> w.id`,
			[]driver.Value{a.firstVersion, a.key}, collect)
	}
	if err != nil {
		return err
	}
	for _, p := range pairs {
		path, err := dirPath(a.c, p.dir)
		if err != nil {
			return err
		}
		a.skip(path, "a name in it twice in the archive")
		loser := p.new
		if _, dir, err := a.c.integer("SELECT child FROM version n WHERE id = ? AND child > 0 AND (SELECT child FROM version WHERE id = ?) = 0", p.new, p.old); err != nil {
			return err
		} else if dir {
			loser = p.old
		}
		if _, err := a.takeOut(loser, p.until); err != nil {
			return err
		}
	}
	return nil
}

// cutOff ends the rows that hold on both sides of the snapshot, or are open
// towards it, but were not seen in it. Those in directories that no item came
// for are found from the directories' own rows.
func (a *adder) cutOff(ctx context.Context) error {
	if a.alone() {
		return nil
	}
	for id := range a.present.without(&a.loaded) {
		if a.base != nil {
			break // all rows of the neighbour are candidates
		}
		if id <= a.oldDirs {
			if err := a.load(&openDir{id: id}); err != nil {
				return err
			}
		}
	}
	pending := &a.candidate
	for steps := 0; ; {
		var gone []int64 // directories that are not in the snapshot at all
		for id := range pending.without(&a.seen) {
			if steps++; steps%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			child, err := a.cutRow(id)
			if err != nil {
				return err
			}
			if child != 0 && a.base == nil && !a.present.has(child) && !a.loaded.has(child) {
				gone = append(gone, child)
			}
		}
		if len(gone) == 0 {
			return nil
		}
		a.candidate = bitset{}
		for _, id := range gone {
			if err := a.load(&openDir{id: id}); err != nil {
				return err
			}
		}
		pending = &a.candidate
	}
}

// cutRow takes the snapshot out of one row's interval.
func (a *adder) cutRow(id int64) (child int64, err error) {
	r, err := a.row(id)
	if err != nil {
		return 0, err
	}
	if r.since > a.key || (r.until != 0 && r.until < a.key) {
		return r.child, nil // ends at the neighbour as it should
	}
	switch {
	case a.after == 0:
		_, err = a.c.exec("UPDATE version SET until = ? WHERE id = ?", a.before, id)
	case a.before == 0:
		_, err = a.c.exec("UPDATE version SET since = ? WHERE id = ?", a.after, id)
	default: // the number stays with the newer part
		_, err = a.c.exec("UPDATE version SET since = ? WHERE id = ?", a.after, id)
		if err != nil {
			break
		}
		a.lastVersion++
		_, err = a.c.exec(`INSERT INTO version (id, dir, name, since, until, child, meta, content)
			SELECT ?, dir, name, ?, ?, child, meta, content FROM version WHERE id = ?`, a.lastVersion, r.since, a.before, id)
	}
	return r.child, err
}

// record marks the snapshot as indexed and keeps what was counted.
func (a *adder) record(context.Context) error {
	if _, err := a.c.exec("UPDATE counter SET version = ?, dir = ?", a.lastVersion, a.lastDir); err != nil {
		return err
	}
	if err := a.recordInventory(); err != nil {
		return err
	}
	_, err := a.c.exec(`UPDATE snapshot SET indexed = 1, files = iif(files = 0, ?, files), size = iif(size = 0, ?, size) WHERE num = ?`,
		a.files, a.size, a.num)
	return err
}

// dirPath gives the path of a directory.
func dirPath(c *conn, id int64) (string, error) {
	path := ""
	for {
		var parent int64
		var name string
		ok := false
		err := c.query("SELECT parent, name FROM dir WHERE id = ?", []driver.Value{id}, func(row []driver.Value) error {
			parent, name, ok = row[0].(int64), text(row[1]), true
			return nil
		})
		switch {
		case err != nil:
			return "", err
		case !ok:
			return "", fmt.Errorf("directory %d: %w", id, errNoTree)
		case parent < 0:
			return path, nil
		case path == "":
			path = name
		default:
			path = name + "/" + path
		}
		id = parent
	}
}
