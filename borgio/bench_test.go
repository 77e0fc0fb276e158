package borgio_test

import (
	"io"
	"os"
	"testing"

	"github.com/s4-storage/s4/borgio"
)

// The benchmarks need a repository to read: its place in BORGIO_BENCH, as
// URL::ARCHIVE. Key and passphrase are found as always.
func benchArchive(b *testing.B) (*borgio.Repository, *borgio.Archive) {
	b.Helper()
	place := os.Getenv("BORGIO_BENCH")
	if place == "" {
		b.Skip("BORGIO_BENCH names no archive")
	}
	loc, err := borgio.ParseLocation(place)
	if err != nil {
		b.Fatal(err)
	}
	r := mustOpen(b, place, borgio.Options{})
	m, err := r.Manifest(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, ref := range m.Archives {
		if ref.Name == loc.Archive {
			a, err := r.Archive(b.Context(), ref.ID)
			if err != nil {
				b.Fatal(err)
			}
			return r, a
		}
	}
	b.Fatalf("no archive %s", loc.Archive)
	return nil, nil
}

// BenchmarkItems lists an archive.
func BenchmarkItems(b *testing.B) {
	r, a := benchArchive(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range r.Items(b.Context(), a) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		b.ReportMetric(float64(n), "items")
	}
}

// BenchmarkScanRaw finds an archive's items without looking into them.
func BenchmarkScanRaw(b *testing.B) {
	r, a := benchArchive(b)
	b.ReportAllocs()
	for b.Loop() {
		s := r.Scan(b.Context(), a, nil)
		n, size := 0, 0
		for s.Next() {
			for s.NextItem() {
				n++
				size += len(s.Raw())
			}
		}
		s.Close()
		if err := s.Err(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(n), "items")
	}
}

// BenchmarkStream writes the archive's largest file to nowhere.
func BenchmarkStream(b *testing.B) {
	r, a := benchArchive(b)
	var chunks []borgio.Chunk
	var size int64
	for it, err := range r.Items(b.Context(), a) {
		if err != nil {
			b.Fatal(err)
		}
		if it.Size > size {
			size, chunks = it.Size, append(chunks[:0], it.Chunks...)
		}
	}
	f := r.OpenFile(chunks)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := f.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkManifest looks at a repository that does not change.
func BenchmarkManifest(b *testing.B) {
	r, _ := benchArchive(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Manifest(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
