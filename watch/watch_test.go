package watch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
)

// told waits for Next, and fails after a while without it.
func told(t *testing.T, w Watcher, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.Next(ctx); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// quiet wants Next not to return for a while.
func quiet(t *testing.T, w Watcher, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%s: Next returned with %v", what, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDirectory(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "own", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	own := func(path string, _ bool) bool { return path == "own" || filepath.Dir(path) == "own" }
	w, err := NewDirectory(t.Context(), root, 10*time.Millisecond, own, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	quiet(t, w, "before anything")
	write(t, filepath.Join(root, "a"), "1")
	told(t, w, "a new file")
	quiet(t, w, "after it")
	if err := os.MkdirAll(filepath.Join(root, "x", "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	told(t, w, "new directories")
	quiet(t, w, "after them")
	write(t, filepath.Join(root, "x", "y", "b"), "1")
	told(t, w, "a file in a new directory")
	if err := os.Chmod(filepath.Join(root, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	told(t, w, "a new mode")
	if err := os.Rename(filepath.Join(root, "a"), filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	told(t, w, "a rename")
	quiet(t, w, "after all")
	write(t, filepath.Join(root, "own", "deep", "file"), "1")
	write(t, filepath.Join(root, "own", "file"), "1")
	quiet(t, w, "what is excluded")
}

func TestSubvolume(t *testing.T) {
	dir := btrfstest.New(t)
	root := filepath.Join(dir, "live")
	own := filepath.Join(root, "own")
	for _, path := range []string{root, own} {
		if err := btrfsvol.Create(path); err != nil {
			t.Fatal(err)
		}
	}
	w, err := NewSubvolume(root, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	quiet(t, w, "before anything")
	write(t, filepath.Join(root, "a"), "1")
	told(t, w, "a new file")
	quiet(t, w, "after it")
	if err := btrfsvol.Snapshot(root, filepath.Join(own, "1"), true); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(own, "b"), "1")
	quiet(t, w, "a snapshot, and a subvolume of its own")
	if err := os.Chmod(filepath.Join(root, "a"), 0o600); err != nil {
		t.Fatal(err)
	}
	told(t, w, "a new mode")
}

func BenchmarkSubvolumeLook(b *testing.B) {
	root := filepath.Join(btrfstest.New(b), "live")
	if err := btrfsvol.Create(root); err != nil {
		b.Fatal(err)
	}
	w, err := NewSubvolume(root, time.Second)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := w.look(); err != nil {
			b.Fatal(err)
		}
	}
}
