package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"

	"github.com/s4-storage/s4/borgio/internal/heap"
)

// zeros is n bytes to pack.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// pack runs n zeros through an encoder.
func pack[W io.WriteCloser](t *testing.T, n int64, head string, newWriter func(io.Writer) (W, error)) []byte {
	t.Helper()
	b := bytes.NewBufferString(head)
	w, err := newWriter(b)
	if err == nil {
		_, err = io.Copy(w, zeros(n))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func newLZMA2(w io.Writer) (*lzma.Writer2, error) {
	return lzma.Writer2Config{DictCap: 1 << 20}.NewWriter2(w)
}

// xzHead begins an xz container of one block, whose dictionary is told by the
// property byte.
func xzHead(dictionary byte) string {
	return xzMagic + "\x00\x00____" + "\x02\x00\x21\x01" + string(dictionary) + "\x00\x00\x00____"
}

// obfuscate wraps a payload as borg does, with padding behind.
func obfuscate(payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{compObfuscate, 0}, uint32(len(payload)))
	return append(append(b, payload...), make([]byte, 100)...)
}

// bombs are payloads that would unpack to far more than anyone allows, or say
// that they would.
func bombs(t *testing.T) map[string][]byte {
	const huge = 64 << 20
	lz4 := append([]byte{compLZ4, 0, 0x1f, 'a', 1, 0}, bytes.Repeat([]byte{255}, huge/255)...)
	lz4 = append(lz4, 0, 0x10, 'z')
	newZstd := func(w io.Writer) (*zstd.Encoder, error) { return zstd.NewWriter(w) }
	frame := func(size uint64) []byte { // of one segment, which tells its size in 8 bytes
		return binary.LittleEndian.AppendUint64([]byte{compZstd, 0, 0x28, 0xb5, 0x2f, 0xfd, 0xe0}, size)
	}
	repeated := func(b []byte) []byte { // as blocks of one byte 128 KiB times
		for i := range huge / (128 << 10) {
			last := uint32(0)
			if i+1 == huge/(128<<10) {
				last = 1
			}
			head := binary.LittleEndian.AppendUint32(nil, last|1<<1|128<<10<<3)
			b = append(append(b, head[:3]...), 'x')
		}
		return b
	}
	// Two MiB with a reset before them, again and again.
	lzma2 := pack(t, 2<<20, "", newLZMA2)
	lzma2 = append([]byte("\x02\x00"+xzHead(22)), bytes.Repeat(lzma2[:len(lzma2)-1], huge/(2<<20))...)
	lzma2 = append(lzma2, lzma2End)
	return map[string][]byte{
		"none":                     make([]byte, 2+huge),
		"lz4":                      lz4,
		"zstd":                     pack(t, huge, "\x03\x00", newZstd),
		"zstd that tells its size": repeated(frame(huge)),
		"zstd that understates":    repeated(frame(1000)),
		"zstd that boasts":         frame(1 << 62),
		"zstd that boasts a bit":   frame(bombLimit),
		"zlib":                     pack(t, huge, "", func(w io.Writer) (*zlib.Writer, error) { return zlib.NewWriter(w), nil }),
		"lzma":                     lzma2,
		"lzma dictionary of 4 GiB": []byte("\x02\x00" + xzHead(xzMaxDictionary) + "\x01\x00\x00x"),
		"lzma of tiny chunks":      append([]byte("\x02\x00"+xzHead(22)), bytes.Repeat([]byte("\x01\x00\x00x"), 100000)...),
		"lzma of tiny chunks with properties": append([]byte("\x02\x00"+xzHead(22)),
			bytes.Repeat([]byte("\xe0\x00\x00\x00\x05\x5d______"), 100000)...),
		"lzma with large tables": []byte("\x02\x00" + xzHead(22) + "\xe0\x00\x00\x00\x05\xe0______\x00"),
	}
}

const bombLimit = 1 << 20

// TestBombsAreRefused: neither the heap nor the process grows by more than the
// limit allows, whatever a payload would unpack to.
func TestBombsAreRefused(t *testing.T) {
	d := newDecompressor(t)
	for name, payload := range bombs(t) {
		for _, wrapped := range []bool{false, true} {
			for _, size := range []int{UnknownSize, 1000} {
				t.Run(fmt.Sprint(name, ", obfuscated ", wrapped, ", size ", size), func(t *testing.T) {
					bomb := payload
					if wrapped {
						bomb = obfuscate(bomb)
					}
					over := 0
					grown := peak(t, func() {
						over = heap.Over(2<<20+bombLimit, func() {
							if b, err := d.Decompress(bomb, size, bombLimit); err == nil {
								t.Errorf("%d bytes came out", len(b.Data))
								b.Release()
							}
						})
					})
					if over > 0 {
						t.Errorf("%d bytes on the heap over the bound", over)
					}
					if grown > 16<<20 {
						t.Errorf("the process grew by %d bytes", grown)
					}
				})
			}
		}
	}
	if _, err := d.Decompress(nil, bombLimit+1, bombLimit); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a size over the limit: %v", err)
	}
	if _, _, err := newXZReader([]byte(xzMagic+"\x00\x00____"), 1000); err == nil {
		t.Error("xz: an empty container was accepted")
	}
}

// peak runs fn and tells by how many bytes the process grew at most.
func peak(t *testing.T, fn func()) int {
	t.Helper()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Skip(err) // the peak cannot be set back
	}
	before := resident(t, "VmRSS:")
	fn()
	return resident(t, "VmHWM:") - before
}

func resident(t *testing.T, what string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), what)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// TestLargePayloads: what borg itself makes of much that packs well is no
// bomb.
func TestLargePayloads(t *testing.T) {
	d := newDecompressor(t)
	const size = 4 << 20
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string][]byte{
		"zstd": e.EncodeAll(make([]byte, size), []byte{compZstd, 0}),
		"zlib": pack(t, size, "", func(w io.Writer) (*zlib.Writer, error) { return zlib.NewWriterLevel(w, 9) }),
		"lzma": pack(t, size, "\x02\x00"+xzHead(22), newLZMA2),
	} {
		for _, n := range []int{UnknownSize, size} {
			b, err := d.Decompress(payload, n, 20<<20)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if len(b.Data) != size || !bytes.Equal(b.Data, make([]byte, size)) {
				t.Errorf("%s: %d bytes, or not what went in", name, len(b.Data))
			}
			b.Release()
		}
	}
}
