package borgio

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestIdleLook: once a repository has been at rest for a moment, looking at its
// manifest again reads nothing, and yet a commit shows at once.
func TestIdleLook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	if err := os.CopyFS(dir, os.DirFS("testdata/mode-none")); err != nil {
		t.Fatal(err)
	}
	later := map[string][]byte{}
	for _, n := range []string{"6", "7", "8", "9"} { // the second archive
		path := filepath.Join(dir, "data/0", n)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		later[path] = b
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(t.Context(), Location{Path: dir}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	look := func() *Manifest {
		m, err := r.Manifest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	s := r.store.(*localStore)
	for deadline := time.Now().Add(10 * time.Second); s.seen == (signature{}); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the repository never counts as at rest")
		}
		look()
	}
	if n := testing.AllocsPerRun(10, func() { look() }); n > 30 {
		t.Errorf("an idle look allocates %v times", n)
	}
	if m := look(); len(m.Archives) != 1 {
		t.Fatalf("before the commit: %+v", m)
	}
	for path, b := range later {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m := look(); len(m.Archives) != 2 {
		t.Errorf("after the commit: %+v", m)
	}
}
