package compress

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// headerSize is what a payload has before the compressed plaintext; zlib's has
// a header of its own there.
const headerSize = 2

// method compresses plain to the end of dst, which has room for as many bytes.
// It fails, or gives more, where that makes nothing smaller.
type method func(dst, plain []byte) (payload []byte, ok bool)

// Compressor makes payloads. It is safe for concurrent use.
type Compressor struct {
	name string
	auto bool // look first whether it is worth it
	best method
	fast method // lz4
}

// NewCompressor makes the Compressor that borg's spelling tells: none, lz4,
// zstd[,1…22], zlib[,0…9], lzma[,0…9], or auto, and one of these. Errors:
// [fault.ErrUnsupported].
func NewCompressor(spec string) (*Compressor, error) {
	c := &Compressor{name: spec, fast: lz4Method()}
	words := strings.Split(spec, ",")
	if words[0] == "auto" {
		if words = words[1:]; len(words) == 0 {
			return nil, fmt.Errorf("%w: compression %q names nothing behind auto", fault.ErrUnsupported, spec)
		}
		c.auto = true
	}
	least, most, level := 0, 9, 6
	switch words[0] {
	case "none", "lz4":
		least, most = 1, 0 // they have no levels
	case "zstd":
		least, most, level = 1, 22, 3
	case "zlib", "lzma":
	case "obfuscate":
		return nil, fmt.Errorf("%w: compression %q: obfuscation is read but not written", fault.ErrUnsupported, spec)
	default:
		return nil, fmt.Errorf("%w: compression %.60q; there are none, lz4, zstd, zlib, lzma, and auto, before one of them", fault.ErrUnsupported, spec)
	}
	if len(words) > 2 || len(words) == 2 && most < least {
		return nil, fmt.Errorf("%w: compression %.60q has a word too many", fault.ErrUnsupported, spec)
	}
	if len(words) == 2 {
		var err error
		if level, err = strconv.Atoi(words[1]); err != nil || level < least || level > most {
			return nil, fmt.Errorf("%w: compression %.60q: levels of %s are %d to %d", fault.ErrUnsupported, spec, words[0], least, most)
		}
	}
	var err error
	switch words[0] {
	case "lz4":
		c.best, c.auto = c.fast, false
	case "zstd":
		c.best, err = zstdMethod(level)
	case "zlib":
		c.best = zlibMethod(level)
	case "lzma":
		c.best = lzmaMethod(level)
	}
	return c, err
}

// String gives the spelling that the Compressor was made of.
func (c *Compressor) String() string { return c.name }

// Bound is how long a payload of n bytes of plaintext is at most.
func Bound(n int) int { return headerSize + n }

// Worth it, for auto: as borg has it.
const (
	fastWorth = 0.97 // of the plaintext; else nothing is tried but lz4
	bestWorth = 0.99 // of what lz4 makes; else that is taken
)

// Append appends the payload of plain to dst, whose room is used where it is
// large enough. What does not become smaller is stored as it is.
func (c *Compressor) Append(dst, plain []byte) []byte {
	start := len(dst)
	if cap(dst)-start < Bound(len(plain)) {
		dst = append(make([]byte, 0, start+Bound(len(plain))), dst...)
	}
	out, ok := dst, false
	switch {
	case c.best == nil || len(plain) == 0:
	case !c.auto:
		out, ok = c.best(dst, plain)
	default:
		out, ok = c.fast(dst, plain)
		if fast := len(out) - start; ok && float64(fast) < fastWorth*float64(len(plain)) {
			// The better one must not use the memory of the other.
			better, smaller := c.best(make([]byte, 0, fast), plain)
			if smaller && float64(len(better)) < bestWorth*float64(fast) {
				out = append(dst, better...)
			}
		}
	}
	if ok && len(out)-start < Bound(len(plain)) {
		return out
	}
	return append(append(dst, None, 0), plain...)
}

// lz4Method keeps its tables for later.
func lz4Method() method {
	pool := sync.Pool{New: func() any { return &lz4.Compressor{} }}
	return func(dst, plain []byte) ([]byte, bool) {
		c := pool.Get().(*lz4.Compressor)
		defer pool.Put(c)
		dst = append(dst, compLZ4, 0)
		room := dst[len(dst):min(cap(dst), len(dst)+len(plain))]
		n, err := c.CompressBlock(plain, room)
		return dst[:len(dst)+n], err == nil && n > 0 // an error says that there is no room
	}
}

func zstdMethod(level int) (method, error) {
	// One segment, so that the frame tells its size, which borg asks for.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return func(dst, plain []byte) ([]byte, bool) {
		return e.EncodeAll(plain, append(dst, compZstd, 0)), true
	}, nil
}

// stream is a compressor that writes.
type stream interface {
	io.WriteCloser
	Reset(w io.Writer)
}

func zlibMethod(level int) method {
	pool := sync.Pool{New: func() any {
		w, err := zlib.NewWriterLevel(io.Discard, level)
		if err != nil {
			panic("compress: " + err.Error()) // the level was looked at
		}
		return w
	}}
	return func(dst, plain []byte) ([]byte, bool) {
		w := pool.Get().(stream)
		defer pool.Put(w)
		buf := bytes.NewBuffer(dst)
		w.Reset(buf)
		_, err := w.Write(plain)
		if err == nil {
			err = w.Close()
		}
		return buf.Bytes(), err == nil
	}
}

// The dictionaries of lzma's levels, in bytes.
var lzmaDictionaries = [10]int{
	256 << 10, 1 << 20, 2 << 20, 4 << 20, 4 << 20, 8 << 20, 8 << 20, 16 << 20, 32 << 20, 64 << 20,
}

func lzmaMethod(level int) method {
	return func(dst, plain []byte) ([]byte, bool) {
		buf := bytes.NewBuffer(append(dst, compLZMA, 0))
		config := xz.WriterConfig{
			DictCap:    min(lzmaDictionaries[level], max(len(plain), 4096)),
			NoCheckSum: true, // an object has an authentication of its own
		}
		w, err := config.NewWriter(buf)
		if err == nil {
			_, err = w.Write(plain)
		}
		if err == nil {
			err = w.Close()
		}
		return buf.Bytes(), err == nil
	}
}
