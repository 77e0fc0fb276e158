package buffer

import (
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"testing"
	"unsafe"
)

// sizes are on both sides of every bound.
var sizes = []int{0, 1, 7, minPooled - 1, minPooled, minPooled + 1, minMapped - 1, minMapped, minMapped + 1, 1 << 20, 3<<20 + 5, idleBytes, idleBytes + 1, 20 << 20}

// TestNothingIsLeft: whatever was taken, once released and closed none of it is
// kept, be it released before or after the close.
func TestNothingIsLeft(t *testing.T) {
	before := Outstanding()
	var p Pool
	var late []*Buffer
	for round := range 3 {
		for _, n := range sizes {
			b := p.Get(n)
			if len(b.Data) != n || b.Cap() < n {
				t.Fatalf("%d bytes of %d where %d are due", len(b.Data), b.Cap(), n)
			}
			for i := range b.Data {
				b.Data[i] = byte(i)
			}
			g := p.Grow(b, n, n+n/3)
			for i := range n {
				if g.Data[i] != byte(i) {
					t.Fatalf("byte %d of %d is lost", i, n)
				}
			}
			if round == 1 {
				late = append(late, g)
			} else {
				g.Release()
			}
			sum := 0
			for _, m := range p.idle {
				sum += len(m.bytes)
			}
			if sum != p.bytes || sum > idleBytes || len(p.idle) > maxIdle {
				t.Fatalf("%d bytes are idle in %d pieces, said to be %d", sum, len(p.idle), p.bytes)
			}
		}
	}
	for range 3 * maxIdle {
		late = append(late, p.Get(minPooled))
	}
	p.Close()
	for _, b := range late {
		b.Release()
	}
	if len(p.idle) > 0 || p.bytes != 0 {
		t.Errorf("%d bytes are idle in a closed pool", p.bytes)
	}
	if left := Outstanding() - before; left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}

// TestReuse: released memory serves the next buffer of about its size.
func TestReuse(t *testing.T) {
	var p Pool
	defer p.Close()
	place := func(n int) *byte {
		b := p.Get(n)
		defer b.Release()
		b.Data[n-1] = 1
		return unsafe.SliceData(b.Data)
	}
	first := place(3 << 20)
	if place(2<<20+1) != first {
		t.Error("memory that is a little large is not used again")
	}
	p.Get(1 << 20).Release()
	if len(p.idle) != 1 || p.bytes != 1<<20 {
		t.Errorf("%d bytes are idle in %d pieces: what is far too large was not made smaller", p.bytes, len(p.idle))
	}
	b := p.Get(5 << 20)
	defer b.Release()
	if len(p.idle) != 0 || faults(b.Data) {
		t.Error("what is too small was not made larger")
	}
}

// faults reports whether reading b makes a fault.
func faults(b []byte) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	return b[0] == b[len(b)/2]
}

// TestUseAfterRelease: a slice that outlives its buffer is no use: it faults
// when it was unmapped, and under the race detector when it is idle.
func TestUseAfterRelease(t *testing.T) {
	var p Pool
	defer p.Close()
	b := p.Get(idleBytes + 1)
	kept := b.Data
	if faults(kept) {
		t.Fatal("memory in use is unusable")
	}
	b.Retain()
	b.Release()
	if faults(kept) {
		t.Error("freed though there is a reference")
	}
	b.Release()
	if !faults(kept) || b.Data != nil {
		t.Error("large memory can be used after its release")
	}
	for name, again := range map[string]func(){"release": b.Release, "retain": b.Retain} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s after the last release was let pass", name)
				}
			}()
			again()
		}()
	}

	b = p.Get(1 << 20)
	kept = b.Data
	watched := Outstanding() > 0
	b.Release()
	if watched && !faults(kept) {
		t.Error("idle memory can be used")
	}
	b = p.Get(1 << 20)
	defer b.Release()
	if faults(b.Data) {
		t.Error("memory used again is unusable")
	}
}

// TestOf: foreign memory is freed by the last release, once.
func TestOf(t *testing.T) {
	before, freed := Outstanding(), 0
	b := Of(make([]byte, 100), func() { freed++ })
	b.Data = b.Data[:50]
	b.Retain()
	b.Release()
	if freed != 0 {
		t.Error("freed too early")
	}
	b.Release()
	if freed != 1 || Outstanding() != before {
		t.Errorf("freed %d times, %d bytes are left", freed, Outstanding()-before)
	}
}

// TestTogether shares buffers between goroutines, and closes the pool meanwhile.
func TestTogether(t *testing.T) {
	before := Outstanding()
	var p Pool
	var work sync.WaitGroup
	for seed := range byte(4) {
		work.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			for i := range 200 {
				b := p.Get(1 + random.IntN(1<<20))
				b.Data[0], b.Data[len(b.Data)-1] = seed, seed
				b.Retain()
				work.Go(func() {
					defer b.Release()
					if len(b.Data) > 1 && (b.Data[0] != seed || b.Data[len(b.Data)-1] != seed) {
						t.Error("somebody else writes to this buffer")
					}
				})
				b.Release()
				if seed == 0 && i == 100 {
					p.Close()
				}
			}
		})
	}
	work.Wait()
	if left := Outstanding() - before; left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}

// BenchmarkChunks takes and drops buffers of the sizes that chunks have, four
// in use at a time.
func BenchmarkChunks(b *testing.B) {
	var p Pool
	defer p.Close()
	random := rand.New(rand.NewPCG(1, 2))
	var window [4]*Buffer
	bytes := 0
	for i := 0; b.Loop(); i++ {
		if old := window[i%4]; old != nil {
			old.Release()
		}
		n := 1<<19 + random.IntN(4<<20)
		buf := p.Get(n)
		for j := 0; j < n; j += 4096 {
			buf.Data[j] = 1
		}
		window[i%4] = buf
		bytes += n
	}
	for _, buf := range window {
		if buf != nil {
			buf.Release()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/(float64(bytes)/(1<<20)), "ns/MiB")
}
