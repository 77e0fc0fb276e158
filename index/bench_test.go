package index

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

// tree streams files in 50 to a directory; of every 200th the content depends
// on generation.
func tree(files, generation int) iter.Seq2[*snapshot.Item, error] {
	return func(yield func(*snapshot.Item, error) bool) {
		var it snapshot.Item
		for i := range files {
			if i%50 == 0 {
				it = dir(fmt.Sprintf("home/ann/project%03d/dir%04d", i/5000, i/50))
				if !yield(&it, nil) {
					return
				}
			}
			at := it.Path
			if i%50 != 0 {
				at, _ = cutLast(it.Path)
			}
			it = snapshot.Item{
				Path:    fmt.Sprintf("%s/some-file-%05d.txt", at, i),
				Entry:   snapshot.Entry{Mode: 0o100644, UID: 1000, GID: 1000, User: "ann", Group: "users", Size: int64(i * 10), Mtime: 1.7e18 + int64(i)*1_000_003, Ctime: 1.7e18 + int64(i)*1_000_503},
				Content: []snapshot.Extent{{ID: [32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1, 2, 3, 4, 5}, Size: uint32(i * 10)}},
			}
			if (i+generation)%200 == 0 {
				it.Content[0].ID[31] = byte(generation)
				it.Mtime += int64(generation)
			}
			if !yield(&it, nil) {
				return
			}
		}
	}
}

func BenchmarkAddFirst100k(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		x, err := Open(b.Context(), filepath.Join(b.TempDir(), "index.db"), nil)
		if err != nil {
			b.Fatal(err)
		}
		nums := announce(b, x, info("0", "s", 100))
		b.StartTimer()
		if _, err := x.Add(b.Context(), nums["0"], tree(100_000, 0)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
		fi, err := os.Stat(x.path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(fi.Size())/100_000, "B/file")
		b.StartTimer()
	}
}

// BenchmarkAddNext100k adds snapshots in which 0.5 % of the files changed.
func BenchmarkAddNext100k(b *testing.B) {
	x := open(b)
	infos := []snapshot.Info{info("0", "s", 1)}
	nums := announce(b, x, infos...)
	if _, err := x.Add(b.Context(), nums["0"], tree(100_000, 0)); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		b.StopTimer()
		handle := fmt.Sprint(n)
		infos = append(infos, info(handle, "s", int64(1+n)))
		nums = announce(b, x, infos...)
		b.StartTimer()
		added, err := x.Add(b.Context(), nums[handle], tree(100_000, n))
		if err != nil || added.NewVersions < 500 || added.NewVersions > 1500 {
			b.Fatalf("%+v %v", added, err)
		}
	}
}

func BenchmarkAddMillion(b *testing.B) {
	if os.Getenv("S4_BENCH_LARGE") == "" {
		b.Skip("set S4_BENCH_LARGE to run")
	}
	x := open(b)
	nums := announce(b, x, info("0", "s", 1))
	for b.Loop() {
		if _, err := x.Add(b.Context(), nums["0"], tree(1_000_000, 0)); err != nil {
			b.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.Sys)/(1<<20), "MiB-from-system")
	}
}

func BenchmarkRead(b *testing.B) {
	x := open(b)
	nums := announce(b, x, info("0", "s", 1), info("1", "s", 2))
	for i, h := range []string{"0", "1"} {
		if _, err := x.Add(b.Context(), nums[h], tree(100_000, i)); err != nil {
			b.Fatal(err)
		}
	}
	ctx, num := b.Context(), nums["1"]
	d, err := x.Find(ctx, num, "home/ann/project007/dir0700")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Lookup", func(b *testing.B) {
		for b.Loop() {
			if _, err := x.Lookup(ctx, num, d.Dir, "some-file-35021.txt"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("List50", func(b *testing.B) {
		for b.Loop() {
			if l, err := x.List(ctx, num, d.Dir, "", 1000); err != nil || len(l) != 50 {
				b.Fatal(len(l), err)
			}
		}
	})
	b.Run("Changes", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range x.Changes(ctx, nums["0"], num) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != 500 {
				b.Fatal(n)
			}
		}
	})
	b.Run("Walk", func(b *testing.B) {
		for b.Loop() {
			for _, err := range x.Walk(ctx, num, "") {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("Versions", func(b *testing.B) {
		for b.Loop() {
			if _, err := x.Versions(ctx, num, "home/ann/project007/dir0700/some-file-35021.txt"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAddWide adds snapshots in which one of 100,000 files in one
// directory changed.
func BenchmarkAddWide(b *testing.B) {
	items := make([]snapshot.Item, 100_000)
	for i := range items {
		items[i] = file(fmt.Sprintf("wide/%06d", i), 1)
	}
	x := open(b)
	infos := []snapshot.Info{info("0", "s", 1)}
	nums := announce(b, x, infos...)
	first := newSectioned(items, nil)
	if _, err := x.AddScan(b.Context(), nums["0"], first.scan); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		infos = append(infos, info(fmt.Sprint(n), "s", int64(1+n)))
		nums = announce(b, x, infos...)
		items[n*7919%len(items)].Mtime++
		s := newSectioned(items, nil)
		b.StartTimer()
		added, err := x.AddScan(b.Context(), nums[fmt.Sprint(n)], s.scan)
		if err != nil || added.NewVersions != 1 {
			b.Fatalf("%+v %v", added, err)
		}
	}
}
