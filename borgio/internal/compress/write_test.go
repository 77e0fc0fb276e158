package compress

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// written are spellings, and the first byte that a long text's payload has.
var written = map[string]byte{
	"none": None, "lz4": compLZ4, "zstd": compZstd, "zstd,1": compZstd, "zstd,22": compZstd,
	"zlib": 0x78, "zlib,1": 0x78, "zlib,9": 0x78, "lzma": compLZMA, "lzma,0": compLZMA, "lzma,9": compLZMA,
	"auto,zstd,3": compZstd, "auto,zlib": 0x78, "auto,lzma,1": compLZMA, "auto,lz4": compLZ4, "auto,none": None,
}

func plains() map[string][]byte {
	noise := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	text := []byte(strings.Repeat("It was the best of times, it was the worst of times, ", 3000))
	for i := range text { // not all alike
		text[i] += byte(i >> 13 & 3)
	}
	zeros := 1 << 20
	if os.Getenv("S4_LONG") != "" {
		zeros = 8 << 20 // as the longest chunk
	}
	return map[string][]byte{
		"nothing": {}, "a byte": {7}, "few": []byte("hello"), "zeros": make([]byte, zeros), "noise": noise, "text": text,
		"half": append(bytes.Clone(noise[:100_000]), text[:100_000]...),
	}
}

// TestWritten: what is compressed can be read, is never longer than the
// plaintext, and is of the kind that was asked for.
func TestWritten(t *testing.T) {
	pool := &buffer.Pool{}
	defer pool.Close()
	d, err := New(pool)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for spec, kind := range written {
		t.Run(spec, func(t *testing.T) {
			c, err := NewCompressor(spec)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for name, plain := range plains() {
				wg.Go(func() {
					for _, dst := range [][]byte{nil, append(make([]byte, 0, len(plain)+50), "before"...)} {
						out := c.Append(dst, plain)
						payload := out[len(dst):]
						if !bytes.HasPrefix(out, dst) || len(payload) > Bound(len(plain)) {
							t.Errorf("%s: %d bytes for %d behind %q", name, len(payload), len(plain), out[:len(dst)])
						}
						for _, size := range []int{len(plain), UnknownSize} {
							got, err := d.Decompress(payload, size, 20<<20)
							if err != nil {
								t.Errorf("%s: %v", name, err)
								continue
							}
							if !bytes.Equal(got.Data, plain) {
								t.Errorf("%s: another plaintext", name)
							}
							got.Release()
						}
						want := kind
						if name != "text" && name != "zeros" {
							want = payload[0]
						}
						if name == "noise" {
							want = None
						}
						if payload[0] != want {
							t.Errorf("%s: kind %#x, want %#x", name, payload[0], want)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestSpellings: what borg would not take is refused, and the message says it.
func TestSpellings(t *testing.T) {
	for spec, says := range map[string]string{
		"": "there are none, lz4", "gzip": "there are none, lz4", "lz4,3": "a word too many", "none,1": "a word too many",
		"zstd,0": "1 to 22", "zstd,23": "1 to 22", "zlib,10": "0 to 9", "lzma,x": "0 to 9", "zstd,3,4": "a word too many",
		"auto": "behind auto", "auto,auto,lz4": "there are none, lz4", "obfuscate,110,lz4": "not written", "LZ4": "there are none",
	} {
		if _, err := NewCompressor(spec); !errors.Is(err, fault.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

func FuzzSpelling(f *testing.F) {
	for spec := range written {
		f.Add(spec)
	}
	f.Add("auto,zstd,")
	f.Fuzz(func(t *testing.T, spec string) {
		c, err := NewCompressor(spec)
		if err == nil && c.String() != spec {
			t.Fatalf("%q is called %q", spec, c)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	all := plains()
	for _, spec := range []string{"none", "lz4", "zstd", "zlib", "auto,zstd"} {
		for _, name := range []string{"noise", "text", "half"} {
			b.Run(fmt.Sprintf("%s/%s", spec, name), func(b *testing.B) {
				c, err := NewCompressor(spec)
				if err != nil {
					b.Fatal(err)
				}
				plain := bytes.Repeat(all[name], 2<<20/len(all[name])+1)[:2<<20]
				var out []byte
				b.SetBytes(int64(len(plain)))
				b.ReportAllocs()
				for b.Loop() {
					out = c.Append(out[:0], plain)
				}
				b.ReportMetric(float64(len(out))/float64(len(plain)), "ratio")
			})
		}
	}
}
