package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// frozenKeys gives the texts of the keys of all frozen repositories, by their
// modes.
func frozenKeys(tb testing.TB) map[string]string {
	tb.Helper()
	texts := map[string]string{}
	for _, mode := range []string{"keyfile", "keyfile-blake2"} {
		_, text, err := readKeyfile("../../testdata/keys/" + mode)
		if err != nil {
			tb.Fatal(err)
		}
		texts[mode] = text
	}
	for _, mode := range []string{"repokey", "repokey-blake2", "authenticated", "authenticated-blake2"} {
		config, err := os.ReadFile("../../testdata/mode-" + mode + "/config")
		if err != nil {
			tb.Fatal(err)
		}
		_, text, ok := strings.Cut(string(config), "\nkey = ")
		if !ok {
			tb.Fatalf("%s has no key", mode)
		}
		texts[mode] = text
	}
	return texts
}

// FuzzKey opens key blobs that may be anything.
func FuzzKey(f *testing.F) {
	for _, text := range frozenKeys(f) {
		blob, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
		k, err := Parse(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(unsealed(f, k, "s4-test")) // as key material
	}
	f.Add(seal(f, "s4-test", 3, msgpack.AppendBytes(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "id_key"), make([]byte, 128))))
	f.Fuzz(func(t *testing.T, in []byte) {
		text := base64.StdEncoding.EncodeToString(in)
		var k *Sealed
		var err error
		if over := heap.Over(16*len(text), func() { k, err = Parse(text) }); over > 0 {
			t.Errorf("%d bytes over the bound", over)
		}
		checkKind(t, err)
		if err == nil && k.iterations < 10 {
			if _, err := k.open(t.Context(), "s4-test"); !errors.Is(err, fault.ErrPassphrase) {
				checkKind(t, err)
			}
		}
		var m *Material
		if over := heap.Over(0, func() { m, err = parseKeyMaterial(in) }); over > 0 {
			t.Errorf("%d bytes over the bound", over)
		}
		checkKind(t, err)
		if err != nil {
			return
		}
		for typ := range byte(8) {
			k, err := New(typ, m)
			checkKind(t, err)
			if err != nil {
				continue
			}
			// What is no object of it is refused; the fuzzer cannot make one.
			if _, err := k.Decrypt(in, make([]byte, len(in))); err == nil && k.Encrypted {
				t.Fatal("opened something as an encrypted object")
			}
		}
	})
}

// checkKind: a key that is no good is so for one of the reasons given.
func checkKind(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, fault.ErrKeyDamaged) && !errors.Is(err, fault.ErrUnsupported) {
		t.Fatalf("%v is of no kind", err)
	}
}

// FuzzKeyfile takes key files apart that may be anything.
func FuzzKeyfile(f *testing.F) {
	files, _ := filepath.Glob("../../testdata/keys/*")
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, data string) {
		var owner [32]byte
		var text string
		var err error
		if over := heap.Over(0, func() { owner, text, err = parseKeyfile(data) }); over > 0 {
			t.Errorf("%d bytes over the bound", over)
		}
		checkKind(t, err)
		if err != nil {
			return
		}
		head := keyfileMagic + hex.EncodeToString(owner[:])
		if len(data) < len(head) || !strings.EqualFold(data[:len(head)], head) || !strings.HasSuffix(data, text) {
			t.Fatalf("owner %x, text %q", owner, text)
		}
		again, same, err := parseKeyfile(head + "\n" + text)
		if err != nil || again != owner || same != text {
			t.Fatalf("written again: %x, %q, %v", again, same, err)
		}
	})
}

// FuzzObject opens stored objects that may be anything, with a key of each
// mode. What is sealed by the test comes back; what is changed does not.
func FuzzObject(f *testing.F) {
	var all []*Key
	for mode, text := range frozenKeys(f) {
		sealed, err := Parse(text)
		if err != nil {
			f.Fatal(err)
		}
		m, err := sealed.open(f.Context(), "s4-test")
		if err != nil {
			f.Fatal(err)
		}
		for typ := range byte(8) {
			if md, _ := ModeOf(typ); md.Name == mode && typ != TypePassphrase {
				k, err := New(typ, m)
				if err != nil {
					f.Fatal(err)
				}
				all = append(all, k)
			}
		}
	}
	f.Add([]byte("\x00\x00plain"), 0)
	f.Add(bytes.Repeat([]byte{5}, 100), 50)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		for _, k := range all {
			scratch := make([]byte, len(in))
			if _, err := k.Decrypt(in, scratch); err == nil && k.Encrypted {
				t.Fatalf("%s: opened something", k.Name)
			}
			if !k.Encrypted {
				continue
			}
			stored := sealObject(k, in)
			scratch = make([]byte, len(stored))
			got, err := k.Decrypt(stored, scratch)
			if err != nil || !bytes.Equal(got, in) {
				t.Fatalf("%s: %x comes back as %x, %v", k.Name, in, got, err)
			}
			stored[uint(at)%uint(len(stored))] ^= 1
			if _, err := k.Decrypt(stored, scratch); err == nil && stored[0] != TypePassphrase {
				t.Fatalf("%s: a changed object was taken", k.Name)
			}
		}
	})
}
