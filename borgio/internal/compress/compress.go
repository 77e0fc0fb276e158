// Package compress opens and makes the payloads of BorgBackup 1.x objects: 2 bytes
// that tell the compression, then the compressed plaintext.
//
// # Memory
//
// A plaintext takes its own length from the pool, up to twice that while it
// grows, and never more than the limit. What does not fit is refused before
// memory is taken for it, or for zlib, whose streams do not tell their size,
// as soon as it shows. On the heap a payload of n bytes takes at most
// 2 MiB + 64 n, and for lzma a dictionary no longer than the plaintext.
package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

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

// ErrTooLarge says that a plaintext is longer than its limit.
var ErrTooLarge = errors.New("plaintext is larger than allowed")

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
// limit when size is UnknownSize, where more gives [ErrTooLarge]. The payload is
// not changed.
func (d *Decompressor) Decompress(payload []byte, size, limit int) (*buffer.Buffer, error) {
	if size > limit {
		return nil, ErrTooLarge
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
		switch {
		case len(body) > limit:
			return nil, ErrTooLarge
		case size != UnknownSize && len(body) != size:
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
		r, n, err := newXZReader(body, maxPlain(size, limit))
		if err != nil {
			return nil, err
		}
		if size != UnknownSize && n != size {
			return nil, fmt.Errorf("xz: %d bytes of plaintext where %d are due", n, size)
		}
		return d.drain(r, n, limit)
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

// A block of a zstd frame takes 4 bytes at least, one byte repeated, and gives
// at most 128 KiB.
const (
	zstdMinBlock = 4
	zstdMaxPlain = 128 << 10
)

func (d *Decompressor) zstandard(body []byte, size, limit int) (*buffer.Buffer, error) {
	var h zstd.Header
	if err := h.Decode(body); err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	switch {
	case !h.HasFCS:
		return nil, errors.New("zstd: frame does not tell its size")
	case h.FrameContentSize > uint64(maxPlain(size, limit)):
		return nil, ErrTooLarge
	case size != UnknownSize && h.FrameContentSize != uint64(size):
		return nil, fmt.Errorf("zstd: %d bytes of plaintext where %d are due", h.FrameContentSize, size)
	}
	// A frame of a few bytes must not make us prepare for its claim.
	if h.FrameContentSize > uint64(len(body)/zstdMinBlock+1)*zstdMaxPlain {
		return nil, fmt.Errorf("zstd: %w", io.ErrUnexpectedEOF)
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
			return nil, ErrTooLarge
		}
		b = d.pool.Grow(b, n, min(2*n, limit+1))
	}
}
