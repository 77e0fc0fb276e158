// Package buffer gives counted memory, which streams of large objects use again
// and again.
//
// # Words
//
//   - buffer: memory for one object. It is counted: whoever holds a reference
//     gives it back once, and the last one frees the memory. A released buffer
//     is idle in its pool, or gone.
//   - mapped: taken from the kernel by mmap(2) and given back by munmap(2),
//     unseen by the garbage collector.
//   - foreign: memory that somebody else made, such as a piece of a file.
//
// # Why large buffers are mapped
//
// Chunks differ in size by a factor of sixteen, so many buffers fit nobody when
// they are dropped. On the Go heap they were 98 % of all bytes allocated, and
// the collector lets as much garbage pile up as there is live memory: reading a
// file of 2 GB through a mount with a cache of 32 MiB left 197 MiB resident,
// 205 at the peak. Counted memory needs no collector. Mapped, what is dropped
// is free at once, which leaves 57 MiB, 70 at the peak, and halves the time that
// the processor takes. Fresh pages cost 0.3 ms per MiB (BenchmarkChunks), a
// third of that with the pages of idle memory, even of another size (mremap(2)).
//
// # Invariants
//
//   - A buffer is mapped from minMapped bytes on, unless the kernel refuses.
//   - At most idleBytes of released memory are kept, the rest is unmapped; a
//     closed pool keeps none, but buffers in use stay valid until released.
//   - Releasing or retaining a buffer that has no reference panics.
//   - Under the race detector, which does not see mapped memory, idle buffers
//     cannot be accessed, and [Outstanding] tells what was never given back.
package buffer

import "sync/atomic"

// Buffer is counted memory for one object. It starts with one reference; Data
// must not be used after the last release.
type Buffer struct {
	Data []byte // what is in use of mem
	mem  memory
	refs atomic.Int32
	pool *Pool
	free func() // for foreign memory, which is no pool's
}

// Of makes a buffer of foreign memory; free is called by the last release.
func Of(data []byte, free func()) *Buffer {
	account(len(data))
	b := &Buffer{Data: data, mem: memory{bytes: data}, free: free}
	b.refs.Store(1)
	return b
}

// Cap is how much memory the buffer takes, in bytes.
func (b *Buffer) Cap() int { return len(b.mem.bytes) }

// Retain adds a reference.
func (b *Buffer) Retain() {
	if b.refs.Add(1) < 2 {
		panic("buffer: retained after its release")
	}
}

// Release gives a reference back; the last one makes the memory reusable.
func (b *Buffer) Release() {
	left := b.refs.Add(-1)
	if left > 0 {
		return
	}
	if left < 0 {
		panic("buffer: released twice")
	}
	b.Data = nil
	if b.free != nil {
		account(-len(b.mem.bytes))
		b.free()
		return
	}
	b.pool.put(b.mem)
}
