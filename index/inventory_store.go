package index

import (
	"database/sql/driver"
	"encoding/binary"
	"math"
)

// The versions in the stored inventory of a chain's newest snapshot stay right
// without being kept so: where a row is split its number stays with the newer
// part, where two are joined the newer keeps its own.

// storeInventory replaces the stored inventory of a chain; nil removes it.
func storeInventory(c *conn, chain int64, v *inventory) error {
	key := int64(0)
	keep := map[[32]byte]bool{}
	if v != nil {
		key = v.key
		for i := range v.sections {
			if s := &v.sections[i]; s.stored {
				keep[s.Objects[0]] = true
			}
		}
	}
	if _, err := c.exec("UPDATE chain SET sections = ?2 WHERE id = ?1 AND sections <> ?2", chain, key); err != nil {
		return err
	}
	var old [][]byte
	err := c.query("SELECT object FROM section WHERE chain = ?", []driver.Value{chain}, func(row []driver.Value) error {
		object, _ := row[0].([]byte)
		if len(object) != 32 || !keep[[32]byte(object)] {
			old = append(old, object)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, object := range old {
		if _, err := c.exec("DELETE FROM section WHERE chain = ? AND object = ?", chain, blob(object)); err != nil {
			return err
		}
	}
	if v == nil {
		return nil
	}
	var head, items []byte
	for i := range v.sections {
		s := &v.sections[i]
		if s.stored {
			continue
		}
		head, items = s.appendHead(head[:0]), v.appendItems(blob(items[:0]), s)
		// A stream that has one object twice keeps the first.
		_, err := c.exec("INSERT INTO section (chain, object, head, items) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", chain, s.Objects[0][:], head, items)
		if err != nil {
			return err
		}
		s.stored = true
	}
	_, err = c.exec("INSERT INTO section (chain, object, head, items) VALUES (?, x'', x'', ?)", chain, appendVersions([]byte{}, v.others))
	return err
}

// blob keeps an empty value from being taken for NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// The head of a section is the number of its objects, 32 bytes each without the
// first, start, end, files, size, number of items, and 1 where it is whole, else
// 0. Its items are 8 bytes for each checksum, versions, sizes. All numbers are
// unsigned varints, versions are differences as zigzag varints.
func (s *inventorySection) appendHead(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.Objects)))
	for _, id := range s.Objects[1:] {
		b = append(b, id[:]...)
	}
	for _, n := range []int64{int64(s.Start), int64(s.End), s.files, s.size, int64(s.count)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	if s.whole {
		return append(b, 1)
	}
	return append(b, 0)
}

func (v *inventory) appendItems(b []byte, s *inventorySection) []byte {
	for _, sum := range v.items.sums[s.first:s.end] {
		b = binary.LittleEndian.AppendUint64(b, sum)
	}
	b = appendVersions(b, v.items.versions[s.first:s.end])
	for _, size := range v.items.sizes[s.first:s.end] {
		b = binary.AppendUvarint(b, uint64(size))
	}
	return b
}

func appendVersions(b []byte, versions []uint32) []byte {
	last := int64(0)
	for _, n := range versions {
		b = binary.AppendVarint(b, int64(n)-last)
		last = int64(n)
	}
	return b
}

// loadInventory reads what is stored of a chain into an empty inventory, without
// items where that is partial, and gives it back. What makes no sense is as if it
// were not there.
func loadInventory(c *conn, chain int64, v *inventory) (*inventory, error) {
	others, bad := false, false
	columns := "object, head, items"
	if v.partial {
		columns = "object, head, iif(object = x'', items, x'')" // which leaves the others where they are
	}
	err := c.query("SELECT "+columns+" FROM section WHERE chain = ?", []driver.Value{chain}, func(row []driver.Value) error {
		object, _ := row[0].([]byte)
		head, _ := row[1].([]byte)
		items, _ := row[2].([]byte)
		if len(object) == 0 {
			others = true
			r := reader{b: items}
			for last := uint32(0); len(r.b) > 0; {
				last = r.version(last)
				v.others = append(v.others, last)
			}
			bad = bad || r.bad
			return nil
		}
		s, ok := parseHead(object, head)
		if ok {
			v.sections = append(v.sections, s)
		}
		if ok && !v.partial {
			ok = v.parseItems(&v.sections[len(v.sections)-1], items)
		}
		bad = bad || !ok
		return nil
	})
	if err != nil || bad || !others {
		return nil, err
	}
	return v, nil
}

// load reads the items of those sections of a partial inventory that are not among
// the expected ones. It reports whether they make sense.
func (v *inventory) load(c *conn, chain int64, expected func(*inventorySection) bool) (ok bool, err error) {
	ok = true
	for i := range v.sections {
		s := &v.sections[i]
		if s.loaded || expected(s) {
			continue
		}
		err := c.query("SELECT items FROM section WHERE chain = ? AND object = ?", []driver.Value{chain, s.Objects[0][:]}, func(row []driver.Value) error {
			items, _ := row[0].([]byte)
			ok = v.parseItems(s, items)
			return nil
		})
		if err != nil || !ok || !s.loaded {
			return false, err
		}
	}
	return ok, nil
}

func parseHead(object, head []byte) (s inventorySection, ok bool) {
	r := reader{b: head}
	n := r.uvarint()
	if n == 0 || n > uint64(len(r.b)) || len(object) != 32 {
		return s, false
	}
	s.Objects = append(s.Objects, [32]byte(object))
	for range n - 1 {
		s.Objects = append(s.Objects, r.id())
	}
	s.Start, s.End = int(r.uvarint()), int(r.uvarint())
	s.files, s.size = int64(r.uvarint()), int64(r.uvarint())
	s.count = int(r.uvarint())
	whole := r.uvarint()
	s.whole, s.stored = whole == 1, true
	return s, !r.bad && len(r.b) == 0 && whole <= 1 && s.Start >= 0 && s.End >= 0 && s.count >= 0
}

// parseItems adds the items of a section to those that there are.
func (v *inventory) parseItems(s *inventorySection, items []byte) (ok bool) {
	r := reader{b: items}
	if s.count > len(items) {
		return false
	}
	s.first = v.items.len()
	for range s.count {
		v.items.sums = append(v.items.sums, r.fixed64())
	}
	last := uint32(0)
	for range s.count {
		last = r.version(last)
		v.items.versions = append(v.items.versions, last)
		s.whole = s.whole && last != 0
	}
	for range s.count {
		v.items.sizes = append(v.items.sizes, r.uint16())
	}
	s.end = v.items.len()
	s.loaded = true
	return !r.bad && len(r.b) == 0
}

// version takes the next of a list of versions.
func (r *reader) version(last uint32) uint32 {
	n := r.varint() + int64(last)
	if n < 0 || n > math.MaxUint32 {
		r.bad, r.b = true, nil
	}
	return uint32(n)
}

func (r *reader) uint16() uint16 {
	n := r.uvarint()
	if n > math.MaxUint16 {
		r.bad, r.b = true, nil
	}
	return uint16(n)
}
