package disk

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// TestIdleLook: once a repository has been at rest for a moment, looking at it
// again reads nothing, and yet a commit shows at once.
func TestIdleLook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	if err := os.CopyFS(dir, os.DirFS("../../testdata/mode-none")); err != nil {
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
	pool := &buffer.Pool{}
	defer pool.Close()
	r, err := Open(t.Context(), dir, pool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	look := func() uint64 {
		state, err := r.Refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	before := look()
	for deadline := time.Now().Add(10 * time.Second); r.seen == (signature{}); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the repository never counts as at rest")
		}
		look()
	}
	if n := testing.AllocsPerRun(10, func() { look() }); n > 30 {
		t.Errorf("an idle look allocates %v times", n)
	}
	if state := look(); state != before || state == 0 {
		t.Errorf("state %d before the commit, and %d", before, state)
	}
	for path, b := range later {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if state := look(); state == before {
		t.Error("the commit does not show")
	}
}
