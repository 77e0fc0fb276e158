package disk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// large makes a repository of n objects.
func large(b *testing.B, n int) string {
	dir := filepath.Join(b.TempDir(), "repo")
	w := mustCreate(b, dir)
	random := rand.NewChaCha8([32]byte{3})
	data := make([]byte, 20)
	for range n {
		var id [32]byte
		random.Read(id[:])
		if err := w.Put(context.Background(), id, data); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Put(context.Background(), manifest, data); err != nil {
		b.Fatal(err)
	}
	if err := w.Commit(context.Background()); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkPuts puts objects and commits, all of it synced.
func BenchmarkPuts(b *testing.B) {
	for _, size := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := large(b, 1)
			data := make([]byte, size)
			random := rand.NewChaCha8([32]byte{byte(b.N)})
			random.Read(data)
			b.SetBytes(int64(size))
			b.ResetTimer()
			w := mustBegin(b, dir)
			for range b.N {
				var id [32]byte
				random.Read(id[:])
				if err := w.Put(context.Background(), id, data); err != nil {
					b.Fatal(err)
				}
			}
			mustCommit(b, w)
		})
	}
}

// BenchmarkSmallCommit adds ten objects to a repository of many.
func BenchmarkSmallCommit(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		dir := large(b, n)
		r := mustOpen(b, dir, quiet)
		next := n
		for name, index := range map[string]bool{"stale": false, "index": true} {
			b.Run(fmt.Sprint(n, "/", name), func(b *testing.B) {
				var begin, commit time.Duration
				for range b.N {
					begun := time.Now()
					w, err := r.Begin(context.Background(), 0, os.LookupEnv)
					if err != nil {
						b.Fatal(err)
					}
					begin += time.Since(begun)
					mustPut(b, w, next, next+10)
					next += 10
					putManifest(b, w)
					begun = time.Now()
					if err := w.commit(); err != nil {
						b.Fatal(err)
					}
					if index {
						if err := w.writeIndex(w.out.number - 1); err != nil {
							b.Fatal(err)
						}
					}
					commit += time.Since(begun)
					if err := w.finish(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(begin.Milliseconds())/float64(b.N), "ms/begin")
				b.ReportMetric(float64(commit.Milliseconds())/float64(b.N), "ms/commit")
			})
		}
	}
}
