package compress

import (
	"os"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// TestPayloadGoesAway: a payload in a mapped file may become unreadable while
// it is opened. The memory for its plaintext is given back all the same.
func TestPayloadGoesAway(t *testing.T) {
	before := buffer.Outstanding()
	pool := &buffer.Pool{}
	d, err := New(pool)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	const size = 256 << 10
	for name, head := range map[string][]byte{
		"copied":   {None, 0},
		"streamed": {0x78, 0x01, 0, 0xff, 0xff, 0, 0}, // zlib, a stored block of 64 KiB
	} {
		payload, err := unix.Mmap(-1, 0, size+2, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		copy(payload, head)
		if err := unix.Mprotect(payload[page:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		if !faults(func() { _, _ = d.Decompress(payload, size, size) }) {
			t.Errorf("%s: no fault", name)
		}
		if err := unix.Munmap(payload); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	pool.Close()
	if left := buffer.Outstanding() - before; left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}

// faults reports whether fn touches memory that is not there.
func faults(fn func()) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	fn()
	return false
}
