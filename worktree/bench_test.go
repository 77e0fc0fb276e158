package worktree_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/s4-storage/s4/worktree"
)

// corpus makes 100,000 small files in 1,000 directories.
func corpus(b *testing.B) string {
	dir := b.TempDir()
	for d := range 1000 {
		sub := filepath.Join(dir, fmt.Sprint(d/100), fmt.Sprint(d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for f := range 100 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(f)), []byte("content"), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	return dir
}

// BenchmarkTree walks, compares and plans over 100,000 files.
func BenchmarkTree(b *testing.B) {
	if testing.Short() {
		b.Skip("makes 100,000 files")
	}
	dir := corpus(b)
	r, err := worktree.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	s := &store{content: map[string][]byte{}, byEntry: map[int64]string{}}
	stamps, err := worktree.OpenStamps(b.Context(), filepath.Join(b.TempDir(), "stamps"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer stamps.Close()
	var all []worktree.Stamp
	walk := func(b *testing.B, parallel int, each func(worktree.Live)) {
		for l, err := range r.Walk(b.Context(), worktree.Options{Parallel: parallel}) {
			if err != nil {
				b.Fatal(err)
			}
			each(l)
		}
	}
	walk(b, 0, func(l worktree.Live) {
		e := l.Entry
		e.Nlink = 1
		s.add(l.Path, e)
		all = append(all, worktree.NewStamp(l, e))
	})
	for _, parallel := range []int{1, 2} {
		b.Run(fmt.Sprintf("walk-%d", parallel), func(b *testing.B) {
			for b.Loop() {
				walk(b, parallel, func(worktree.Live) {})
			}
		})
	}
	compare := func(b *testing.B) {
		for b.Loop() {
			for c, err := range r.Compare(b.Context(), s, worktree.Options{Stamps: stamps}) {
				b.Fatal(c.Path, c.Kind, err)
			}
		}
	}
	b.Run("compare", compare)
	b.Run("put-stamps", func(b *testing.B) {
		for b.Loop() {
			if err := stamps.Put(b.Context(), all); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("compare-stamped", compare)
	b.Run("plan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p, err := r.Plan(b.Context(), s, worktree.PlanOptions{Options: worktree.Options{Stamps: stamps}, Base: s, Source: source{s}})
			if err != nil || !p.Empty() {
				b.Fatal(p, err)
			}
		}
	})
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			to, err := worktree.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			p, err := to.Plan(b.Context(), s, worktree.PlanOptions{Source: source{s}})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := to.Apply(b.Context(), p, worktree.ApplyOptions{Source: source{s}}); err != nil {
				b.Fatal(err)
			}
			to.Close()
		}
	})
}
