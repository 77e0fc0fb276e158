package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxLoad is up to what part of a table is filled, so that a search is short.
const maxLoad = 0.85

// minLoad is how many times larger than a new one a table may be that is copied.
const minLoad = 3

// bucketDeleted, in the place of a segment, says that an object is not there any
// more: of a table that is laid over another.
const bucketDeleted = bucketTombstone - 1

// bucketsFor is how many buckets a new table of n entries has: at least as many
// as Borg's, and room for a third more.
func bucketsFor(n int) int { return max(1031, n/5*8+1) }

func tableSize(buckets int) int { return indexHeaderSize + indexBucketSize*buckets }

// table is a [diskIndex] that can be changed. It lies in memory that no collector
// sees, since it may be 100 MB: a map takes twice as much, and so does its garbage.
type table struct {
	diskIndex
	live int
}

func newTable(buckets int) (*table, error) {
	data, err := unix.Mmap(-1, 0, tableSize(buckets), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("memory for the index: %w", err)
	}
	return &table{diskIndex: diskIndex{data, uint32(buckets)}}, nil
}

// grow makes room for one more entry, of a table of which none was removed.
func (t *table) grow() error {
	if float64(t.live+1) < maxLoad*float64(t.buckets) {
		return nil
	}
	larger, err := newTable(bucketsFor(t.live + 1))
	if err != nil {
		return err
	}
	larger.clear()
	t.each(larger.set)
	t.free()
	*t = *larger
	return nil
}

func (t *table) free() {
	if t != nil && t.data != nil {
		_ = unix.Munmap(t.data)
		t.data = nil
	}
}

// clear empties all buckets.
func (t *table) clear() {
	for i := range t.buckets {
		binary.LittleEndian.PutUint32(t.bucket(i)[32:], bucketEmpty)
	}
}

// finish writes the header.
func (t *table) finish() {
	copy(t.data, indexMagic)
	binary.LittleEndian.PutUint32(t.data[8:], uint32(t.live))
	binary.LittleEndian.PutUint32(t.data[12:], t.buckets)
	t.data[16], t.data[17] = 32, 8
}

// set puts an object's place into its bucket, or into a free one.
func (t *table) set(id [32]byte, p place) {
	b, found := t.search(id)
	if !found {
		t.live++
	}
	copy(b, id[:])
	binary.LittleEndian.PutUint32(b[32:], p.segment)
	binary.LittleEndian.PutUint32(b[36:], p.offset)
}

// remove leaves a tombstone where the object was.
func (t *table) remove(id [32]byte) {
	if b, found := t.search(id); found {
		binary.LittleEndian.PutUint32(b[32:], bucketTombstone)
		t.live--
	}
}

// search gives the bucket of an object, or the one for it. There is a free one:
// see maxLoad.
func (t *table) search(id [32]byte) (bucket []byte, found bool) {
	var free []byte
	for i := binary.LittleEndian.Uint32(id[:4]) % t.buckets; ; i = (i + 1) % t.buckets {
		b := t.bucket(i)
		switch segment := binary.LittleEndian.Uint32(b[32:]); {
		case segment == bucketEmpty && free == nil:
			return b, false
		case segment == bucketEmpty:
			return free, false
		case segment == bucketTombstone:
			if free == nil {
				free = b
			}
		case bytes.Equal(b[:32], id[:]):
			return b, true
		}
	}
}

// bucket is the i-th bucket.
func (x *diskIndex) bucket(i uint32) []byte {
	return x.data[indexHeaderSize+indexBucketSize*int(i):][:indexBucketSize:indexBucketSize]
}

// entries is how many objects the header tells of.
func (x *diskIndex) entries() int { return int(binary.LittleEndian.Uint32(x.data[8:])) }

// count counts the buckets of objects, and those that are not empty.
func (x *diskIndex) count() (live, used int) {
	for i := range x.buckets {
		switch binary.LittleEndian.Uint32(x.bucket(i)[32:]) {
		case bucketEmpty:
		case bucketTombstone:
			used++
		default:
			live++
			used++
		}
	}
	return live, used
}

// each calls fn for each object.
func (x *diskIndex) each(fn func(id [32]byte, p place)) {
	for i := range x.buckets {
		b := x.bucket(i)
		if segment := binary.LittleEndian.Uint32(b[32:]); segment < bucketTombstone {
			fn([32]byte(b[:32]), place{segment, binary.LittleEndian.Uint32(b[36:])})
		}
	}
}
