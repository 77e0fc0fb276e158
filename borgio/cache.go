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
		e, buf, fresh := c.lookup(chunk)
		if buf != nil {
			return buf, nil
		}
		if !fresh || !c.fetchAtHand(e) {
			if fresh {
				c.start(e)
			}
			select {
			case <-e.ready:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
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
	e, buf, fresh := c.lookup(chunk)
	if buf != nil {
		buf.Release()
	}
	if fresh {
		c.start(e)
	}
}

// lookup gives the chunk's data when it is there, else the entry to wait for. A
// fresh one is the caller's to have fetched.
func (c *chunkCache) lookup(chunk Chunk) (e *cacheEntry, buf *buffer.Buffer, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[chunk.ID]; ok && e.chunk.Size == chunk.Size {
		if e.place == nil {
			return e, nil, false
		}
		c.order.MoveToFront(e.place)
		e.buf.Retain()
		return e, e.buf, false
	}
	e = &cacheEntry{chunk: chunk, ready: make(chan struct{})}
	c.entries[chunk.ID] = e
	return e, nil, true
}

// start has a chunk fetched. That is not tied to the caller who caused it, since
// others may wait too.
func (c *chunkCache) start(e *cacheEntry) {
	fetch := func(ctx context.Context) {
		buf, err := c.repo.chunk(ctx, e.chunk)
		c.settle(e, buf, err)
	}
	if !c.repo.start(fetch) {
		c.settle(e, nil, ErrClosed)
	}
}

// fetchAtHand fetches a chunk without handing it over to another goroutine, which
// takes longer than to read and decode a small one. The caller may be able to
// wait only for some time; so this does not wait at all, and reports false where
// it would have to.
func (c *chunkCache) fetchAtHand(e *cacheEntry) bool {
	if !c.repo.enter() {
		return false
	}
	defer c.repo.work.Done()
	buf, ok := c.repo.chunkAtHand(e.chunk)
	if ok {
		c.settle(e, buf, nil)
	}
	return ok
}

// settle tells those who wait for a chunk what came of it.
func (c *chunkCache) settle(e *cacheEntry, buf *buffer.Buffer, err error) {
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

// chunkAtHand is chunk without waiting for anything; ok is false where it would
// have to, and where anything is wrong.
func (r *Repository) chunkAtHand(c Chunk) (plain *buffer.Buffer, ok bool) {
	quick, ok := r.store.(quickStore)
	weight := int64(c.Size) + 4096
	if !ok || !r.fetching.TryAcquire(weight) {
		return nil, false
	}
	defer r.fetching.Release(weight)
	stored, ok := quick.getAtHand(c.ID, int(c.Size))
	if !ok {
		return nil, false
	}
	defer stored.Release()
	plain, err := r.decode(c.ID, stored.Data, int(c.Size), maxObjectSize)
	return plain, err == nil
}
