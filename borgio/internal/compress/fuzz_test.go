package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/heap"
)

// frozenPayloads gives what a frozen repository without encryption stores, as
// borg compressed it.
func frozenPayloads(tb testing.TB, name string) (payloads [][]byte) {
	tb.Helper()
	segments, err := filepath.Glob("../../testdata/" + name + "/data/0/*")
	if err != nil || len(segments) == 0 {
		tb.Fatalf("no segments: %v", err)
	}
	const magic, header, typed = 8, 9, 9 + 32 + 1
	for _, path := range segments {
		b, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		for b = b[magic:]; len(b) > header; {
			size := binary.LittleEndian.Uint32(b[4:])
			if b[8] == 0 {
				payloads = append(payloads, b[typed:size])
			}
			b = b[size:]
		}
	}
	return payloads
}

const fuzzLimit = 1 << 20

// bound is what the package comment allows on the heap for one payload. The
// decoders make tables anew for each block, of at least a few bytes.
func bound(payload, plain int) int { return 2<<20 + 64*payload + plain }

// check opens a payload with and without its size known, and tells what came
// out. However it is opened, the outcome is the same.
func check(t *testing.T, d *Decompressor, payload []byte) ([]byte, error) {
	before := bytes.Clone(payload)
	var plain []byte
	var err error
	over := heap.Over(bound(len(payload), fuzzLimit), func() {
		var b *buffer.Buffer
		if b, err = d.Decompress(payload, UnknownSize, fuzzLimit); err != nil {
			return
		}
		if len(b.Data) > fuzzLimit {
			t.Errorf("%d bytes", len(b.Data))
		}
		plain = bytes.Clone(b.Data)
		b.Release()
	})
	if over > 0 {
		t.Errorf("%d bytes on the heap over the bound", over)
	}
	if err == nil {
		b, err := d.Decompress(payload, len(plain), fuzzLimit)
		if err != nil || !bytes.Equal(b.Data, plain) {
			t.Fatalf("with its size known: %v", err)
		}
		b.Release()
		for _, n := range []int{len(plain) - 1, len(plain) + 1} {
			if n < 0 || n > fuzzLimit {
				continue
			}
			if _, err := d.Decompress(payload, n, fuzzLimit); err == nil {
				t.Fatalf("%d bytes passed for %d", len(plain), n)
			}
		}
		if len(plain) > 0 {
			if _, err := d.Decompress(payload, UnknownSize, len(plain)-1); err == nil {
				t.Fatalf("%d bytes came out under a limit of one less", len(plain))
			}
		}
	}
	if !bytes.Equal(before, payload) {
		t.Fatal("the payload was changed")
	}
	return plain, err
}

func newDecompressor(tb testing.TB) *Decompressor {
	tb.Helper()
	pool := &buffer.Pool{}
	d, err := New(pool)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Close(); pool.Close() })
	return d
}

// FuzzDecompress opens payloads of any kind, wrapped in an obfuscation too.
func FuzzDecompress(f *testing.F) {
	for _, name := range []string{"none", "lz4", "zstd-3", "zlib-6", "lzma-6", "auto-zstd-3", "obfuscate-110-lz4"} {
		for _, p := range frozenPayloads(f, "comp-"+name) {
			f.Add(p)
		}
	}
	d := newDecompressor(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		plain, err := check(t, d, in)
		if len(in) > 1 && in[0] == compObfuscate && in[1] == 0 {
			return // one within another is nothing that borg makes
		}
		wrapped := binary.BigEndian.AppendUint32([]byte{compObfuscate, 0}, uint32(len(in)))
		wrapped = append(append(wrapped, in...), "some padding"...)
		again, err2 := check(t, d, wrapped)
		if !bytes.Equal(plain, again) || (err == nil) != (err2 == nil) {
			t.Fatalf("%d bytes, %v; obfuscated %d bytes, %v", len(plain), err, len(again), err2)
		}
	})
}

// seeded makes a target of one compression's bodies, without the two bytes
// that name it.
func seeded(f *testing.F, name string, kind byte) *Decompressor {
	for _, p := range frozenPayloads(f, name) {
		if p[0] == kind {
			f.Add(p[2:])
		}
	}
	return newDecompressor(f)
}

func FuzzZstd(f *testing.F) {
	d := seeded(f, "comp-zstd-3", compZstd)
	f.Fuzz(func(t *testing.T, body []byte) { _, _ = check(t, d, append([]byte{compZstd, 0}, body...)) })
}

func FuzzLZMA(f *testing.F) {
	d := seeded(f, "comp-lzma-6", compLZMA)
	f.Fuzz(func(t *testing.T, body []byte) { _, _ = check(t, d, append([]byte{compLZMA, 0}, body...)) })
}

func FuzzZlib(f *testing.F) {
	for _, p := range frozenPayloads(f, "comp-zlib-6") {
		f.Add(p)
	}
	d := newDecompressor(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 2 { // most changes of the header just make it another kind
			in[0], in[1] = 0x78, 0x9c
		}
		_, _ = check(t, d, in)
	})
}

// slowLZ4 decodes a raw block by the letter of its description, byte by byte.
// A block that ends with the length of a match but no match is odd: decoders
// differ on it, and none writes it.
func slowLZ4(src []byte, limit int) (plain []byte, odd bool, err error) {
	bad := errors.New("not a block")
	var out []byte
	next := func() (byte, bool) {
		if len(src) == 0 {
			return 0, false
		}
		c := src[0]
		src = src[1:]
		return c, true
	}
	length := func(n int) (int, bool) {
		if n < 15 {
			return n, true
		}
		for {
			c, ok := next()
			if n += int(c); !ok || c != 255 {
				return n, ok
			}
		}
	}
	for {
		token, ok := next()
		if !ok {
			return nil, false, bad
		}
		n, ok := length(int(token >> 4))
		if !ok || n > len(src) || len(out)+n > limit {
			return nil, false, bad
		}
		out, src = append(out, src[:n]...), src[n:]
		if len(src) == 0 {
			return out, token&15 != 0, nil
		}
		low, _ := next()
		high, ok := next()
		offset := int(low) | int(high)<<8
		if n, ok2 := length(int(token & 15)); !ok || !ok2 || offset == 0 || offset > len(out) || len(out)+n+4 > limit {
			return nil, false, bad
		} else {
			for range n + 4 {
				out = append(out, out[len(out)-offset])
			}
		}
		if len(src) == 0 { // without last literals: ours takes that too
			return out, false, nil
		}
	}
}

// FuzzLZ4 compares with the slow decoder; both see the same blocks as valid,
// and the size scan finds what comes out. The fast one is written in assembly,
// so its memory ends where no page is.
func FuzzLZ4(f *testing.F) {
	d := seeded(f, "comp-lz4", compLZ4)
	f.Add([]byte{0x1f, 'a', 1, 0, 255, 255, 7, 0x50, 'b', 'c', 'd', 'e', 'f'})
	src, dst := guarded(f, fuzzLimit), guarded(f, fuzzLimit)
	f.Fuzz(func(t *testing.T, body []byte) {
		want, odd, wantErr := slowLZ4(body, fuzzLimit)
		got, err := check(t, d, append([]byte{compLZ4, 0}, body...))
		if ((err == nil) != (wantErr == nil) || !bytes.Equal(got, want)) && (!odd || err == nil) {
			t.Fatalf("%d bytes, %v; slowly %d bytes, %v", len(got), err, len(want), wantErr)
		}
		if n, err := lz4Size(body, fuzzLimit); wantErr == nil && (err != nil || n != len(want)) {
			t.Fatalf("size %d, %v, of %d bytes", n, err, len(want))
		}
		if len(body) > len(src) {
			return
		}
		in := src[len(src)-len(body):]
		copy(in, body)
		for _, n := range []int{len(want), len(want) / 2, len(body)} {
			if n <= len(dst) {
				_, _ = lz4.UncompressBlock(in, dst[len(dst)-n:]) // must only not fault
			}
		}
	})
}

// guarded is memory with nothing behind it.
func guarded(tb testing.TB, n int) []byte {
	tb.Helper()
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, n+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.Mprotect(m[n:], unix.PROT_NONE); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Munmap(m) })
	return m[:n]
}
