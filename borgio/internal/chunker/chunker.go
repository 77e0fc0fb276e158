// Package chunker cuts files as BorgBackup 1.x does with "buzhash,19,23,21,4095",
// to the byte: content that was stored by the one is not stored again by the
// other.
//
// # How it cuts
//
// A rolling hash runs over windows of 4,095 bytes. A chunk ends before the first
// window, at least min bytes into the chunk, whose hash has its low bits zero and
// which does not end at max bytes or with the file; there the chunk does. Where a
// chunk ends thus depends on its own bytes and on the window behind it, and
// cutting may begin anew at any cut.
package chunker

import (
	"errors"
	"io"
	"math/bits"
)

// Params are Borg's: exponents of 2, and the window in bytes.
type Params struct {
	MinExp, MaxExp, MaskBits, Window int
}

// Files are the parameters that Borg has for files when it is told no others.
var Files = Params{19, 23, 21, 4095}

// Items are the parameters for an item that is too large for one object.
var Items = Params{17, 20, 19, 4095}

// Hash is the rolling hash under one seed. It is safe for concurrent use.
type Hash struct {
	min, max, window int
	mask             uint32
	in, out          [256]uint32 // of a byte that enters the window, and leaves it
}

// NewHash makes a Hash; the seed is the key's chunk_seed.
func NewHash(p Params, seed int32) *Hash {
	h := &Hash{min: 1 << p.MinExp, max: 1 << p.MaxExp, window: p.Window, mask: 1<<p.MaskBits - 1}
	for i, t := range table {
		h.in[i] = t ^ uint32(seed)
		h.out[i] = bits.RotateLeft32(h.in[i], p.Window)
	}
	return h
}

// Window is how far behind its end, in bytes, a chunk's end depends on.
func (h *Hash) Window() int { return h.window }

// begin is the hash of the first window.
func (h *Hash) begin(window []byte) (sum uint32) {
	for _, c := range window {
		sum = bits.RotateLeft32(sum, 1) ^ h.in[c]
	}
	return sum
}

// rollBlock is how many bytes are rolled over without looking for the end, and
// without bounds that the compiler would have to check.
const rollBlock = 256

// roll moves the window until its hash fits the mask or enter ends, and tells by
// how far. The race detector would look at each byte four times, and nobody but
// the Chunker that calls has them: it is told of the reads that fill its buffer.
//
// This is most of what cutting costs, so each byte has as few instructions as it
// can, and one variable: with several the compiler runs out of registers.
//
//go:norace
func (h *Hash) roll(sum uint32, leave, enter []byte) (moved int, after uint32) {
	mask := h.mask
	at := 0
	for ; len(enter)-at >= rollBlock; at += rollBlock {
		l, e := (*[rollBlock]byte)(leave[at:]), (*[rollBlock]byte)(enter[at:])
		for i := 0; i < rollBlock; i += 8 {
			if sum&mask == 0 {
				return at + i, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i]] ^ h.in[e[i]])
			if sum&mask == 0 {
				return at + i + 1, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+1]] ^ h.in[e[i+1]])
			if sum&mask == 0 {
				return at + i + 2, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+2]] ^ h.in[e[i+2]])
			if sum&mask == 0 {
				return at + i + 3, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+3]] ^ h.in[e[i+3]])
			if sum&mask == 0 {
				return at + i + 4, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+4]] ^ h.in[e[i+4]])
			if sum&mask == 0 {
				return at + i + 5, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+5]] ^ h.in[e[i+5]])
			if sum&mask == 0 {
				return at + i + 6, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+6]] ^ h.in[e[i+6]])
			if sum&mask == 0 {
				return at + i + 7, sum
			}
			sum = bits.RotateLeft32(sum, 1) ^ (h.out[l[i+7]] ^ h.in[e[i+7]])
		}
	}
	for ; at < len(enter) && sum&mask != 0; at++ {
		sum = bits.RotateLeft32(sum, 1) ^ (h.out[leave[at]] ^ h.in[enter[at]])
	}
	return at, sum
}

// readBlock is how much is asked of a reader at a time, in bytes, but for the
// first time: that is for files that fit one chunk.
const readBlock = 512 << 10

// Chunker cuts a stream. Its memory grows with the longest chunk that it meets,
// and is used again after [Chunker.Reset].
type Chunker struct {
	hash  *Hash
	src   io.Reader
	buf   []byte
	start int // of what was not yet given
	end   int // of what was read
	err   error
}

// New makes a Chunker without a stream.
func New(h *Hash) *Chunker { return &Chunker{hash: h, err: io.EOF} }

// Reset begins with another stream, at its start or at any cut of it. nil lets
// go of the last one.
func (c *Chunker) Reset(src io.Reader) {
	c.src, c.start, c.end, c.err = src, 0, 0, nil
	if src == nil {
		c.err = io.EOF
	}
}

// Next gives the next chunk, which is valid until the next call; io.EOF at the
// end.
func (c *Chunker) Next() ([]byte, error) {
	h := c.hash
	c.fill(h.min + h.window + 1)
	n := c.end - c.start
	if n > h.min+h.window {
		n = h.min
		sum := h.begin(c.buf[c.start+n : c.start+n+h.window])
		for {
			limit := min(h.max, c.end-c.start)
			var moved int
			moved, sum = h.roll(sum, c.buf[c.start+n:], c.buf[c.start+n+h.window:c.start+limit])
			n += moved
			if n+h.window < limit {
				break
			}
			if limit == h.max || c.err != nil {
				n = limit
				break
			}
			c.fill(min(limit+readBlock, h.max))
		}
	}
	if c.err != nil && !errors.Is(c.err, io.EOF) {
		return nil, c.err
	}
	if n == 0 {
		return nil, io.EOF
	}
	chunk := c.buf[c.start : c.start+n]
	c.start += n
	return chunk, nil
}

// Ended reports whether the last chunk that Next gave is known to be the
// stream's last.
func (c *Chunker) Ended() bool { return c.err != nil && c.start == c.end }

// Memory is how much the Chunker holds, in bytes.
func (c *Chunker) Memory() int { return cap(c.buf) }

// fill reads until there are n bytes that were not given, or the stream ends.
func (c *Chunker) fill(n int) {
	if c.err != nil || c.end-c.start >= n {
		return
	}
	if c.start+n > len(c.buf) {
		into := c.buf
		if n > len(c.buf) {
			into = make([]byte, max(n, min(2*len(c.buf), c.hash.max)))
		}
		c.end = copy(into, c.buf[c.start:c.end])
		c.buf, c.start = into, 0
	}
	read, err := io.ReadAtLeast(c.src, c.buf[c.end:], c.start+n-c.end)
	c.end += read
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	c.err = err
}
