package borgio

import "encoding/binary"

// idSet is a set of ids by their first 64 bits: since ids are hashes, none of a
// million others is taken for one that is in it, but for one time in ten million
// million. For who looks for what is not in it, that errs to the safe side.
type idSet struct {
	slots []uint64 // a power of two of them; 0 is free
	count int
}

// bits stand for an id; they are never 0.
func (idSet) bits(id ID) uint64 { return max(binary.LittleEndian.Uint64(id[:8]), 1) }

// find gives the slot of an id, or the free one for it.
func (s *idSet) find(bits uint64) int {
	mask := uint64(len(s.slots) - 1)
	i := bits & mask
	for s.slots[i] != 0 && s.slots[i] != bits {
		i = (i + 1) & mask
	}
	return int(i)
}

func (s *idSet) has(id ID) bool {
	return s.count > 0 && s.slots[s.find(s.bits(id))] != 0
}

// add reports whether the id is new.
func (s *idSet) add(id ID) bool {
	if 4*s.count >= 3*len(s.slots) {
		old := s.slots
		s.slots = make([]uint64, max(1024, 2*len(old)))
		for _, bits := range old {
			if bits != 0 {
				s.slots[s.find(bits)] = bits
			}
		}
	}
	bits := s.bits(id)
	i := s.find(bits)
	if s.slots[i] != 0 {
		return false
	}
	s.slots[i] = bits
	s.count++
	return true
}
