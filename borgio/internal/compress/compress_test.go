package compress

import (
	"bytes"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// TestBombsAreRefused feeds small payloads that would unpack to far more than
// a caller allows.
func TestBombsAreRefused(t *testing.T) {
	d, err := New(&buffer.Pool{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	lz4 := append([]byte{compLZ4, 0, 0x1f, 'a', 1, 0}, bytes.Repeat([]byte{255}, 1<<16)...)
	zstd := []byte{compZstd, 0, 0x28, 0xb5, 0x2f, 0xfd, 0xe4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}
	for name, bomb := range map[string][]byte{"lz4": lz4, "zstd": zstd} {
		for _, size := range []int{UnknownSize, 1000} {
			if b, err := d.Decompress(bomb, size, 1<<20); err == nil {
				t.Errorf("%s: %d bytes came out", name, len(b.Data))
			}
		}
	}
	if _, err := newXZReader(append([]byte(xzMagic), make([]byte, 6)...), 1000); err == nil {
		t.Error("xz: an empty container was accepted")
	}
}
