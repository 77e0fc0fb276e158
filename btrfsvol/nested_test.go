package btrfsvol

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/s4-storage/s4/internal/btrfstest"
)

func TestNestedLists(t *testing.T) {
	root := filepath.Join(btrfstest.New(t), "root")
	if err := Create(root); err != nil {
		t.Fatal(err)
	}
	if got, err := Nested(root); err != nil || len(got) != 0 {
		t.Errorf("none: %q, %v", got, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := []string{"top"}
	for i := range 300 { // more than the kernel tells at once
		want = append(want, fmt.Sprintf("a/b/%03d", i))
	}
	for _, path := range want {
		if err := Create(filepath.Join(root, path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Create(filepath.Join(root, "top/deeper")); err != nil {
		t.Fatal(err)
	}
	got, err := Nested(root)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d told, want %d: %.100q", len(got), len(want), got)
	}
}
