package blake2b

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// TestSum256 compares with golang.org/x/crypto around every boundary of a
// block.
func TestSum256(t *testing.T) {
	bytes := make([]byte, 5*blockSize)
	random := rand.NewChaCha8([32]byte{})
	random.Read(bytes)
	for prefix := range 2*blockSize + 2 {
		for _, size := range []int{0, 1, 64, 127, 128, 129, 255, 256, 257, 300} {
			all := bytes[:prefix+size]
			if got, want := Sum256(all[:prefix], all[prefix:]), blake2b.Sum256(all); got != want {
				t.Fatalf("%d and %d bytes: %x, want %x", prefix, size, got, want)
			}
		}
	}
}

// TestKnown: "abc" as b2sum -l 256 has it.
func TestKnown(t *testing.T) {
	const want = "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
	if got := Sum256(nil, []byte("abc")); hex.EncodeToString(got[:]) != want {
		t.Fatalf("%x, want %s", got, want)
	}
}

func FuzzSum256(f *testing.F) {
	f.Add([]byte("key"), []byte("data"))
	f.Add(make([]byte, blockSize), make([]byte, blockSize))
	f.Fuzz(func(t *testing.T, prefix, data []byte) {
		if got, want := Sum256(prefix, data), blake2b.Sum256(slices.Concat(prefix, data)); got != want {
			t.Fatalf("%x, want %x", got, want)
		}
	})
}

// BenchmarkSum256 hashes 2 MiB, beside golang.org/x/crypto.
func BenchmarkSum256(b *testing.B) {
	data := make([]byte, 2<<20)
	for name, sum := range map[string]func([]byte) [32]byte{
		"s4":       func(data []byte) [32]byte { return Sum256(nil, data) },
		"x-crypto": blake2b.Sum256,
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				sum(data)
			}
		})
	}
}
