package buffer

import (
	"slices"
	"sync"
)

const (
	// minPooled is the size in bytes below which reuse is not worth it.
	minPooled = 16 << 10
	// minMapped is the size below which system calls cost more than the
	// garbage collector does.
	minMapped = 64 << 10
	// idleBytes is how much memory a pool keeps for later, and maxIdle in how
	// many pieces: as much as a stream has in flight, whose read-ahead releases
	// in bursts what it takes back a moment later. With a quarter of it a third
	// of the stream's time goes into mapping memory and clearing it.
	idleBytes = 24 << 20
	maxIdle   = 64
)

// Pool keeps a bounded amount of released memory for later. The zero value is
// ready; Close must be called. It is safe for concurrent use.
//
// Unlike a sync.Pool it hands out memory of another size before it makes any.
type Pool struct {
	mu     sync.Mutex // guards what follows
	idle   []memory   // oldest first
	bytes  int        // of it
	closed bool
}

// Get gives a buffer of n bytes with arbitrary content.
func (p *Pool) Get(n int) *Buffer {
	m, ok := p.take(n)
	if !ok {
		m = newMemory(n)
	}
	b := &Buffer{Data: m.bytes[:n], mem: m, pool: p}
	b.refs.Store(1)
	return b
}

// Grow gives a buffer of n bytes that begins with b's first keep bytes, and
// releases b.
func (p *Pool) Grow(b *Buffer, keep, n int) *Buffer {
	g := p.Get(n)
	copy(g.Data, b.Data[:keep])
	b.Release()
	return g
}

// Close frees what is idle. Buffers that are still in use are freed when they
// are released.
func (p *Pool) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.bytes, p.closed = nil, 0, true
	p.mu.Unlock()
	for _, m := range idle {
		m.drop()
	}
}

// take gives the smallest idle memory of n bytes to half as much again. Where
// there is none, what comes nearest is resized: most of its pages are there.
func (p *Pool) take(n int) (memory, bool) {
	if n < minPooled {
		return memory{}, false
	}
	m, ok := p.nearest(n)
	if !ok {
		return m, false
	}
	unseal(m)
	if m.fits(n) {
		return m, true
	}
	return m.resize(n)
}

// nearest takes memory out of what is idle.
func (p *Pool) nearest(n int) (memory, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	best, least := -1, 0
	for i, m := range p.idle {
		away := max(len(m.bytes)-n, n-len(m.bytes))
		if !m.fits(n) {
			if !m.mapped || n < minMapped {
				continue
			}
			away += n // behind all that fit
		}
		if best < 0 || away <= least {
			best, least = i, away
		}
	}
	if best < 0 {
		return memory{}, false
	}
	m := p.idle[best]
	p.idle = slices.Delete(p.idle, best, best+1)
	p.bytes -= len(m.bytes)
	return m, true
}

// put keeps memory for later, and frees the oldest instead where that is too
// much.
func (p *Pool) put(m memory) {
	if len(m.bytes) < minPooled {
		return
	}
	if len(m.bytes) > idleBytes {
		m.drop() // rather than all that is idle
		return
	}
	seal(m)
	p.mu.Lock()
	p.idle = append(p.idle, m)
	p.bytes += len(m.bytes)
	excess := 0
	for p.bytes > idleBytes || len(p.idle)-excess > maxIdle || p.closed && excess < len(p.idle) {
		p.bytes -= len(p.idle[excess].bytes)
		excess++
	}
	drop := slices.Clone(p.idle[:excess])
	p.idle = slices.Delete(p.idle, 0, excess)
	p.mu.Unlock()
	for _, m := range drop {
		m.drop()
	}
}
