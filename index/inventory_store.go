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
	var b []byte
	for i := range v.sections {
		s := &v.sections[i]
		if s.stored {
			continue
		}
		b = v.appendSection(b[:0], s)
		// A stream that has one object twice keeps the first.
		_, err := c.exec("INSERT INTO section (chain, object, stream) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", chain, s.Objects[0][:], b)
		if err != nil {
			return err
		}
		s.stored = true
	}
	_, err = c.exec("INSERT INTO section (chain, object, stream) VALUES (?, x'', ?)", chain, appendVersions([]byte{}, v.others))
	return err
}

// blob keeps an empty value from being taken for NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// A section is stored as numbers of its objects, 32 bytes each without the
// first, start, end, files, size, number of items, 8 bytes for each checksum,
// versions, sizes. All numbers are unsigned varints, versions are
// differences as zigzag varints.
func (v *inventory) appendSection(b []byte, s *inventorySection) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.Objects)))
	for _, id := range s.Objects[1:] {
		b = append(b, id[:]...)
	}
	for _, n := range []int64{int64(s.Start), int64(s.End), s.files, s.size, int64(s.end - s.first)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
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

// loadInventory reads what is stored of a chain into an empty inventory, and
// gives it back. What makes no sense is as if it were not there.
func loadInventory(c *conn, chain int64, v *inventory) (*inventory, error) {
	others, bad := false, false
	err := c.query("SELECT object, stream FROM section WHERE chain = ?", []driver.Value{chain}, func(row []driver.Value) error {
		object, _ := row[0].([]byte)
		stream, _ := row[1].([]byte)
		r := reader{b: stream}
		if len(object) == 0 {
			others = true
			last := uint32(0)
			for len(r.b) > 0 {
				last = r.version(last)
				v.others = append(v.others, last)
			}
		} else {
			v.parseSection(&r, object)
		}
		bad = bad || r.bad || len(r.b) > 0
		return nil
	})
	if err != nil || bad || !others {
		return nil, err
	}
	v.finish(nil)
	return v, nil
}

func (v *inventory) parseSection(r *reader, object []byte) {
	s := inventorySection{stored: true}
	n := r.uvarint()
	if n == 0 || n > uint64(len(r.b)) || len(object) != 32 {
		r.bad = true
		return
	}
	s.Objects = append(s.Objects, [32]byte(object))
	for range n - 1 {
		s.Objects = append(s.Objects, r.id())
	}
	s.Start, s.End = int(r.uvarint()), int(r.uvarint())
	s.files, s.size = int64(r.uvarint()), int64(r.uvarint())
	count := r.uvarint()
	if count > uint64(len(r.b)) || s.Start < 0 || s.End < 0 {
		r.bad = true
		return
	}
	for range count {
		v.items.sums = append(v.items.sums, r.fixed64())
	}
	last := uint32(0)
	for range count {
		last = r.version(last)
		v.items.versions = append(v.items.versions, last)
	}
	for range count {
		v.items.sizes = append(v.items.sizes, r.uint16())
	}
	v.end(s)
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
