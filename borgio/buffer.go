package borgio

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// buffer is counted memory for one object, so that streams of megabyte-sized
// objects reuse it instead of waiting for the garbage collector. It starts
// with one reference; data must not be used after the last release.
type buffer struct {
	data []byte // what is in use of mem
	mem  []byte
	refs atomic.Int32
	pool *bufferPool
}

// minPooled is the size in bytes below which reuse is not worth it.
const minPooled = 16 << 10

// bufferPool holds free buffers by size class: four classes to each power of
// two, so that at most a quarter of a buffer lies idle.
type bufferPool struct {
	free [256]sync.Pool
}

// sizeClass is the smallest class whose buffers hold n ≥ 1 bytes, and their
// size.
func sizeClass(n int) (class, size int) {
	shift := max(bits.Len(uint(n-1))-3, 0)
	quarter := (n + 1<<shift - 1) >> shift // 4…8
	return shift*8 + quarter, quarter << shift
}

// get gives a buffer of n bytes with arbitrary content.
func (p *bufferPool) get(n int) *buffer {
	var b *buffer
	if n < minPooled {
		b = &buffer{mem: make([]byte, n)}
	} else {
		class, size := sizeClass(n)
		b, _ = p.free[class].Get().(*buffer)
		if b == nil {
			b = &buffer{mem: make([]byte, size), pool: p}
		}
	}
	b.data = b.mem[:n]
	b.refs.Store(1)
	return b
}

// grow gives a buffer of n bytes that begins with b's first keep bytes, and
// releases b.
func (p *bufferPool) grow(b *buffer, keep, n int) *buffer {
	g := p.get(n)
	copy(g.data, b.data[:keep])
	b.release()
	return g
}

func (b *buffer) retain() { b.refs.Add(1) }

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 && b.pool != nil {
		class, _ := sizeClass(len(b.mem))
		b.data = nil
		b.pool.free[class].Put(b)
	}
}
