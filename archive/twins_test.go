package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

// TestTwins: an update has what is in directories that changed places, also where
// it was made in one moment, so that no time of a file tells.
func TestTwins(t *testing.T) {
	dir := t.TempDir()
	at := func(path string) string { return filepath.Join(dir, path) }
	do(t, os.MkdirAll(at("a"), 0o755), os.MkdirAll(at("b"), 0o755))
	var st [2]unix.Stat_t
	for tries := 0; ; tries++ {
		if tries == 1000 {
			missing(t, "the clock has no ticks here")
		}
		for i, p := range []string{"a/x", "b/x"} {
			_, _ = os.Remove(at(p)), os.Remove(at(p+".link"))
			do(t, os.WriteFile(at(p), fmt.Append(nil, "twin ", i), 0o644), os.Link(at(p), at(p+".link")))
		}
		do(t, unix.Stat(at("a/x"), &st[0]), unix.Stat(at("b/x"), &st[1]))
		if st[0].Mtim == st[1].Mtim && st[0].Ctim == st[1].Ctim {
			break
		}
	}
	r := newRepository(t, "none")
	base := r.all(t, dir, "base")
	do(t, os.Rename(at("a"), at("t")), os.Rename(at("b"), at("a")), os.Rename(at("t"), at("b")))
	next := r.update(t, dir, base.Outline, "next", nil)
	whole := r.all(t, dir, "whole")
	sameItems(t, r.items(t, next.Ref.ID), r.items(t, whole.Ref.ID))
	chunks := func(made borgio.ArchiveRef) (all []borgio.Chunk) {
		for _, it := range r.items(t, made.ID) {
			all = append(all, it.Chunks...)
		}
		return all
	}
	if a, b := chunks(base.Ref), chunks(next.Ref); len(a) != 2 || len(b) != 2 || a[0].ID != b[1].ID || a[1].ID != b[0].ID {
		t.Errorf("the twins had %v and have %v", a, b)
	}
}
