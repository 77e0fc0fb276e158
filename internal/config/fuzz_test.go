package config

import (
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"testing"
)

// FuzzFile: what is read of a file is read of it written again, with a value
// set in between and taken out again.
func FuzzFile(f *testing.F) {
	f.Add("[volume]\n\tname = v\n[remote \"origin\"]\n\turl = ssh://h/p\n", "remote.a.b.url", "x y")
	f.Add("; c\n[a]\nb\n[A \"x\\\"y\"] c = \"d;e\" # f\n", "a.b", "")
	f.Add("[a.b]\nc=\\\n d\n", "a.x\ty.c", "\"\n#")
	f.Fuzz(func(t *testing.T, in, key, value string) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		file, err := Parse([]byte(in))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+uint64(1000*len(in)) {
			t.Errorf("%d bytes for %d", n, len(in))
		}
		if err != nil {
			return
		}
		pairs := func(f *File) (all []string) {
			for k, v := range f.All() {
				all = append(all, k+"="+v)
			}
			slices.Sort(all)
			return all
		}
		again, err := Parse(file.Bytes())
		if err != nil {
			t.Fatalf("%q is written as %q: %v", in, file.Bytes(), err)
		}
		want := pairs(file)
		if got := pairs(again); !slices.Equal(got, want) {
			t.Fatalf("%q comes back as %q", want, got)
		}
		if _, there := again.Get(key); there || again.Set(key, value) != nil {
			return
		}
		if got, ok := again.Get(key); !ok || got != value {
			t.Fatalf("%q is set to %q: %q, %v", key, value, got, ok)
		}
		if err := again.Unset(key); err != nil {
			t.Fatal(err)
		}
		if err := again.Unset(key); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("unset twice: %v", err)
		}
	})
}
