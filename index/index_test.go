package index

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
)

func TestTreeOfOneSnapshot(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("a", "s", 100))
	added := add(t, x, nums["a"], dir("."), dir("b"), file("b/z", 1), file("b/a", 2), file("c", 3), file("deep/er/x", 4))
	if added.Items != 8 || added.NewVersions != 8 || added.Skipped != nil {
		t.Fatalf("added %+v", added)
	}
	want := []string{"", "b", "b/a", "b/z", "c", "deep", "deep/er", "deep/er/x"}
	if got := paths(t, x, nums["a"], ""); !slices.Equal(got, want) {
		t.Fatalf("tree is %q, want %q", got, want)
	}
	e, err := x.Find(t.Context(), nums["a"], "b/z")
	if err != nil || e.Name != "z" || e.User != "ann" || e.UID != 1000 || e.Mtime != 1e18+1 || e.Ctime != 1e18+5 || e.Nlink != 1 {
		t.Fatalf("b/z is %+v, %v", e, err)
	}
	content, err := x.Content(t.Context(), e.Version)
	if err != nil || len(content) != 1 || content[0].ID[0] != 1 || content[0].Size != 7 {
		t.Fatalf("content %v, %v", content, err)
	}
	if _, err := x.Find(t.Context(), nums["a"], "b/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing name: %v", err)
	}
}
