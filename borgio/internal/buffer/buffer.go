// Package buffer gives counted memory, which streams of large objects use again
// and again.
package buffer

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffer is counted memory for one object, so that streams of megabyte-sized
// objects reuse it instead of waiting for the garbage collector. It starts
// with one reference; Data must not be used after the last release.
type Buffer struct {
	Data []byte // what is in use of mem
	mem  []byte
	refs atomic.Int32
	pool *Pool
	free func() // for memory that is no pool's
}

// Of makes a buffer of foreign memory; free is called by the last release.
func Of(data []byte, free func()) *Buffer {
	b := &Buffer{Data: data, mem: data, free: free}
	b.refs.Store(1)
	return b
}

// minPooled is the size in bytes below which reuse is not worth it.
const minPooled = 16 << 10

// idleBytes is how much memory a pool keeps for later.
const idleBytes = 6 << 20

// Pool holds free buffers by size class: four classes to each power of
// two, so that at most a quarter of a new buffer lies idle. Unlike a sync.Pool
// it hands out a larger buffer before it makes one, and keeps a bounded number
// of bytes: chunks vary in size by a factor of sixteen.
type Pool struct {
	mu   sync.Mutex // guards what follows
	free [poolClasses][]*Buffer
	idle int // bytes
}

const poolClasses = 128

// sizeClass is the smallest class whose buffers hold n ≥ 8 bytes, and their
// size.
func sizeClass(n int) (class, size int) {
	shift := bits.Len(uint(n-1)) - 3
	quarter := (n + 1<<shift - 1) >> shift // 5…8
	return shift*4 + quarter - 5, quarter << shift
}

// Get gives a buffer of n bytes with arbitrary content.
func (p *Pool) Get(n int) *Buffer {
	var b *Buffer
	if n < minPooled {
		b = &Buffer{mem: make([]byte, n)}
	} else if b = p.reuse(n); b == nil {
		_, size := sizeClass(n)
		b = &Buffer{mem: make([]byte, size), pool: p}
	}
	b.Data = b.mem[:n]
	b.refs.Store(1)
	return b
}

// reuse gives a free buffer of up to half as much again as n bytes, nil if there is none.
func (p *Pool) reuse(n int) *Buffer {
	class, _ := sizeClass(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := class; c < min(class+3, poolClasses); c++ {
		if last := len(p.free[c]) - 1; last >= 0 {
			b := p.free[c][last]
			p.free[c] = p.free[c][:last]
			p.idle -= len(b.mem)
			return b
		}
	}
	return nil
}

func (p *Pool) put(b *Buffer) {
	class, _ := sizeClass(len(b.mem))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle+len(b.mem) <= idleBytes {
		p.idle += len(b.mem)
		p.free[class] = append(p.free[class], b)
	}
}

// Grow gives a buffer of n bytes that begins with b's first keep bytes, and
// releases b.
func (p *Pool) Grow(b *Buffer, keep, n int) *Buffer {
	g := p.Get(n)
	copy(g.Data, b.Data[:keep])
	b.Release()
	return g
}

// Cap is how much memory the buffer takes, in bytes.
func (b *Buffer) Cap() int { return len(b.mem) }

// Retain adds a reference.
func (b *Buffer) Retain() { b.refs.Add(1) }

// Release gives a reference back; the last one makes the memory reusable.
func (b *Buffer) Release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	b.Data = nil
	switch {
	case b.free != nil:
		b.free()
	case b.pool != nil:
		b.pool.put(b)
	}
}
