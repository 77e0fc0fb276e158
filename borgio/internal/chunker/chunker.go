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

// roll moves the window until its hash fits the mask or enter ends, and tells by
// how far. The race detector would look at each byte four times, and nobody but
// the Chunker that calls has them: it is told of the reads that fill its buffer.
//
//go:norace
func (h *Hash) roll(sum uint32, leave, enter []byte) (moved int, after uint32) {
	mask := h.mask
	at := 0
	for len(enter) >= 8 && len(leave) >= 8 {
		l, e := (*[8]byte)(leave), (*[8]byte)(enter)
		// What enters and leaves does not depend on the hash, so only two
		// operations a byte wait for one another.
		s0 := sum
		s1 := bits.RotateLeft32(s0, 1) ^ (h.out[l[0]] ^ h.in[e[0]])
		s2 := bits.RotateLeft32(s1, 1) ^ (h.out[l[1]] ^ h.in[e[1]])
		s3 := bits.RotateLeft32(s2, 1) ^ (h.out[l[2]] ^ h.in[e[2]])
		s4 := bits.RotateLeft32(s3, 1) ^ (h.out[l[3]] ^ h.in[e[3]])
		s5 := bits.RotateLeft32(s4, 1) ^ (h.out[l[4]] ^ h.in[e[4]])
		s6 := bits.RotateLeft32(s5, 1) ^ (h.out[l[5]] ^ h.in[e[5]])
		s7 := bits.RotateLeft32(s6, 1) ^ (h.out[l[6]] ^ h.in[e[6]])
		if s0&mask == 0 || s1&mask == 0 || s2&mask == 0 || s3&mask == 0 ||
			s4&mask == 0 || s5&mask == 0 || s6&mask == 0 || s7&mask == 0 {
			break
		}
		sum = bits.RotateLeft32(s7, 1) ^ (h.out[l[7]] ^ h.in[e[7]])
		leave, enter = leave[8:], enter[8:]
		at += 8
	}
	for i := 0; i < len(enter) && sum&mask != 0; i++ {
		sum = bits.RotateLeft32(sum, 1) ^ h.out[leave[i]] ^ h.in[enter[i]]
		at++
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
