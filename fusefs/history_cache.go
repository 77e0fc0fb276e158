package fusefs

import (
	"sync"

	"github.com/s4-storage/s4/snapshot"
)

// entryKey names one version in one snapshot.
type entryKey struct{ num, version int64 }

// cacheEntries is how many entries half of the cache may hold.
const cacheEntries = 4096

// entryCache remembers entries met lately, mostly directories: a node id does
// not tell the number a directory is listed by. Entries of a snapshot never
// change, so nothing is ever taken back. When the newer half is full it
// becomes the older one, and what the older one held is gone unless used.
type entryCache struct {
	mu         sync.Mutex
	newer, old map[entryKey]snapshot.Entry
}

func (c *entryCache) get(k entryKey) (snapshot.Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.newer[k]; ok {
		return e, true
	}
	e, ok := c.old[k]
	if ok {
		c.put(k, e)
	}
	return e, ok
}

func (c *entryCache) add(k entryKey, e snapshot.Entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(k, e)
}

// put needs mu held.
func (c *entryCache) put(k entryKey, e snapshot.Entry) {
	if c.newer == nil || len(c.newer) >= cacheEntries {
		c.old, c.newer = c.newer, make(map[entryKey]snapshot.Entry)
	}
	c.newer[k] = e
}

// handles gives out numbers for open directories.
type handles[T any] struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]T
}

func (h *handles[T]) add(v T) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = make(map[uint64]T)
	}
	h.last++
	h.open[h.last] = v
	return h.last
}

func (h *handles[T]) get(fh uint64) (T, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.open[fh]
	return v, ok
}

// remove takes the handle away and gives what it stood for.
func (h *handles[T]) remove(fh uint64) (T, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := h.open[fh]
	delete(h.open, fh)
	return v, ok
}
