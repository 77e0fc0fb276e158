package index

import (
	"crypto/aes"
	"crypto/cipher"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/s4-storage/s4/snapshot"
)

// inventory is what the stream of an indexed snapshot became: the version of
// each item, by the item's checksum, section by section. With it the next
// snapshot of the chain is added at the cost of what changed: a section that
// it shares is neither fetched nor parsed, an item that it shares is not
// decoded.
type inventory struct {
	key      int64 // of the snapshot
	sections []inventorySection
	sums     []uint64 // of the items, in the stream's order
	versions []uint32 // that they became; 0 for what has to be looked at again
	others   []uint32 // versions that no item stands for alone: hard links, directories without item

	byObject map[[32]byte]int // numbers of sections that are whole
	table    []uint32         // open addressing by sum: 1 + the item's number, 0 where free
	likely   int              // the item behind the one found last
}

type inventorySection struct {
	snapshot.Section
	first, end  int   // of the items
	files, size int64 // of regular files, as a snapshot counts them
	whole       bool  // no item has to be looked at again
	stored      bool  // as it is, in the chain's table
}

// maxInventory bounds the memory: 12 bytes an item, and 8 to look it up.
const maxInventory = 2_000_000

// newInventory makes one for about as many items as a neighbour has.
func newInventory(key int64, neighbour *inventory) *inventory {
	v := &inventory{key: key}
	if neighbour != nil {
		n := len(neighbour.sums)
		v.sums, v.versions = make([]uint64, 0, n+n/64), make([]uint32, 0, n+n/64)
	}
	return v
}

// add notes an item of the section that is being read.
func (v *inventory) add(sum uint64, version int64) {
	v.sums = append(v.sums, sum)
	v.versions = append(v.versions, uint32(version))
}

// end completes the section that is being read.
func (v *inventory) end(s inventorySection) {
	s.first = 0
	if n := len(v.sections); n > 0 {
		s.first = v.sections[n-1].end
	}
	s.end = len(v.sums)
	v.sections = append(v.sections, s)
}

// finish leaves out versions that turned out not to be in the snapshot.
func (v *inventory) finish(revoked map[uint32]bool) {
	for i := range v.sections {
		s := &v.sections[i]
		s.whole = true
		for n := s.first; n < s.end; n++ {
			if revoked[v.versions[n]] {
				v.versions[n] = 0
				s.stored = false
			}
			s.whole = s.whole && v.versions[n] != 0
		}
	}
}

// prepare makes the inventory ready for look-ups.
func (v *inventory) prepare() {
	if v.table != nil {
		return
	}
	v.byObject = make(map[[32]byte]int, len(v.sections))
	for i, s := range v.sections {
		if _, twice := v.byObject[s.Objects[0]]; s.whole && !twice {
			v.byObject[s.Objects[0]] = i
		}
	}
	size := 1
	for size < 2*len(v.sums) {
		size *= 2
	}
	v.table = make([]uint32, size)
	for i, sum := range v.sums {
		if v.versions[i] == 0 {
			continue
		}
		at := sum & uint64(size-1)
		for v.table[at] != 0 {
			at = (at + 1) & uint64(size-1)
		}
		v.table[at] = uint32(i + 1)
	}
}

// version gives what an item with that checksum became, 0 when unknown.
func (v *inventory) version(sum uint64) int64 {
	if v.likely < len(v.sums) && v.sums[v.likely] == sum {
		v.likely++
		return int64(v.versions[v.likely-1])
	}
	mask := uint64(len(v.table) - 1)
	for at := sum & mask; v.table[at] != 0; at = (at + 1) & mask {
		if i := v.table[at] - 1; v.sums[i] == sum {
			v.likely = int(i) + 1
			return int64(v.versions[i])
		}
	}
	return 0
}

// known gives the sections that need not be read again.
func (v *inventory) known() []snapshot.Section {
	all := make([]snapshot.Section, 0, len(v.byObject))
	for _, i := range v.byObject {
		all = append(all, v.sections[i].Section)
	}
	return all
}

// inventoryOf gives what is known of the stream of a snapshot beside p: of the
// one added last, or of the chain's newest. nil when there is nothing.
func (x *Index) inventoryOf(c *conn, p place) (*inventory, error) {
	seen, _, err := c.integer("PRAGMA data_version")
	if err != nil {
		return nil, err
	}
	last := x.last
	if x.lastSeen != seen { // another process wrote, and may have moved versions
		last, x.lastSeen = nil, seen
	}
	x.last = nil
	beside := func(key int64) bool { return key != 0 && (key == p.before || key == p.after) }
	if last != nil && beside(last.key) {
		return last, nil
	}
	key, _, err := c.integer("SELECT sections FROM chain WHERE id = ?", p.chain)
	if err != nil || !beside(key) {
		return nil, err
	}
	return loadInventory(c, p.chain, key)
}

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
// versions. All numbers are unsigned varints, versions are differences as
// zigzag varints.
func (v *inventory) appendSection(b []byte, s *inventorySection) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.Objects)))
	for _, id := range s.Objects[1:] {
		b = append(b, id[:]...)
	}
	for _, n := range []int64{int64(s.Start), int64(s.End), s.files, s.size, int64(s.end - s.first)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, sum := range v.sums[s.first:s.end] {
		b = binary.LittleEndian.AppendUint64(b, sum)
	}
	return appendVersions(b, v.versions[s.first:s.end])
}

func appendVersions(b []byte, versions []uint32) []byte {
	last := int64(0)
	for _, n := range versions {
		b = binary.AppendVarint(b, int64(n)-last)
		last = int64(n)
	}
	return b
}

// loadInventory reads what is stored of a chain. What makes no sense is as if
// it were not there.
func loadInventory(c *conn, chain, key int64) (*inventory, error) {
	v := &inventory{key: key}
	others, bad := false, false
	err := c.query("SELECT object, stream FROM section WHERE chain = ?", []driver.Value{chain}, func(row []driver.Value) error {
		object, _ := row[0].([]byte)
		stream, _ := row[1].([]byte)
		r := reader{b: stream}
		if len(object) == 0 {
			others = true
			for len(r.b) > 0 {
				v.others = append(v.others, r.version(v.others))
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
		v.sums = append(v.sums, r.fixed64())
	}
	first := len(v.versions)
	for range count {
		v.versions = append(v.versions, r.version(v.versions[first:]))
	}
	v.end(s)
}

// version takes the next of a list of versions.
func (r *reader) version(before []uint32) uint32 {
	n := r.varint()
	if len(before) > 0 {
		n += int64(before[len(before)-1])
	}
	if n < 0 || n > math.MaxUint32 {
		r.bad, r.b = true, nil
	}
	return uint32(n)
}

// summer gives the checksums of items: the authentication tag of AES-GCM under
// a secret key of the database, cut to 64 bits, so that nobody can make two
// items that are taken for one. It is as fast as what is not secret.
type summer struct {
	gcm   cipher.AEAD
	nonce [12]byte
	tag   [16]byte
}

func newSummer(c *conn) (*summer, error) {
	var secret []byte
	err := c.query("SELECT secret FROM counter", nil, func(row []driver.Value) error {
		secret, _ = row[0].([]byte)
		secret = slices.Clone(secret)
		return nil
	})
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("secret of checksums: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	return &summer{gcm: gcm}, err
}

func (s *summer) sum(raw []byte) uint64 {
	return binary.LittleEndian.Uint64(s.gcm.Seal(s.tag[:0], s.nonce[:], nil, raw))
}
