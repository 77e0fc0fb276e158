package compress

import (
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// lz4 decodes one raw block, which does not say how long its plaintext is.
func (d *Decompressor) lz4(body []byte, size, limit int) (*buffer.Buffer, error) {
	if len(body) == 0 { // even no plaintext takes a byte
		return nil, fmt.Errorf("lz4: %w", io.ErrUnexpectedEOF)
	}
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
			return 0, ErrTooLarge
		}
	}
	return total, nil
}
