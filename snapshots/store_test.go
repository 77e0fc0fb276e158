package snapshots

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/snapshot"
)

// live makes a subvolume with a file in it, and a place for its snapshots.
func live(t *testing.T) (root string, s Store) {
	t.Helper()
	root = filepath.Join(btrfstest.New(t), "live")
	if err := btrfsvol.Create(root); err != nil {
		t.Fatal(err)
	}
	put(t, root, "1")
	return root, In(filepath.Join(root, "snapshots"))
}

func put(t *testing.T, root, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "file"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	root, s := live(t)
	if infos, err := s.List(t.Context()); err != nil || len(infos) != 0 {
		t.Fatalf("before the first: %v, %v", infos, err)
	}
	when := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	want := snapshot.Info{ID: "id", Parent: "parent", Volume: "volume", Time: when, Host: "host", User: "user", Message: "two\nlines"}
	first, err := s.Take(t.Context(), root, want)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, "2")
	second, err := s.Take(t.Context(), root, snapshot.Info{ID: "other", Time: when})
	if err != nil {
		t.Fatal(err)
	}
	if first.Handle != "2026-02-03T04-05-06Z" || second.Handle != "2026-02-03T04-05-06Z_2" {
		t.Errorf("handles %q and %q", first.Handle, second.Handle)
	}
	for handle, content := range map[string]string{first.Handle: "1", second.Handle: "2"} {
		data, err := os.ReadFile(filepath.Join(s.Path(handle), "file"))
		if err != nil || string(data) != content {
			t.Errorf("%s: %q, %v", handle, data, err)
		}
		if entries, err := os.ReadDir(s.Path(handle) + "/snapshots"); err == nil && len(entries) > 0 {
			t.Errorf("%s contains snapshots: %v", handle, entries)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Path(first.Handle), "file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("a snapshot is written to: %v", err)
	}
	infos, err := s.List(t.Context())
	want.Time, want.Handle, want.Name = when.Truncate(time.Second), first.Handle, first.Handle
	if err != nil || len(infos) != 2 || infos[0] != want {
		t.Errorf("%v\n%+v, want\n%+v", err, infos, want)
	}
	if err := s.Delete(first.Handle); err != nil {
		t.Error(err)
	}
	if err := s.Delete(first.Handle); err != nil {
		t.Errorf("again: %v", err)
	}
	if infos, _ := s.List(t.Context()); len(infos) != 1 || infos[0].ID != "other" {
		t.Errorf("left: %v", infos)
	}
}

// What a person or a crash may do to the store.
func TestStoreOddities(t *testing.T) {
	root, s := live(t)
	kept, err := s.Take(t.Context(), root, snapshot.Info{ID: "kept", Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Path(kept.Handle) + noteSuffix); err != nil {
		t.Fatal(err)
	}
	orphan := s.Path("2020-01-01T00-00-00Z") + noteSuffix
	for _, path := range []string{orphan, s.Path("2020-01-01T00-00-00Z_x"), s.Path("README")} {
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	infos, err := s.List(t.Context())
	if err != nil || len(infos) != 1 || infos[0].ID != kept.Handle {
		t.Errorf("%v, %v", infos, err)
	}
	if err := s.Tidy(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note without a snapshot is still there: %v", err)
	}
	if _, err := os.Lstat(s.Path(kept.Handle)); err != nil {
		t.Error(err)
	}
	// A copy of the volume has an empty directory where the store was.
	copied := filepath.Join(filepath.Dir(root), "copy")
	if err := btrfsvol.Snapshot(root, copied, false); err != nil {
		t.Fatal(err)
	}
	if _, err := In(filepath.Join(copied, "snapshots")).Take(t.Context(), copied, snapshot.Info{ID: "new", Time: time.Now()}); err != nil {
		t.Errorf("in a copy: %v", err)
	}
}

func TestTakeLeavesNothingBehind(t *testing.T) {
	root, s := live(t)
	if _, err := s.Take(t.Context(), root, snapshot.Info{ID: "1", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadDir(filepath.Join(root, "snapshots"))
	if _, err := s.Take(t.Context(), filepath.Join(root, "file"), snapshot.Info{ID: "2", Time: time.Now()}); !errors.Is(err, btrfsvol.ErrNotSubvolume) {
		t.Errorf("of a file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Take(ctx, root, snapshot.Info{ID: "3", Time: time.Now()}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if after, _ := os.ReadDir(filepath.Join(root, "snapshots")); len(after) != len(before) {
		t.Errorf("%v, before %v", after, before)
	}
}
