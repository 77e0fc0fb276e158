package chunker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

// cuts is what the format says, word for word, and slow: the hash of every
// window is computed anew.
func cuts(p Params, seed int32, data []byte) (lengths []int) {
	least, most := 1<<p.MinExp, 1<<p.MaxExp
	hash := func(window []byte) (sum uint32) {
		for i, c := range window {
			sum ^= bits.RotateLeft32(table[c]^uint32(seed), (len(window)-1-i)%32)
		}
		return sum
	}
	for len(data) > 0 {
		n := len(data)
		if n >= least+p.Window+1 {
			n = least
			limit := min(most, len(data))
			for n+p.Window < limit && hash(data[n:n+p.Window])&(1<<p.MaskBits-1) != 0 {
				n++
			}
			if n+p.Window == limit {
				n = limit
			}
		}
		lengths = append(lengths, n)
		data = data[n:]
	}
	return lengths
}

func lengthsOf(t testing.TB, c *Chunker, src io.Reader, data []byte) (lengths []int) {
	t.Helper()
	c.Reset(src)
	for at := 0; ; {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			if at != len(data) {
				t.Fatalf("%d bytes came of %d", at, len(data))
			}
			return lengths
		} else if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(chunk, data[at:at+len(chunk)]) {
			t.Fatalf("the chunk at %d is another", at)
		}
		at += len(chunk)
		lengths = append(lengths, len(chunk))
	}
}

var small = Params{5, 8, 6, 15}

// rare has few cuts, so that the window rolls over several blocks at once.
var rare = Params{5, 12, 10, 15}

// TestCuts compares with the slow way, at every length around each limit, and
// from readers that give little at a time.
func TestCuts(t *testing.T) {
	random := rand.NewChaCha8([32]byte{7})
	for _, seed := range []int32{0, 1, -5, 1 << 30} {
		for n := range 700 {
			compareCuts(t, small, seed, n, random)
		}
		for n := 0; n < 5000; n += 61 {
			compareCuts(t, rare, seed, n, random)
		}
	}
}

func compareCuts(t *testing.T, p Params, seed int32, n int, random io.Reader) {
	t.Helper()
	c := New(NewHash(p, seed))
	noise := make([]byte, n)
	_, _ = random.Read(noise)
	text := bytes.Repeat([]byte("so much to tell. "), n/17+1)[:n]
	for _, data := range [][]byte{noise, make([]byte, n), text} {
		want := cuts(p, seed, data)
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data)),
			"early end": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			if got := lengthsOf(t, c, src, data); !slices.Equal(got, want) {
				t.Fatalf("seed %d, %d bytes %.8x, %s: %v, want %v", seed, n, data, name, got, want)
			}
		}
	}
}

// TestResume: cutting from any cut on gives the rest of the cuts.
func TestResume(t *testing.T) {
	data := make([]byte, 20_000)
	rand.NewChaCha8([32]byte{8}).Read(data)
	c := New(NewHash(small, 3))
	all := lengthsOf(t, c, bytes.NewReader(data), data)
	at := 0
	for i, n := range all {
		if got := lengthsOf(t, c, bytes.NewReader(data[at:]), data[at:]); !slices.Equal(got, all[i:]) {
			t.Fatalf("from %d: %v, want %v", at, got, all[i:])
		}
		at += n
	}
}

// TestReadError: what could not be read is no end of the file.
func TestReadError(t *testing.T) {
	oops := errors.New("oops")
	c := New(NewHash(small, 0))
	c.Reset(io.MultiReader(bytes.NewReader(make([]byte, 10)), iotest.ErrReader(oops)))
	if chunk, err := c.Next(); !errors.Is(err, oops) {
		t.Errorf("%d bytes, %v", len(chunk), err)
	}
	c.Reset(nil)
	if _, err := c.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("without a stream: %v", err)
	}
}

// TestMemory: many small files in turn take no more than the first read, and
// large ones no more than the longest chunk and a read.
func TestMemory(t *testing.T) {
	c := New(NewHash(Files, 0))
	for n := range 100 {
		lengthsOf(t, c, bytes.NewReader(make([]byte, n)), make([]byte, n))
	}
	if got := c.Memory(); got > 600<<10 {
		t.Errorf("%d bytes for small files", got)
	}
	zeros := make([]byte, 40<<20)
	if got := lengthsOf(t, c, bytes.NewReader(zeros), zeros); len(got) != 5 {
		t.Errorf("chunks of zeros: %v", got)
	}
	if got := c.Memory(); got > 9<<20 {
		t.Errorf("%d bytes for large files", got)
	}
}

func FuzzCuts(f *testing.F) {
	f.Add(int32(0), []byte{}, uint8(0))
	f.Add(int32(-1), bytes.Repeat([]byte{0}, 300), uint8(3))
	f.Add(int32(1<<31-1), []byte("some text that is cut in a number of places, if it is long enough for that, as it should be"), uint8(1))
	f.Fuzz(func(t *testing.T, seed int32, data []byte, repeat uint8) {
		data = bytes.Repeat(data[:min(len(data), 1000)], int(repeat)+1)
		p := Params{4, 7, 5, 9}
		if got, want := lengthsOf(t, New(NewHash(p, seed)), bytes.NewReader(data), data), cuts(p, seed, data); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	noise := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{9}).Read(noise)
	for name, data := range map[string][]byte{"noise": noise, "zeros": make([]byte, len(noise))} {
		b.Run(fmt.Sprint(name), func(b *testing.B) {
			c := New(NewHash(Files, 42))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				c.Reset(bytes.NewReader(data))
				for {
					if _, err := c.Next(); err != nil {
						break
					}
				}
			}
		})
	}
}
