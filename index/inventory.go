package index

import (
	"crypto/aes"
	"crypto/cipher"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/s4-storage/s4/snapshot"
)

// inventory is what the stream of an indexed snapshot became: the version of
// each item, by the item's checksum, section by section. With it the next
// snapshot of the chain is added at the cost of what changed: a section that
// it shares is neither fetched nor parsed, an item that it shares is not
// decoded.
//
// A partial inventory lacks the items of sections that the next snapshot is
// expected to share: nothing is done for them one by one.
type inventory struct {
	key      int64 // of the snapshot
	partial  bool
	sections []inventorySection
	items    itemList // of the sections that are loaded
	others   []uint32 // versions that no item stands for alone: hard links, directories without item

	byObject map[[32]byte]int // numbers of sections that are whole; nil where not prepared
	table    []uint32         // of landmarks, open addressing by sum: 1 + the item's number, 0 where free; nil likewise
	likely   int              // the item behind the one found last
}

type inventorySection struct {
	snapshot.Section
	count       int   // of items
	first, end  int   // of the items, where they are loaded
	files, size int64 // of regular files, as a snapshot counts them
	whole       bool  // no item has to be looked at again
	stored      bool  // as it is, in the chain's table
	loaded      bool
}

const (
	maxInventory = 2_000_000 // bounds the memory: 14 bytes an item, and one or two to look it up
	nearby       = 32        // items to both sides of the one expected
)

// newInventory makes one for about as many items as a neighbour has, or the
// source counts files, in the memory of one that is not needed any more. Both
// inventories may be nil.
func newInventory(p place, neighbour, old *inventory) *inventory {
	n := p.filesSaid + p.filesSaid/8 // and directories
	if neighbour != nil {
		n = int64(neighbour.items.len()) // few where that is partial
		n += n / 64
	}
	v := &inventory{key: p.key}
	if n = max(0, min(n, maxInventory)); old != nil && int64(cap(old.items.sums)) >= n {
		v.items, old.items = old.items.reuse(), itemList{}
	} else {
		v.items = newItemList(int(n))
	}
	return v
}

// end completes the section that is being read.
func (v *inventory) end(s inventorySection) {
	s.first = 0
	if n := len(v.sections); n > 0 {
		s.first = v.sections[n-1].end
	}
	s.end = v.items.len()
	s.count, s.loaded = s.end-s.first, true
	v.sections = append(v.sections, s)
}

// finish leaves out versions that turned out not to be in the snapshot.
func (v *inventory) finish(revoked map[uint32]bool) {
	for i := range v.sections {
		s := &v.sections[i]
		if !s.loaded {
			continue
		}
		s.whole = true
		for n := s.first; n < s.end; n++ {
			version := &v.items.versions[n]
			if revoked[*version] {
				*version = 0
				s.stored = false
			}
			s.whole = s.whole && *version != 0
		}
	}
}

// prepareItems makes the inventory ready for look-ups.
func (v *inventory) prepareItems() {
	if v.table != nil {
		return
	}
	var landmarks []int
	for i, sum := range v.items.sums {
		if landmark(sum) && v.items.versions[i] != 0 {
			landmarks = append(landmarks, i)
		}
	}
	size := 1
	for size < 2*len(landmarks) {
		size *= 2
	}
	v.table = make([]uint32, size)
	for _, i := range landmarks {
		at := v.slot(v.items.sums[i])
		for v.table[at] != 0 {
			at = (at + 1) & (size - 1)
		}
		v.table[at] = uint32(i + 1)
	}
}

// landmark tells, for one item in eight, that it can be found wherever it is.
func landmark(sum uint64) bool { return sum%8 == 0 }

func (v *inventory) slot(sum uint64) int { return int(sum/8) & (len(v.table) - 1) }

// version gives what an item with that checksum became, 0 when unknown. Items
// mostly come in the same order, so it looks around the item that is expected;
// elsewhere only landmarks are found, and with the first of them what follows.
func (v *inventory) version(sum uint64) int64 {
	for i := max(0, v.likely-nearby); i < min(v.likely+nearby, v.items.len()); i++ {
		if v.items.sums[i] == sum {
			v.likely = i + 1
			return int64(v.items.versions[i])
		}
	}
	for at := v.slot(sum); v.table[at] != 0; at = (at + 1) & (len(v.table) - 1) {
		if i := int(v.table[at] - 1); v.items.sums[i] == sum {
			v.likely = i + 1
			return int64(v.items.versions[i])
		}
	}
	return 0
}

// expected gives the item behind the one found last.
func (v *inventory) expected() (it inventoryItem) {
	if v.likely < v.items.len() {
		it = v.items.at(v.likely)
	}
	return it
}

// known gives the sections that need not be read again.
func (v *inventory) known() []snapshot.Section {
	if v.byObject == nil {
		v.byObject = make(map[[32]byte]int, len(v.sections))
		for i, s := range v.sections {
			if _, twice := v.byObject[s.Objects[0]]; s.whole && !twice {
				v.byObject[s.Objects[0]] = i
			}
		}
	}
	all := make([]snapshot.Section, 0, len(v.byObject))
	for _, i := range v.byObject {
		all = append(all, v.sections[i].Section)
	}
	return all
}

// inventoryOf gives what is known of the stream of a snapshot beside p: of the
// one added last, or of the chain's newest, that without items where it may be
// partial. nil when there is nothing.
func (x *Index) inventoryOf(c *conn, p place, partial bool) (*inventory, error) {
	seen, _, err := c.integer("PRAGMA data_version")
	if err != nil {
		return nil, err
	}
	key, _, err := c.integer("SELECT sections FROM chain WHERE id = ?", p.chain)
	if err != nil {
		return nil, err
	}
	last := x.last
	if x.lastSeen != seen { // another process wrote, and may have moved versions
		last, x.lastSeen = nil, seen
	}
	x.last = nil
	if partial && p.after == 0 && p.before != 0 && p.before == key {
		return loadInventory(c, p.chain, &inventory{key: key, partial: true})
	}
	beside := func(key int64) bool { return key != 0 && (key == p.before || key == p.after) }
	if last != nil && beside(last.key) {
		return last, nil
	}
	if !beside(key) {
		return nil, nil
	}
	v := newInventory(p, nil, nil)
	v.key = key
	return loadInventory(c, p.chain, v)
}

// hold keeps an inventory for the snapshot to be added next, and the memory of
// the one before for that one's: by turns two of them serve for any number of
// snapshots, where the collector would let more pile up. Both may be nil.
func (x *Index) hold(next, before *inventory) { x.last, x.spare = next, before }

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
