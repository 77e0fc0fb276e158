package borgio_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
)

// copyFrozen gives a copy of a frozen repository to do harm to.
func copyFrozen(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS("testdata/"+name)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestIndexIsTrustedOnlyWhenGood breaks the repository index in every way and
// expects the segments to be read instead, and nothing to be written.
func TestIndexIsTrustedOnlyWhenGood(t *testing.T) {
	edit := func(path string, fn func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			b, err := os.ReadFile(filepath.Join(dir, path))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, path), fn(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(names ...string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			for _, n := range names {
				if err := os.Remove(filepath.Join(dir, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	rename := func(from, to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name  string
		harm  func(*testing.T, string)
		warns bool
	}{
		{"good", func(*testing.T, string) {}, false},
		{"no digests", remove("integrity.9"), false},
		{"missing", remove("index.9"), false},
		{"empty", edit("index.9", func([]byte) []byte { return nil }), false},
		{"cut", edit("index.9", func(b []byte) []byte { return b[:len(b)-40] }), true},
		{"flipped header", edit("index.9", func(b []byte) []byte { b[8] ^= 1; return b }), true},
		{"zeroed buckets", edit("index.9", func(b []byte) []byte { clear(b[18:]); return b }), true},
		{"too new", rename("index.9", "index.12"), true},
		{"uncommitted segment", func(t *testing.T, dir string) {
			if err := os.WriteFile(dir+"/data/0/10", []byte("BORG_SEGxxxxx"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyFrozen(t, "mode-none")
			c.harm(t, dir)
			before := listing(t, dir)
			var log bytes.Buffer
			opts := frozenOptions(t)
			opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			r := mustOpen(t, dir, opts)
			if len(readArchive(t, r, "first")) != 11 || len(readArchive(t, r, "second")) != 2 {
				t.Error("items are missing")
			}
			if c.warns != (log.Len() > 0) {
				t.Errorf("logged: %s", log.String())
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the repository was changed from\n%s\nto\n%s", before, after)
			}
		})
	}
}

func listing(t *testing.T, dir string) string {
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		b.WriteString(path + " " + st.Mode().String() + " " + st.ModTime().String() + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestStaleIndex gives an open repository a commit that its index knows nothing
// of: the segments are applied in memory.
func TestStaleIndex(t *testing.T) {
	dir := copyFrozen(t, "mode-none")
	stale := copyFrozen(t, "mode-none")
	// Cut the second archive's transactions off, so that 5 is the last commit.
	for _, n := range []string{"6", "7", "8", "9"} {
		if err := os.Remove(stale + "/data/0/" + n); err != nil {
			t.Fatal(err)
		}
	}
	r := mustOpen(t, stale, frozenOptions(t))
	m, err := r.Manifest(t.Context())
	if err != nil || len(m.Archives) != 1 {
		t.Fatalf("before the second archive: %v, %v", m, err)
	}
	// Now the second archive is committed, while r is open.
	for _, n := range []string{"6", "7", "8", "9"} {
		b, err := os.ReadFile(dir + "/data/0/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(stale+"/data/0/"+n, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(readArchive(t, r, "second")) != 2 {
		t.Error("the second archive is not seen")
	}
}

// TestBitFlips damages each object in turn: reading it says so, and reading
// everything else goes on.
func TestBitFlips(t *testing.T) {
	for _, name := range []string{"mode-none", "mode-repokey-blake2", "mode-authenticated"} {
		t.Run(name, func(t *testing.T) {
			dir := copyFrozen(t, name)
			segment := dir + "/data/0/2" // the first archive's content
			good, err := os.ReadFile(segment)
			if err != nil {
				t.Fatal(err)
			}
			r := mustOpen(t, dir, frozenOptions(t))
			files := readArchive(t, r, "first")
			damagedSomething := 0
			for at := 8 + 41 + 3; at < len(good); at += 997 {
				bad := bytes.Clone(good)
				bad[at] ^= 0x10
				if err := os.WriteFile(segment, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				r := mustOpen(t, dir, frozenOptions(t))
				if _, err := r.Manifest(t.Context()); err != nil {
					t.Fatalf("byte %d: manifest: %v", at, err)
				}
				failed := 0
				for path, e := range files {
					if len(e.Chunks) == 0 {
						continue
					}
					var b bytes.Buffer
					_, err := r.OpenFile(e.Chunks).WriteTo(&b)
					ie, typed := errors.AsType[*borgio.IntegrityError](err)
					switch {
					case err == nil:
					case typed && errors.Is(err, borgio.ErrIntegrity) && ie.Object == e.Chunks[0].ID:
						failed++
					default:
						t.Errorf("byte %d: %s: %v", at, path, err)
					}
				}
				if failed > 1 {
					t.Errorf("byte %d: %d files cannot be read", at, failed)
				}
				damagedSomething += failed
			}
			if damagedSomething == 0 {
				t.Error("no flip was noticed")
			}
		})
	}
}

// TestMissingSegment: what was in it is reported as missing, the rest reads.
func TestMissingSegment(t *testing.T) {
	dir := copyFrozen(t, "mode-none")
	r := mustOpen(t, dir, frozenOptions(t))
	first, second := readArchive(t, r, "first"), readArchive(t, r, "second")
	if err := os.Remove(dir + "/data/0/2"); err != nil {
		t.Fatal(err)
	}
	r = mustOpen(t, dir, frozenOptions(t))
	f := r.OpenFile(first["dir/deep/noise"].Chunks)
	for range 2 {
		if _, err := f.ReadAt(make([]byte, 10), 5); !errors.Is(err, borgio.ErrIntegrity) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := r.OpenFile(second["hello.txt.new"].Chunks).WriteTo(io.Discard); err != nil {
		t.Errorf("the rest cannot be read: %v", err)
	}
}

// TestIdleManifest: a manifest that cannot have changed is not read again, and
// the caller's copy of it is the caller's.
func TestIdleManifest(t *testing.T) {
	r := mustOpen(t, copyFrozen(t, "mode-repokey-blake2"), frozenOptions(t))
	look := func() {
		m, err := r.Manifest(t.Context())
		if err != nil || len(m.Archives) != 2 {
			t.Fatalf("%+v, %v", m, err)
		}
		clear(m.Archives)
	}
	begun, fewest := time.Now(), 0.0
	for time.Since(begun) < 10*time.Second {
		if fewest = testing.AllocsPerRun(10, look); fewest < 30 {
			return
		}
		time.Sleep(50 * time.Millisecond) // it has to be at rest for a moment
	}
	t.Errorf("a look allocates %v times", fewest)
}
