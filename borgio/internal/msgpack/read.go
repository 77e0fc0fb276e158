// Package msgpack reads and writes the part of MessagePack that BorgBackup 1.x
// uses. Reading happens in place: byte strings are slices of the input.
//
// Borg speaks the old dialect of MessagePack, in which text and bytes are one
// type, "raw" (fixraw, raw16, raw32). The reader accepts raw, str8 and bin
// alike; the writer emits only the old dialect, because Borg 1.2 servers die
// of a single bin.
//
// No function allocates more than its input is long: the counts of arrays and
// maps are checked against the bytes that are left before they are returned.
package msgpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrFormat says that the input is not the MessagePack that was expected. An
// input that merely ends too early gives [io.ErrUnexpectedEOF] instead.
var ErrFormat = errors.New("malformed msgpack")

// Kind is the type of a value.
type Kind uint8

// The kinds of values.
const (
	Invalid Kind = iota
	Nil
	Bool
	Int
	Float
	Raw
	Array
	Map
	Ext
)

// Reader reads values one after the other from a buffer.
type Reader struct {
	buf []byte
	pos int
}

// NewReader returns a Reader at the start of buf.
func NewReader(buf []byte) *Reader { return &Reader{buf: buf} }

// Reset starts the Reader anew at the start of buf.
func (r *Reader) Reset(buf []byte) { r.buf, r.pos = buf, 0 }

// Pos is the offset of the next value in the buffer.
func (r *Reader) Pos() int { return r.pos }

// Seek makes pos the offset of the next value.
func (r *Reader) Seek(pos int) { r.pos = pos }

// Len is the number of bytes not yet read.
func (r *Reader) Len() int { return len(r.buf) - r.pos }

// Peek tells the kind of the next value, Invalid at the end.
func (r *Reader) Peek() Kind {
	if r.pos >= len(r.buf) {
		return Invalid
	}
	return kindOf(r.buf[r.pos])
}

func kindOf(c byte) Kind {
	switch {
	case c <= 0x7f || c >= 0xe0 || c >= 0xcc && c <= 0xd3:
		return Int
	case c <= 0x8f || c == 0xde || c == 0xdf:
		return Map
	case c <= 0x9f || c == 0xdc || c == 0xdd:
		return Array
	case c <= 0xbf || c >= 0xc4 && c <= 0xc6 || c >= 0xd9 && c <= 0xdb:
		return Raw
	case c == 0xc0:
		return Nil
	case c == 0xc2 || c == 0xc3:
		return Bool
	case c == 0xca || c == 0xcb:
		return Float
	case c >= 0xc7 && c <= 0xc9 || c >= 0xd4 && c <= 0xd8:
		return Ext
	}
	return Invalid
}

// Header is the first part of an encoded value, before what it contains.
type Header struct {
	Kind  Kind
	Size  int    // bytes of the header itself
	Count uint64 // Raw, Ext, Float: bytes that follow; Array: values; Map: pairs
	bits  uint64 // Int: the number's two's complement, or Bool
	big   bool   // Int: does not fit an int64
}

// widths is the number of bytes after the first that each of 0xc0…0xdf needs
// before its content.
var widths = [32]uint8{
	0, 0, 0, 0, 1, 2, 4, 2, 3, 5, 0, 0, 1, 2, 4, 8,
	1, 2, 4, 8, 1, 1, 1, 1, 1, 1, 2, 4, 2, 4, 2, 4,
}

// HeaderSize is the size in bytes of a header that begins with c.
func HeaderSize(c byte) int {
	if c < 0xc0 || c >= 0xe0 {
		return 1
	}
	return 1 + int(widths[c-0xc0])
}

// ParseHeader decodes the header at the start of b. A b that ends inside the
// header gives [io.ErrUnexpectedEOF].
func ParseHeader(b []byte) (Header, error) {
	if len(b) == 0 {
		return Header{}, io.ErrUnexpectedEOF
	}
	c := b[0]
	switch {
	case c <= 0x7f:
		return Header{Kind: Int, Size: 1, bits: uint64(c)}, nil
	case c >= 0xe0:
		return Header{Kind: Int, Size: 1, bits: uint64(int64(int8(c)))}, nil
	case c <= 0x8f:
		return Header{Kind: Map, Size: 1, Count: uint64(c & 0x0f)}, nil
	case c <= 0x9f:
		return Header{Kind: Array, Size: 1, Count: uint64(c & 0x0f)}, nil
	case c <= 0xbf:
		return Header{Kind: Raw, Size: 1, Count: uint64(c & 0x1f)}, nil
	}
	w := int(widths[c-0xc0])
	if len(b) < 1+w {
		return Header{}, io.ErrUnexpectedEOF
	}
	h := Header{Kind: kindOf(c), Size: 1 + w}
	var n uint64
	switch w {
	case 1:
		n = uint64(b[1])
	case 2:
		n = uint64(binary.BigEndian.Uint16(b[1:]))
	case 4:
		n = uint64(binary.BigEndian.Uint32(b[1:]))
	case 8:
		n = binary.BigEndian.Uint64(b[1:])
	}
	switch h.Kind {
	case Invalid:
		return Header{}, fmt.Errorf("%w: type byte %#02x", ErrFormat, c)
	case Bool:
		h.bits = uint64(c & 1)
	case Float:
		h.Count = 4 << (c - 0xca)
	case Ext: // the last byte of the header is the application's type
		switch {
		case c >= 0xd4:
			h.Count = 1 << (c - 0xd4)
		case c == 0xc7:
			h.Count = uint64(b[1])
		case c == 0xc8:
			h.Count = uint64(binary.BigEndian.Uint16(b[1:]))
		default:
			h.Count = uint64(binary.BigEndian.Uint32(b[1:]))
		}
	case Int:
		switch c {
		case 0xd0:
			n = uint64(int64(int8(n)))
		case 0xd1:
			n = uint64(int64(int16(n)))
		case 0xd2:
			n = uint64(int64(int32(n)))
		}
		h.bits, h.big = n, c == 0xcf && n > math.MaxInt64
	default:
		h.Count = n
	}
	return h, nil
}

// next reads the header of a value that must be of kind k, and makes sure that
// the buffer can hold what it announces.
func (r *Reader) next(k Kind) (Header, error) {
	h, err := ParseHeader(r.buf[r.pos:])
	if err != nil {
		return h, err
	}
	if h.Kind != k {
		return h, fmt.Errorf("%w: kind %d where %d is due", ErrFormat, h.Kind, k)
	}
	need := h.Count
	if k == Map {
		need *= 2
	}
	if need > uint64(len(r.buf)-r.pos-h.Size) {
		return h, io.ErrUnexpectedEOF
	}
	r.pos += h.Size
	return h, nil
}

// Map reads the start of a map: n pairs of key and value follow.
func (r *Reader) Map() (n int, err error) {
	h, err := r.next(Map)
	return int(h.Count), err
}

// Array reads the start of an array: n values follow.
func (r *Reader) Array() (n int, err error) {
	h, err := r.next(Array)
	return int(h.Count), err
}

// Bytes reads raw bytes or text; the slice is part of the buffer.
func (r *Reader) Bytes() ([]byte, error) {
	h, err := r.next(Raw)
	if err != nil {
		return nil, err
	}
	b := r.buf[r.pos : r.pos+int(h.Count) : r.pos+int(h.Count)]
	r.pos += int(h.Count)
	return b, nil
}

// String reads raw bytes or text as a string of its own.
func (r *Reader) String() (string, error) {
	b, err := r.Bytes()
	return string(b), err
}

// Int reads a whole number; one above the int64 range is clamped to it.
func (r *Reader) Int() (int64, error) {
	h, err := r.next(Int)
	if h.big {
		return math.MaxInt64, err
	}
	return int64(h.bits), err
}

// Bool reads a truth value.
func (r *Reader) Bool() (bool, error) {
	h, err := r.next(Bool)
	return h.bits == 1, err
}

// Nil reads a nil if one is next, and tells whether it was.
func (r *Reader) Nil() bool {
	if r.Peek() != Nil {
		return false
	}
	r.pos++
	return true
}

// Skip steps over one value of any kind, however deep.
func (r *Reader) Skip() error {
	var s Skipper
	return s.Skip(r)
}

// Skipper steps over one value that arrives in pieces. The zero value is ready
// for one.
type Skipper struct {
	begun bool
	owed  uint64 // values still to come, but for those inside them
}

// Skip goes on. Where the buffer ends before the value does, the error is
// [io.ErrUnexpectedEOF]: let the Reader go on in a longer one by
// [Reader.Extend], and try again.
func (s *Skipper) Skip(r *Reader) error {
	if !s.begun {
		s.begun, s.owed = true, 1
	}
	buf, pos, owed := r.buf, r.pos, s.owed
	var err error
	for owed > 0 {
		if pos >= len(buf) {
			err = io.ErrUnexpectedEOF
			break
		}
		size, inner := 1, uint64(0)
		switch c := buf[pos]; { // what items are made of mostly, without a Header
		case c <= 0x7f || c >= 0xe0:
		case c >= 0xa0 && c <= 0xbf:
			size += int(c & 0x1f)
		case c <= 0x8f:
			inner = 2 * uint64(c&0x0f)
		case c <= 0x9f:
			inner = uint64(c & 0x0f)
		default:
			var h Header
			if h, err = ParseHeader(buf[pos:]); err != nil {
				break
			}
			size = h.Size
			switch h.Kind {
			case Map:
				inner = 2 * h.Count
			case Array:
				inner = h.Count
			case Raw, Ext, Float:
				size += int(h.Count)
			}
		}
		if err == nil && size > len(buf)-pos {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			break
		}
		pos += size
		owed += inner - 1
	}
	r.pos, s.owed = pos, owed
	return err
}

// Extend makes the Reader go on in buf, which must begin with what it has read.
func (r *Reader) Extend(buf []byte) { r.buf = buf }

// Fields reads a map whose keys are text and calls fn for each; fn must read
// the value and nothing else.
func (r *Reader) Fields(fn func(key []byte) error) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	for range n {
		key, err := r.Bytes()
		if err != nil {
			return err
		}
		if err := fn(key); err != nil {
			return fmt.Errorf("field %.40q: %w", key, err)
		}
	}
	return nil
}

// Bytes32 reads a byte string of 32 bytes, such as an id.
func (r *Reader) Bytes32(into *[32]byte) error {
	b, err := r.Bytes()
	if err != nil {
		return err
	}
	if len(b) != len(into) {
		return fmt.Errorf("id of %d bytes", len(b))
	}
	*into = [32]byte(b)
	return nil
}
