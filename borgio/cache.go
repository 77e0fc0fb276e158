package borgio

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// Chunk is one piece of a file's content.
type Chunk struct {
	ID     ID
	Size   uint32 // bytes of plaintext, at least 1
	Stored uint32 // bytes of the object, as the archive tells, which need not be right; 0 when unrecorded
}

// chunkCache keeps the chunks used last, and fetches each only once however
// many wait for it.
type chunkCache struct {
	repo *Repository
	max  int64 // bytes

	mu      sync.Mutex // guards what follows
	entries map[ID]*cacheEntry
	order   *list.List // of *cacheEntry whose data is there; front: used last
	bytes   int64      // of them
}

type cacheEntry struct {
	chunk Chunk
	ready chan struct{}  // closed once buf or err is set
	buf   *buffer.Buffer // the cache's own reference
	err   error
	place *list.Element // nil while fetching
}

func newChunkCache(r *Repository, maxBytes int64) *chunkCache {
	return &chunkCache{repo: r, max: maxBytes, entries: map[ID]*cacheEntry{}, order: list.New()}
}

// get gives a chunk's plaintext; the reference is the caller's.
func (c *chunkCache) get(ctx context.Context, chunk Chunk) (*buffer.Buffer, error) {
	for {
		e, buf := c.lookup(chunk)
		if buf != nil {
			return buf, nil
		}
		select {
		case <-e.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if e.err != nil {
			return nil, e.err
		}
		if c.retain(e) {
			return e.buf, nil
		} // else evicted already: the cache is very small
	}
}

// prefetch begins to fetch a chunk that is likely to be asked for.
func (c *chunkCache) prefetch(chunk Chunk) {
	if _, buf := c.lookup(chunk); buf != nil {
		buf.Release()
	}
}

// lookup gives the chunk's data when it is there, else the entry to wait for.
func (c *chunkCache) lookup(chunk Chunk) (*cacheEntry, *buffer.Buffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[chunk.ID]; ok && e.chunk.Size == chunk.Size {
		if e.place == nil {
			return e, nil
		}
		c.order.MoveToFront(e.place)
		e.buf.Retain()
		return e, e.buf
	}
	e := &cacheEntry{chunk: chunk, ready: make(chan struct{})}
	if !c.repo.start(func(ctx context.Context) { c.fetch(ctx, e) }) {
		e.err = ErrClosed
		close(e.ready)
		return e, nil
	}
	c.entries[chunk.ID] = e
	return e, nil
}

// fetch is not tied to the caller who caused it, since others may wait too.
func (c *chunkCache) fetch(ctx context.Context, e *cacheEntry) {
	buf, err := c.repo.chunk(ctx, e.chunk)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(e.ready)
	if err != nil {
		e.err = err
		if c.entries[e.chunk.ID] == e {
			delete(c.entries, e.chunk.ID)
		}
		return
	}
	e.buf = buf
	e.place = c.order.PushFront(e)
	c.bytes += int64(buf.Cap())
	for c.bytes > c.max && c.order.Len() > 1 {
		c.evict(c.order.Back())
	}
}

// evict forgets an entry; c.mu is held.
func (c *chunkCache) evict(place *list.Element) {
	e := c.order.Remove(place).(*cacheEntry)
	e.place = nil
	c.bytes -= int64(e.buf.Cap())
	if c.entries[e.chunk.ID] == e {
		delete(c.entries, e.chunk.ID)
	}
	e.buf.Release()
}

// retain takes a reference unless the entry was evicted.
func (c *chunkCache) retain(e *cacheEntry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.place == nil {
		return false
	}
	e.buf.Retain()
	return true
}

// drop forgets everything.
func (c *chunkCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.order.Len() > 0 {
		c.evict(c.order.Back())
	}
}

// chunk fetches a chunk's plaintext, past the cache.
func (r *Repository) chunk(ctx context.Context, c Chunk) (*buffer.Buffer, error) {
	if c.Size > maxObjectSize {
		return nil, &IntegrityError{Object: c.ID, What: "size", Err: fmt.Errorf("%d bytes", c.Size)}
	}
	return r.object(ctx, c.ID, int(c.Size), maxObjectSize)
}
