package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ulikunitz/xz/lzma"
)

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

// newXZReader reads the only block of an .xz container, whose plaintext has n
// bytes, at most limit. The dictionary takes no more memory than that.
func newXZReader(src []byte, limit int) (r io.Reader, n int, err error) {
	bad := func(what string) (io.Reader, int, error) { return nil, 0, fmt.Errorf("xz: %s", what) }
	if len(src) < xzStreamHeader+8 || string(src[:len(xzMagic)]) != xzMagic {
		return bad("no header")
	}
	src = src[xzStreamHeader:]
	if src[0] == 0 { // the index comes at once: no block, no plaintext
		return bytes.NewReader(nil), 0, nil
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
	if n, err = lzma2Size(body, limit); err != nil {
		return nil, 0, fmt.Errorf("xz: %w", err)
	}
	c := lzma.Reader2Config{DictCap: int(max(min(dictionary, uint64(n)), xzMinDictionary))}
	if r, err = c.NewReader2(bytes.NewReader(body)); err != nil {
		return nil, 0, fmt.Errorf("xz: %w", err)
	}
	return r, n, nil
}

// The control byte of an LZMA2 chunk. A packed chunk's has the bits 16 to 20
// of the plaintext's length, less one, and whether a byte of properties
// follows.
const (
	lzma2End         = 0x00
	lzma2CopiedReset = 0x01
	lzma2Copied      = 0x02
	lzma2Packed      = 0x80
	lzma2Properties  = 0x40
	lzma2LengthBits  = 0x1f
)

// Each chunk makes the decoder set itself up again. liblzma, which is what
// borg uses, ends one only after 64 KiB of packed or 2 MiB of plain bytes, so
// these are many times more than a true stream has.
const (
	lzma2FreeChunks = 32
	lzma2BytesChunk = 4 << 10
)

var errManyChunks = errors.New("too many chunks for its length")

// lzma2Size adds up the plaintexts of the chunks of an LZMA2 stream.
func lzma2Size(src []byte, limit int) (total int, err error) {
	most := lzma2FreeChunks + len(src)/lzma2BytesChunk
	for range most {
		if len(src) < 1 {
			return 0, io.ErrUnexpectedEOF
		}
		c := src[0]
		if c == lzma2End {
			return total, nil
		}
		if len(src) < 3 || c >= lzma2Packed && len(src) < 5 {
			return 0, io.ErrUnexpectedEOF
		}
		plain := int(binary.BigEndian.Uint16(src[1:])) + 1
		skip := 3 + plain
		switch {
		case c >= lzma2Packed:
			plain += int(c&lzma2LengthBits) << 16
			skip = 5 + int(binary.BigEndian.Uint16(src[3:])) + 1
			if c&lzma2Properties != 0 {
				if skip++; len(src) < 6 {
					return 0, io.ErrUnexpectedEOF
				}
				// More would take megabytes for each chunk; LZMA2 forbids it.
				if lc, lp := src[5]%9, src[5]/9%5; src[5] >= 5*5*9 || lc+lp > 4 {
					return 0, fmt.Errorf("properties %#02x", src[5])
				}
			}
		case c != lzma2Copied && c != lzma2CopiedReset:
			return 0, fmt.Errorf("control byte %#02x", c)
		}
		if total += plain; total > limit {
			return 0, ErrTooLarge
		}
		if skip > len(src) {
			return 0, io.ErrUnexpectedEOF
		}
		src = src[skip:]
	}
	return 0, errManyChunks
}
