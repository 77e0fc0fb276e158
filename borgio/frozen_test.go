package borgio_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
)

// environ is an environment of these variables only.
func environ(vars ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, v := range vars {
			if k, val, _ := strings.Cut(v, "="); k == name {
				return val, true
			}
		}
		return "", false
	}
}

func frozenOptions(t testing.TB) borgio.Options {
	keys, err := filepath.Abs("testdata/keys")
	if err != nil {
		t.Fatal(err)
	}
	return borgio.Options{Environ: environ("BORG_PASSPHRASE=s4-test", "BORG_KEYS_DIR="+keys, "BORG_BASE_DIR="+t.TempDir())}
}

func mustOpen(t testing.TB, path string, opts borgio.Options) *borgio.Repository {
	t.Helper()
	loc, err := borgio.ParseLocation(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := borgio.Open(context.Background(), loc, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// entry is an item of its own, with its content's hash.
type entry struct {
	borgio.Item
	sum [32]byte
}

// readArchive reads all of the named archive, content included.
func readArchive(t testing.TB, r *borgio.Repository, name string) map[string]entry {
	t.Helper()
	ctx := context.Background()
	m, err := r.Manifest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range m.Archives {
		if ref.Name != name {
			continue
		}
		a, err := r.Archive(ctx, ref.ID)
		if err != nil {
			t.Fatal(err)
		}
		if a.Name != name || !a.Time.Equal(ref.Time) {
			t.Errorf("archive %s of %v is %s of %v in the manifest", a.Name, a.Time, ref.Name, ref.Time)
		}
		all := map[string]entry{}
		for it, err := range r.Items(ctx, a) {
			if err != nil {
				t.Fatal(err)
			}
			e := entry{Item: *it}
			e.Chunks = append([]borgio.Chunk(nil), it.Chunks...)
			e.Xattrs = append([]borgio.Xattr(nil), it.Xattrs...)
			all[it.Path] = e
		}
		for path, e := range all {
			h := sha256.New()
			if _, err := r.OpenFile(e.Chunks).WriteTo(h); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			h.Sum(e.sum[:0])
			all[path] = e
		}
		return all
	}
	t.Fatalf("no archive %s among %v", name, m.Archives)
	return nil
}

func frozenText() []byte {
	var b bytes.Buffer
	for i := range 500 {
		fmt.Fprintf(&b, "line %d of a text that packs well\n", i)
	}
	return b.Bytes()
}

// TestFrozen reads, without borg, what borg 1.2.4 wrote in every key mode and
// compression.
func TestFrozen(t *testing.T) {
	repos, _ := filepath.Glob("testdata/[mc]o*-*")
	if len(repos) < 16 {
		t.Fatalf("only %d frozen repositories", len(repos))
	}
	when := time.Date(2020, 2, 2, 2, 2, 2, 123456789, time.UTC).UnixNano()
	for _, dir := range repos {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			r := mustOpen(t, dir, frozenOptions(t))
			if mode, ok := strings.CutPrefix(filepath.Base(dir), "mode-"); ok && r.Encryption() != mode {
				t.Errorf("encryption is %s", r.Encryption())
			}
			first := readArchive(t, r, "first")
			for path, want := range map[string]struct {
				mode   uint32
				source string
				body   []byte
			}{
				".":         {0o040755, "", nil},
				"hello.txt": {0o100640, "", []byte("hello, borg\n")},
				"dir":       {0o041755, "", nil},
				"dir/deep":  {0o040755, "", nil},
				"dir/text":  {0o100644, "", frozenText()},
				"dir/link":  {0o120777, "../hello.txt", nil},
				"empty":     {0o100644, "", nil},
				"empty-dir": {0o040755, "", nil},
				"fifo":      {0o010644, "", nil},
			} {
				e, ok := first[path]
				if !ok {
					t.Errorf("%s is missing", path)
					continue
				}
				if e.Mode != want.mode {
					t.Errorf("%s: mode %o, want %o", path, e.Mode, want.mode)
				}
				if path != "hello.txt" { // dir/hard may come first
					if e.Source != want.source || e.sum != sha256.Sum256(want.body) || e.Size != int64(len(want.body)) && want.source == "" {
						t.Errorf("%s: source %q, size %d, content or these differ", path, e.Source, e.Size)
					}
				}
				if e.Mtime != when && path != "." {
					t.Errorf("%s: mtime %d, want %d", path, e.Mtime, when)
				}
			}
			a, b := first["hello.txt"], first["dir/hard"]
			if b.HardlinkMaster {
				a, b = b, a
			}
			if !a.HardlinkMaster || b.Source != a.Path || len(b.Chunks) != 0 || a.sum != sha256.Sum256([]byte("hello, borg\n")) {
				t.Errorf("hard link: master %+v, other %+v", a, b)
			}
			second := readArchive(t, r, "second")
			if len(second) != 2 || second["hello.txt.new"].sum != sha256.Sum256([]byte("changed\n")) {
				t.Errorf("second archive: %v", second)
			}
			c := first["dir/text"].Chunks[0]
			if !r.VerifyID(c.ID, frozenText()[:c.Size]) || r.VerifyID(c.ID, frozenText()[1:]) {
				t.Error("VerifyID does not tell right from wrong")
			}
		})
	}
}

func TestPassphrasesAndKeys(t *testing.T) {
	keys, _ := filepath.Abs("testdata/keys")
	other, _ := filepath.Glob("testdata/keys/keyfile-blake2")
	never := func(context.Context) (string, error) {
		t.Error("asked although the environment knows")
		return "", nil
	}
	asked := 0
	ask := func(context.Context) (string, error) { asked++; return "s4-test", nil }
	base := "BORG_BASE_DIR=" + t.TempDir()
	for _, c := range []struct {
		name, repo string
		env        []string
		prompt     func(context.Context) (string, error)
		want       error
	}{
		{"wrong", "mode-repokey", []string{"BORG_PASSPHRASE=no"}, never, borgio.ErrPassphrase},
		{"none", "mode-repokey-blake2", nil, nil, borgio.ErrNoPassphrase},
		{"asked", "mode-repokey", nil, ask, nil},
		{"command", "mode-authenticated", []string{"BORG_PASSCOMMAND=printf '%s\n' s4-test"}, never, nil},
		{"failing command", "mode-repokey", []string{"BORG_PASSCOMMAND=false"}, never, borgio.ErrNoPassphrase},
		{"no key file", "mode-keyfile", []string{"BORG_PASSPHRASE=s4-test"}, never, borgio.ErrKeyMissing},
		{"key file", "mode-keyfile", []string{"BORG_PASSPHRASE=s4-test", "BORG_KEYS_DIR=" + keys}, never, nil},
		{"another's key", "mode-keyfile", []string{"BORG_PASSPHRASE=s4-test", "BORG_KEY_FILE=" + other[0]}, never, borgio.ErrKeyMismatch},
		{"not needed", "mode-none", nil, never, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			loc, _ := borgio.ParseLocation("testdata/" + c.repo)
			r, err := borgio.Open(t.Context(), loc, borgio.Options{Environ: environ(append(c.env, base)...), Passphrase: c.prompt})
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if r != nil {
				r.Close()
			}
		})
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestNotARepository(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	attic := t.TempDir()
	for name, body := range map[string]string{file: "x", attic + "/config": "[repository]\nversion = 2\nid = " + strings.Repeat("0", 64)} {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{
		"/does/not/exist": borgio.ErrNotRepository,
		t.TempDir():       borgio.ErrNotRepository,
		file:              borgio.ErrNotRepository,
		attic:             borgio.ErrUnsupported,
	} {
		loc, _ := borgio.ParseLocation(path)
		_, err := borgio.Open(t.Context(), loc, borgio.Options{})
		if !errors.Is(err, want) || errors.Is(want, borgio.ErrNotRepository) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
