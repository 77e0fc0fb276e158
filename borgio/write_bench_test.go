package borgio

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkAddFile stores 100 MB that a repository does not have yet, but for
// writing it to a disk.
func BenchmarkAddFile(b *testing.B) {
	noise := make([]byte, 100_000_000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	text := bytes.Clone(noise)
	for i := range text { // half of it can be compressed
		if i>>6&1 == 0 {
			text[i] = byte(i >> 12)
		}
	}
	for _, mode := range []string{"none", "authenticated-blake2", "repokey", "repokey-blake2"} {
		for name, data := range map[string][]byte{"noise": noise, "text": text} {
			for _, compression := range []string{"lz4", "zstd,3"} {
				b.Run(mode+"/"+name+"/"+compression, func(b *testing.B) {
					r := written(b, mode)
					tx, target, err := r.beginOnDisk(b.Context(), WriteOptions{Compression: compression})
					if err != nil {
						b.Fatal(err)
					}
					target.drop = true
					b.SetBytes(int64(len(data)))
					b.ReportAllocs()
					for b.Loop() {
						clear(target.ids)
						if _, err := tx.AddFile(b.Context(), bytes.NewReader(data)); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// BenchmarkSmallFiles stores files of 4 KB.
func BenchmarkSmallFiles(b *testing.B) {
	r := written(b, "repokey")
	tx, target, err := r.beginOnDisk(b.Context(), WriteOptions{})
	if err != nil {
		b.Fatal(err)
	}
	target.drop = true
	data := make([]byte, 4096)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		copy(data, fmt.Sprint(i))
		if _, err := tx.AddFile(b.Context(), bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdateArchive makes a further archive of many items of which ten
// changed.
func BenchmarkUpdateArchive(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := written(b, "authenticated") // where nothing waits for the disk
			tx, _ := begun(b, r)
			w := tx.NewArchive(ArchiveInfo{Name: "base"})
			path := func(i int) string { return fmt.Sprintf("some/tree/dir%04d/file%07d.txt", i/100, i) }
			for i := range n {
				if err := w.Add(b.Context(), madeItem(path(i), unix.S_IFREG, int64(i), 41)); err != nil {
					b.Fatal(err)
				}
			}
			_, base, err := w.Finish(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			committed(b, tx)
			b.ReportAllocs()
			round := 0
			for b.Loop() {
				b.StopTimer()
				tx, target := begun(b, r)
				target.drop = true
				b.StartTimer()
				var changes []Change
				for i := range 10 {
					p := path(i*n/10 + n/20)
					changes = append(changes, Change{p, madeItem(p, unix.S_IFREG, int64(round), 41)})
				}
				if _, _, err := tx.UpdateArchive(b.Context(), base, changesOf(changes), ArchiveInfo{Name: fmt.Sprint("next ", round)}); err != nil {
					b.Fatal(err)
				}
				round++
			}
			b.ReportMetric(float64(len(base.Sections)), "sections")
			b.ReportMetric(float64(len(base.Append(nil))), "outline-bytes")
		})
	}
}
