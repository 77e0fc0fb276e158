package disk

import (
	"fmt"
	"math"
	"slices"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// shadowIndex tells which segments hold PUTs of objects that were deleted: as long
// as one is there, compaction must not drop the DELETE behind it. An object that it
// does not know may have PUTs anywhere. Like [table] it lies where no collector sees
// it, since most objects are deleted in large numbers.
type shadowIndex struct {
	// table holds, for each object, its only segment; or in the place of the offset
	// the number in lists of those that it has, plus one.
	table *table
	lists [][]uint32
}

// shadowForgotten is in the place of the offset for an object not known any more.
const shadowForgotten = math.MaxUint32

func newShadowIndex() (*shadowIndex, error) {
	t, err := newTable(bucketsFor(0))
	if err != nil {
		return nil, err
	}
	t.clear()
	return &shadowIndex{table: t}, nil
}

func (s *shadowIndex) free() {
	if s != nil {
		s.table.free()
	}
}

// of gives the segments with PUTs of an object.
func (s *shadowIndex) of(id [32]byte) (segments []uint32, known bool) {
	p, ok := s.table.lookup(id)
	switch {
	case !ok || p.offset == shadowForgotten:
		return nil, false
	case p.offset == 0:
		return []uint32{p.segment}, true
	}
	return s.lists[p.offset-1], true
}

// set makes the segments those of the object; the slice is not the caller's any more.
func (s *shadowIndex) set(id [32]byte, segments []uint32) error {
	if len(segments) == 1 {
		return s.note(id, place{segment: segments[0]})
	}
	s.lists = append(s.lists, segments)
	return s.note(id, place{offset: uint32(len(s.lists))})
}

func (s *shadowIndex) note(id [32]byte, p place) error {
	if err := s.table.grow(); err != nil {
		return err
	}
	s.table.set(id, p)
	return nil
}

// add notes that a segment has a PUT of an object that is deleted now.
func (s *shadowIndex) add(id [32]byte, segment uint32) error {
	before, _ := s.of(id)
	return s.set(id, append(slices.Clip(before), segment))
}

// drop notes that a PUT of the object is gone from a segment.
func (s *shadowIndex) drop(id [32]byte, segment uint32) error {
	before, known := s.of(id)
	i := slices.Index(before, segment)
	if !known || i < 0 {
		return nil
	}
	return s.set(id, slices.Delete(slices.Clone(before), i, i+1))
}

// forget makes an object one that is not known.
func (s *shadowIndex) forget(id [32]byte) error {
	if _, known := s.of(id); !known {
		return nil
	}
	return s.note(id, place{offset: shadowForgotten})
}

// unpack reads a packed map into an empty index. It takes at most 80 bytes for each
// of data, and 1 MiB.
func (s *shadowIndex) unpack(data []byte) error {
	r := msgpack.NewReader(data)
	n, err := r.Map()
	for i := 0; i < n && err == nil; i++ {
		err = s.unpackOne(r)
	}
	if err != nil {
		return fmt.Errorf("shadow index: %w", err)
	}
	return nil
}

func (s *shadowIndex) unpackOne(r *msgpack.Reader) error {
	var id [32]byte
	if err := r.Bytes32(&id); err != nil {
		return err
	}
	n, err := r.Array()
	if err != nil {
		return err
	}
	var segments []uint32
	for range n {
		segment, err := r.Int()
		if err == nil && (segment < 0 || segment >= bucketTombstone) {
			err = fmt.Errorf("segment %d", segment)
		}
		if err != nil {
			return err
		}
		segments = append(segments, uint32(segment))
	}
	return s.set(id, segments)
}

// pack is the reverse of unpack.
func (s *shadowIndex) pack() []byte {
	n := 0
	s.each(func([32]byte, []uint32) { n++ })
	b := msgpack.AppendMap(make([]byte, 0, 5+n*(32+2+1+5)), n)
	s.each(func(id [32]byte, segments []uint32) {
		b = msgpack.AppendArray(msgpack.AppendBytes(b, id[:]), len(segments))
		for _, segment := range segments {
			b = msgpack.AppendInt(b, int64(segment))
		}
	})
	return b
}

func (s *shadowIndex) each(fn func(id [32]byte, segments []uint32)) {
	s.table.each(func(id [32]byte, p place) {
		if segments, known := s.of(id); known {
			fn(id, segments)
		}
	})
}
