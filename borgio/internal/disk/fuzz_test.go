package disk

import (
	"bytes"
	"os"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

func FuzzSegment(f *testing.F) {
	for _, n := range []string{"0", "1", "2", "3"} {
		b, err := os.ReadFile("../../testdata/mode-none/data/0/" + n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, pool := bytes.NewReader(in), &buffer.Pool{}
		defer pool.Close()
		_ = walkSegment(r, int64(len(in)), func(off int64, e entry) error {
			if off+int64(e.size) > int64(len(in)) {
				t.Fatalf("entry of %d bytes at %d of %d", e.size, off, len(in))
			}
			if b, err := readPut(r, off, e.id, 100, pool); err == nil {
				if len(b.Data) != int(e.size)-putHeaderSize {
					t.Fatalf("object of %d bytes in an entry of %d", len(b.Data), e.size)
				}
				b.Release()
			}
			return nil
		})
		_, _ = isCommitted(r, int64(len(in)))
	})
}

func FuzzIndex(f *testing.F) {
	head := []byte("BORG_IDX\x01\x00\x00\x00\x02\x00\x00\x00\x20\x08")
	f.Add(append(head, make([]byte, 80)...), []byte{})
	integrity, err := os.ReadFile("../../testdata/mode-none/integrity.9")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(head, bytes.Repeat([]byte{0xff}, 80)...), integrity)
	f.Fuzz(func(t *testing.T, in, integrity []byte) {
		digests, _ := parseIntegrity(integrity)
		_ = checkIndex("index.9", in, digests)
		if x, err := parseIndex(in); err == nil {
			x.lookup([32]byte{1, 2, 3})
			x.lookup([32]byte{})
		}
	})
}
