package buffer

import (
	"math/bits"

	"golang.org/x/sys/unix"
)

// memory is what a buffer is made of.
type memory struct {
	bytes  []byte
	mapped bool
}

// newMemory makes at least n bytes.
func newMemory(n int) memory {
	if n < minPooled {
		return memory{bytes: make([]byte, n)}
	}
	size := roundUp(n)
	if n >= minMapped {
		if m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err == nil {
			// One call instead of a fault for each page; old kernels cannot.
			_ = unix.Madvise(m[:n], unix.MADV_POPULATE_WRITE)
			account(size)
			return memory{m, true}
		} // else there are too many mappings, or too little of the address space allowed
	}
	return memory{bytes: make([]byte, size)}
}

// fits reports whether m serves for n bytes as it is.
func (m memory) fits(n int) bool { return len(m.bytes) >= n && len(m.bytes) <= n+n/2 }

// resize gives mapped memory of at least n bytes and arbitrary content, made of
// m's pages; m is gone in any case.
func (m memory) resize(n int) (memory, bool) {
	before, size := len(m.bytes), roundUp(n)
	b, err := unix.Mremap(m.bytes, size, unix.MREMAP_MAYMOVE)
	if err != nil {
		m.drop()
		return memory{}, false
	}
	account(size - before)
	if n > before { // whole pages, as every class is
		_ = unix.Madvise(b[before:n], unix.MADV_POPULATE_WRITE)
	}
	return memory{b, true}, true
}

// drop frees memory that nobody uses any more.
func (m memory) drop() {
	if !m.mapped {
		return
	}
	if err := unix.Munmap(m.bytes); err != nil {
		panic("buffer: unmap: " + err.Error()) // it was freed already, or is not ours
	}
	account(-len(m.bytes))
}

// roundUp gives the size class of n ≥ 8 bytes: there are four to each power of
// two, so that memory fits later buffers and at most a quarter of it lies idle.
// From minMapped on a class is a number of pages of 4 KiB.
func roundUp(n int) int {
	shift := bits.Len(uint(n-1)) - 3
	return (n + 1<<shift - 1) >> shift << shift
}
