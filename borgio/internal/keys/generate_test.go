package keys

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

var modes = []string{"none", "authenticated", "authenticated-blake2", "repokey", "repokey-blake2", "keyfile", "keyfile-blake2"}

// TestGenerate makes a key of each mode, opens it again from its text, and has
// what the one encrypts decrypted by the other.
func TestGenerate(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			typ, err := TypeOf(mode)
			if err != nil {
				t.Fatal(err)
			}
			id := [32]byte{1, 2, 3}
			k, text, err := Generate(t.Context(), typ, id, "päss")
			if err != nil {
				t.Fatal(err)
			}
			again := k
			if (text == "") != (mode == "none") {
				t.Fatalf("the key's text is %q", text)
			}
			if text != "" {
				sealed, err := Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := sealed.open(t.Context(), "pass"); !errors.Is(err, fault.ErrPassphrase) {
					t.Errorf("another passphrase: %v", err)
				}
				m, err := sealed.open(t.Context(), "päss")
				if err != nil {
					t.Fatal(err)
				}
				if m.Repository != id || !m.TAMRequired || m.ChunkSeed != k.ChunkSeed {
					t.Errorf("opened: %x, %v, seed %d of %d", m.Repository, m.TAMRequired, m.ChunkSeed, k.ChunkSeed)
				}
				if again, err = New(typ, m); err != nil {
					t.Fatal(err)
				}
			}
			payload := []byte("\x00\x00some payload of more than a block")
			object := append(make([]byte, k.Overhead()), payload...)
			k.Encrypt(object, 1<<40)
			if k.Encrypted == bytes.Contains(object, payload[2:]) {
				t.Error("the payload is readable, or is not")
			}
			got, err := again.Decrypt(object, make([]byte, len(object)))
			if err != nil || !bytes.Equal(got, payload) {
				t.Errorf("%q, %v", got, err)
			}
			free, err := k.FreeBehind(object)
			if want := uint64(1<<40) + Blocks(len(object)); err != nil || k.Encrypted && free != want || !k.Encrypted && free != 0 {
				t.Errorf("free: %d, %v", free, err)
			}
			packed := append([]byte("some metadata"), make([]byte, TAMSize+5)...)
			if err := k.SignTAM(packed, 13, []byte("salt"), "archive"); err != nil {
				t.Fatal(err)
			}
			if err := again.CheckTAM(packed, 13, []byte("salt"), "archive"); err != nil {
				t.Error(err)
			}
			if again.CheckTAM(packed, 13, []byte("salt"), "manifest") == nil {
				t.Error("an archive passes for a manifest")
			}
		})
	}
	for _, name := range []string{"", "keyfile ", "passphrase", "aes"} {
		if _, err := TypeOf(name); !errors.Is(err, fault.ErrUnsupported) {
			t.Errorf("mode %q: %v", name, err)
		}
	}
}

// TestWriteFile: a key file is found by who looks for it as borg does, is for its
// owner only, and replaces none.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	env := lookup(map[string]string{"BORG_KEYS_DIR": filepath.Join(dir, "keys")})
	for _, c := range []struct {
		id         byte
		host, path string
		want       string
	}{
		{1, "", "/srv/my backups", "srv_my_backups"},
		{2, "", "/srv/my backups", "srv_my_backups.2"},
		{3, "box.example", "/~/r-1", "box_example__r_1"},
		{4, "", "/" + strings.Repeat("ü/", 80), strings.Repeat("ü_", 50)},
		{5, "", "/", "key"},
	} {
		id := [32]byte{c.id}
		path, err := WriteFile(env, id, "text "+c.want, c.host, c.path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil || filepath.Base(path) != c.want || st.Mode() != 0o600 {
			t.Errorf("%s, want %s; %v, %v", path, c.want, st.Mode(), err)
		}
		if got, err := FindFile(env, id); err != nil || strings.TrimSpace(got) != "text "+c.want {
			t.Errorf("%s: found %q, %v", path, got, err)
		}
	}
	at := filepath.Join(dir, "alone")
	env = lookup(map[string]string{"BORG_KEY_FILE": at})
	if path, err := WriteFile(env, [32]byte{9}, "text", "", "/x"); err != nil || path != at {
		t.Errorf("%s, %v", path, err)
	}
	if _, err := WriteFile(env, [32]byte{8}, "text", "", "/x"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key in the same file: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRemember: notes are read back, and only ever go forward.
func TestRemember(t *testing.T) {
	env := lookup(map[string]string{"BORG_BASE_DIR": t.TempDir()})
	id := [32]byte{7}
	if _, known := TypeRemembered(env, id); known || TAMRemembered(env, id) {
		t.Error("something is known at the start")
	}
	for _, n := range []Note{
		{"/a", TypeRepokey, "2026-01-02T00:00:00.000000", true},
		{"/b", TypeRepokey, "2025-01-02T00:00:00.000000", false},
	} {
		if err := Remember(env, id, n); err != nil {
			t.Fatal(err)
		}
		typ, known := TypeRemembered(env, id)
		location, err := readNote(env, id, "location")
		if !known || typ != TypeRepokey || ManifestRemembered(env, id) != "2026-01-02T00:00:00.000000" || !TAMRemembered(env, id) || location != "/a" {
			t.Errorf("%+v: type %d, location %q, %v", n, typ, location, err)
		}
	}
}

// TestNewPassphrase gets it from where borg does.
func TestNewPassphrase(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"BORG_NEW_PASSPHRASE": "n", "BORG_PASSPHRASE": "p"}, "n"},
		{map[string]string{"BORG_PASSPHRASE": ""}, ""},
		{map[string]string{"BORG_PASSCOMMAND": "echo c"}, "c"},
	} {
		if got, err := NewPassphrase(t.Context(), lookup(c.env), nil); got != c.want || err != nil {
			t.Errorf("%v: %q, %v", c.env, got, err)
		}
	}
	if _, err := NewPassphrase(t.Context(), lookup(nil), nil); !errors.Is(err, fault.ErrNoPassphrase) {
		t.Errorf("nobody to ask: %v", err)
	}
}

func BenchmarkEncrypt(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			typ, _ := TypeOf(mode)
			k, _, err := Generate(b.Context(), typ, [32]byte{}, "")
			if err != nil {
				b.Fatal(err)
			}
			object := make([]byte, 2<<20)
			b.SetBytes(int64(len(object)))
			for b.Loop() {
				k.ID(object)
				k.Encrypt(object, 0)
			}
		})
	}
}
