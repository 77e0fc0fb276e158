package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/atomicfile"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config")
	for _, want := range []string{"first, and longer", "second", ""} {
		if err := atomicfile.Write(path, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", st.Mode(), err)
	}
	only(t, dir, "config")
}

func TestWriteReplacesSymlink(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config")
	if err := os.Symlink(outside, path); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(outside); string(got) != "kept" {
		t.Errorf("the link's target became %q", got)
	}
}

func TestWriteFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "config"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	only(t, dir, "config")
	if err := atomicfile.Write(filepath.Join(dir, "no", "config"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

func only(t *testing.T, dir, name string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Name() != name {
		t.Errorf("directory holds %v, want only %s", list, name)
	}
}

// TestClear removes what killed runs left, and nothing that may be in use.
func TestClear(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{
		"kept": 2 * time.Hour, atomicfile.TempPrefix + "old": 2 * time.Hour, atomicfile.TempPrefix + "new": 0,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		age  time.Duration
		want []string
	}{
		{time.Hour, []string{atomicfile.TempPrefix + "new", "kept"}},
		{0, []string{"kept"}},
	} {
		if err := atomicfile.Clear(dir, c.age); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if !slices.Equal(left, c.want) {
			t.Errorf("after %v: %v, want %v", c.age, left, c.want)
		}
	}
	if err := atomicfile.Clear(filepath.Join(dir, "nothing"), 0); err != nil {
		t.Error(err)
	}
}
