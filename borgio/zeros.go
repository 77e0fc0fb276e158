package borgio

import "sync"

// zeroIDs remembers the ids that runs of zeros have in a repository, so that
// the holes of a file are known without reading them.
type zeroIDs struct {
	mu sync.Mutex
	of map[uint32]ID // by length in bytes
}

const (
	// holeUnit is what the chunks of a hole are a multiple of, but for the last
	// of a file. Chunks of 8 MiB are cut from any hole that is larger.
	holeUnit = 4096
	holeMost = 8 << 20
	// holeShrinks is how many times smaller zeros are stored, at least, by any
	// compression.
	holeShrinks = 64
	// zeroLengths bounds the lengths remembered, and so the time that looking
	// for holes can take altogether.
	zeroLengths = 256
)

// IsZero reports whether a chunk is known to be all zeros, from its id alone.
// What does not look like a hole is not looked into: false may mean "unknown".
func (r *Repository) IsZero(c Chunk) bool {
	if c.Size < holeUnit || c.Size > holeMost {
		return false
	}
	r.zeros.mu.Lock()
	defer r.zeros.mu.Unlock()
	id, known := r.zeros.of[c.Size]
	if !known {
		small := c.Stored > 0 && c.Stored <= c.Size/holeShrinks
		if !small && c.Size != holeMost || len(r.zeros.of) == zeroLengths {
			return false
		}
		if r.zeros.of == nil {
			r.zeros.of = make(map[uint32]ID)
		}
		id = r.key.ID(make([]byte, c.Size))
		r.zeros.of[c.Size] = id
	}
	return c.ID == id
}
