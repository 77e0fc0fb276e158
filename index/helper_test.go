package index

import (
	"context"
	"iter"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

func open(t testing.TB) *Index {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "index.db"), nil)
}

func openAt(t testing.TB, path string, log *slog.Logger) *Index {
	t.Helper()
	x, err := Open(context.Background(), path, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// info describes a snapshot taken so many seconds after the epoch.
func info(handle, series string, sec int64) snapshot.Info {
	return snapshot.Info{Handle: handle, Name: "n-" + handle, Series: series, Time: time.Unix(sec, 0).UTC()}
}

// announce tells the index what source "src" holds and gives the numbers by
// handle.
func announce(t testing.TB, x *Index, infos ...snapshot.Info) map[string]int64 {
	t.Helper()
	if err := x.Announce(t.Context(), "src", infos); err != nil {
		t.Fatal(err)
	}
	known, err := x.Snapshots(t.Context(), "src")
	if err != nil {
		t.Fatal(err)
	}
	nums := map[string]int64{}
	for _, s := range known {
		nums[s.Handle] = s.Num
	}
	return nums
}

func stream(items ...snapshot.Item) iter.Seq2[*snapshot.Item, error] {
	return func(yield func(*snapshot.Item, error) bool) {
		var it snapshot.Item // reused, as sources may do
		for _, it = range items {
			if !yield(&it, nil) {
				return
			}
		}
	}
}

func add(t testing.TB, x *Index, num int64, items ...snapshot.Item) Added {
	t.Helper()
	added, err := x.Add(t.Context(), num, stream(items...))
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func dir(path string) snapshot.Item {
	return snapshot.Item{Path: path, Entry: snapshot.Entry{Mode: 0o040755, Mtime: 1e18, User: "root", Group: "root"}}
}

func file(path string, content byte) snapshot.Item {
	return snapshot.Item{
		Path:    path,
		Entry:   snapshot.Entry{Mode: 0o100644, UID: 1000, GID: 1000, User: "ann", Group: "users", Size: 7, Mtime: 1e18 + int64(content), Ctime: 1e18 + 5},
		Content: []snapshot.Extent{{ID: [32]byte{content}, Size: 7}},
	}
}

// paths walks a snapshot.
func paths(t testing.TB, x *Index, num int64, from string) (all []string) {
	t.Helper()
	for n, err := range x.Walk(t.Context(), num, from) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n.Path)
	}
	return all
}

// subdirs counts the directories in one.
func subdirs(t map[string]modelEntry, dir string) (n uint32) {
	for path, e := range t {
		if parent, _ := cutLast(path); path != "" && parent == dir && e.Mode&0o170000 == 0o040000 {
			n++
		}
	}
	return n
}
