package disk

import (
	"errors"
	"hash/crc32"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMappedFileIsCut: a page that goes away under a reader is an error of that
// read, and not the end of the process.
func TestMappedFileIsCut(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/segment")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if m := mapRange(f, 1000, 1<<20); m != nil {
		t.Error("a range past the end was mapped")
	}
	m := mapRange(f, 1000, 1<<19)
	if m == nil || len(m.Data) != 1<<19 {
		t.Fatalf("mapped: %v", m)
	}
	defer m.Release()
	sum := func() { crc32.ChecksumIEEE(m.Data) }
	if err := OnFault(sum); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := OnFault(sum); !errors.Is(err, unix.EIO) {
		t.Errorf("after: %v", err)
	}
}
