// Package compress opens the payloads of BorgBackup 1.x objects: 2 bytes that
// tell the compression, then the compressed plaintext.
package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// The first byte of a payload tells how it is compressed, and the second is
// zero, except for zlib, whose own header stands there.
const (
	None          = 0
	compLZ4       = 1
	compLZMA      = 2
	compZstd      = 3
	compObfuscate = 4
)

// UnknownSize as a plaintext's size means that only the limit is known.
const UnknownSize = -1

var errTooLarge = errors.New("plaintext is larger than allowed")

// Decompressor opens payloads. It is safe for concurrent use.
type Decompressor struct {
	pool *buffer.Pool
	zstd *zstd.Decoder
}

// New makes a Decompressor whose plaintexts lie in the pool's buffers.
func New(pool *buffer.Pool) (*Decompressor, error) {
	// Frames never decode beyond the capacity that they are given.
	z, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &Decompressor{pool, z}, nil
}

// Close ends the decoders.
func (d *Decompressor) Close() { d.zstd.Close() }

// Decompress gives the plaintext of a payload: exactly size bytes, or at most
// limit when size is UnknownSize. The payload is not changed.
func (d *Decompressor) Decompress(payload []byte, size, limit int) (*buffer.Buffer, error) {
	if size > limit {
		return nil, errTooLarge
	}
	if len(payload) >= 2 && payload[0] == compObfuscate && payload[1] == 0 {
		if len(payload) < 6 {
			return nil, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(payload[2:])
		if payload = payload[6:]; uint64(n) > uint64(len(payload)) {
			return nil, io.ErrUnexpectedEOF
		}
		payload = payload[:n]
	}
	if len(payload) < 2 {
		return nil, io.ErrUnexpectedEOF
	}
	kind, zero, body := payload[0], payload[1], payload[2:]
	switch {
	case kind == None && zero == 0:
		if size != UnknownSize && len(body) != size || len(body) > limit {
			return nil, fmt.Errorf("%d bytes of plaintext", len(body))
		}
		return d.fill(len(body), func(mem []byte) error {
			copy(mem, body)
			return nil
		})
	case kind == compLZ4 && zero == 0:
		return d.lz4(body, size, limit)
	case kind == compZstd && zero == 0:
		return d.zstandard(body, size, limit)
	case kind == compLZMA && zero == 0:
		r, err := newXZReader(body, maxPlain(size, limit))
		if err != nil {
			return nil, err
		}
		return d.drain(r, size, limit)
	case kind&0x0f == 8 && binary.BigEndian.Uint16(payload)%31 == 0:
		r, err := zlib.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return d.drain(r, size, limit)
	}
	return nil, fmt.Errorf("%w: compression %#02x%02x", fault.ErrUnsupported, kind, zero)
}

// fill gives a buffer of n bytes which fn has filled. Nothing is kept if fn
// fails, or does not return: a payload may lie in a file that is mapped, and
// become unreadable.
func (d *Decompressor) fill(n int, fn func(mem []byte) error) (*buffer.Buffer, error) {
	b := d.pool.Get(n)
	defer func() {
		if b != nil {
			b.Release()
		}
	}()
	if err := fn(b.Data); err != nil {
		return nil, err
	}
	full := b
	b = nil
	return full, nil
}

func maxPlain(size, limit int) int {
	if size != UnknownSize {
		return size
	}
	return limit
}

// lz4 decodes one raw block, which does not say how long its plaintext is.
func (d *Decompressor) lz4(body []byte, size, limit int) (*buffer.Buffer, error) {
	if size == UnknownSize {
		var err error
		if size, err = lz4Size(body, limit); err != nil {
			return nil, err
		}
	}
	b, err := d.fill(max(size, 1), func(mem []byte) error {
		n, err := lz4.UncompressBlock(body, mem)
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes of plaintext where %d are due", n, size)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lz4: %w", err)
	}
	b.Data = b.Data[:size]
	return b, nil
}

// lz4Size adds up the sequences of a raw lz4 block.
func lz4Size(src []byte, limit int) (int, error) {
	pos, total := 0, 0
	length := func(nibble byte) int {
		n := int(nibble)
		for more := nibble == 15; more && pos < len(src) && n <= limit; pos++ {
			n += int(src[pos])
			more = src[pos] == 255
		}
		return n
	}
	for pos < len(src) {
		token := src[pos]
		pos++
		literals := length(token >> 4)
		if literals > len(src)-pos {
			return 0, fmt.Errorf("lz4: %w", io.ErrUnexpectedEOF)
		}
		pos += literals
		total += literals
		if pos < len(src) { // the last sequence has literals only
			pos += 2 // offset
			total += length(token&15) + 4
		}
		if total > limit {
			return 0, errTooLarge
		}
	}
	return total, nil
}

func (d *Decompressor) zstandard(body []byte, size, limit int) (*buffer.Buffer, error) {
	var h zstd.Header
	if err := h.Decode(body); err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	switch {
	case !h.HasFCS:
		return nil, errors.New("zstd: frame does not tell its size")
	case h.FrameContentSize > uint64(maxPlain(size, limit)):
		return nil, errTooLarge
	case size != UnknownSize && h.FrameContentSize != uint64(size):
		return nil, fmt.Errorf("zstd: %d bytes of plaintext where %d are due", h.FrameContentSize, size)
	}
	n := int(h.FrameContentSize)
	b, err := d.fill(max(n, 1), func(mem []byte) error {
		out, err := d.zstd.DecodeAll(body, mem[:0:len(mem)])
		if err == nil && (len(out) != n || n > 0 && &out[0] != &mem[0]) {
			err = fmt.Errorf("%d bytes of plaintext where %d are due", len(out), n)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	b.Data = b.Data[:n]
	return b, nil
}

// drain reads a decompressed stream to its end.
func (d *Decompressor) drain(r io.Reader, size, limit int) (*buffer.Buffer, error) {
	grow := size == UnknownSize
	if grow {
		size = min(64<<10, limit)
	}
	b := d.pool.Get(size + 1) // the end is seen by reading past it
	defer func() {
		if b != nil { // see fill
			b.Release()
		}
	}()
	n := 0
	for {
		m, err := io.ReadFull(r, b.Data[n:])
		n += m
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF && n < len(b.Data):
			if n > limit || !grow && n != size {
				return nil, fmt.Errorf("%d bytes of plaintext", n)
			}
			full := b
			full.Data = full.Data[:n]
			b = nil
			return full, nil
		case err != nil:
			return nil, fmt.Errorf("decompress: %w", err)
		case !grow || n > limit:
			return nil, errTooLarge
		}
		b = d.pool.Grow(b, n, min(2*n, limit+1))
	}
}

// Of an xz container only the frame of its first block matters: the object's
// id verifies what comes out, so the container's own checksums need not.
const (
	xzMagic           = "\xfd7zXZ\x00"
	xzStreamHeader    = 12
	xzFilterLZMA2     = 0x21
	xzMaxDictionary   = 40 // the property byte's largest legal value
	xzMinDictionary   = 4096
	xzFlagPacked      = 0x40
	xzFlagUnpacked    = 0x80
	xzFlagFilters     = 0x03
	xzFlagsKnown      = xzFlagPacked | xzFlagUnpacked | xzFlagFilters
	xzMaxVarintLength = 9
)

// newXZReader reads the only block of an .xz container whose plaintext has at
// most limit bytes. The dictionary never takes more memory than that.
func newXZReader(src []byte, limit int) (io.Reader, error) {
	bad := func(what string) (io.Reader, error) { return nil, fmt.Errorf("xz: %s", what) }
	if len(src) < xzStreamHeader+8 || string(src[:len(xzMagic)]) != xzMagic {
		return bad("no header")
	}
	src = src[xzStreamHeader:]
	if src[0] == 0 { // the index comes at once: no block, no plaintext
		return bytes.NewReader(nil), nil
	}
	size := 4 * (int(src[0]) + 1)
	if size > len(src) {
		return bad("block header is cut short")
	}
	head, body := src[2:size-4], src[size:]
	flags := src[1]
	if flags&^xzFlagsKnown != 0 || flags&xzFlagFilters != 0 {
		return bad("more than one filter")
	}
	for _, f := range []byte{xzFlagPacked, xzFlagUnpacked} {
		if flags&f != 0 {
			_, n := binary.Uvarint(head)
			if n < 1 || n > xzMaxVarintLength {
				return bad("block header")
			}
			head = head[n:]
		}
	}
	if len(head) < 3 || head[0] != xzFilterLZMA2 || head[1] != 1 || head[2] > xzMaxDictionary {
		return bad("filter is not lzma2")
	}
	dictionary := uint64(math.MaxUint32)
	if p := head[2]; p < xzMaxDictionary {
		dictionary = uint64(2|p&1) << (p/2 + 11)
	}
	c := lzma.Reader2Config{DictCap: int(max(min(dictionary, uint64(limit)), xzMinDictionary))}
	r, err := c.NewReader2(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return r, nil
}
