package keys

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// seal makes a key blob.
func seal(tb testing.TB, passphrase string, rounds int, plain []byte) []byte {
	tb.Helper()
	salt := []byte("0123456789abcdef0123456789abcdef")
	kek, err := pbkdf2.Key(sha256.New, passphrase, salt, rounds, 32)
	if err != nil {
		tb.Fatal(err)
	}
	mac := hmac.New(sha256.New, kek)
	mac.Write(plain)
	return blob(1, "sha256", rounds, salt, mac.Sum(nil), ctr(tb, kek, plain))
}

func ctr(tb testing.TB, key, in []byte) []byte {
	tb.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	out := make([]byte, len(in))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(out, in)
	return out
}

func blob(version int, algorithm string, rounds int, salt, hash, data []byte) []byte {
	b := msgpack.AppendMap(nil, 6)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "version"), int64(version))
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "algorithm"), algorithm)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "iterations"), int64(rounds))
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "salt"), salt)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "hash"), hash)
	return msgpack.AppendBytes(msgpack.AppendBytes(b, "data"), data)
}

// unsealed is a key's material as it is packed.
func unsealed(tb testing.TB, k *Sealed, passphrase string) []byte {
	tb.Helper()
	kek, err := pbkdf2.Key(sha256.New, passphrase, k.salt, k.iterations, 32)
	if err != nil {
		tb.Fatal(err)
	}
	return ctr(tb, kek, k.data)
}

// sealObject encrypts as borg does, with a nonce that is of no concern here.
func sealObject(k *Key, payload []byte) []byte {
	sealed := []byte{0, 0, 0, 0, 0, 0, 1, 2}
	var counter [aes.BlockSize]byte
	copy(counter[8:], sealed)
	body := make([]byte, len(payload))
	cipher.NewCTR(k.block, counter[:]).XORKeyStream(body, payload)
	sealed = append(sealed, body...)
	sum := k.hash(k.encHMACKey, sealed)
	return append(append([]byte{k.Type}, sum[:]...), sealed...)
}

func text(blob []byte) string { return base64.StdEncoding.EncodeToString(blob) }

func TestDerive(t *testing.T) {
	for _, rounds := range []int{1, 2, 1000, 4096, 10001} {
		salt := make([]byte, rounds%70)
		_, _ = rand.Read(salt) // never fails
		want, err := pbkdf2.Key(sha256.New, "correct horse", salt, rounds, 32)
		if err != nil {
			t.Fatal(err)
		}
		got, err := derive(t.Context(), "correct horse", salt, rounds)
		if err != nil || string(got[:]) != string(want) {
			t.Errorf("%d rounds: %x, %v, want %x", rounds, got, err, want)
		}
	}
}

// TestDeriveIsInterrupted: a key may ask for hours of work.
func TestDeriveIsInterrupted(t *testing.T) {
	k := &Sealed{iterations: 1 << 40, hash: make([]byte, sha256.Size)}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := k.open(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestKinds tells apart what can be wrong with a key.
func TestKinds(t *testing.T) {
	good := msgpack.AppendBytes(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "id_key"), make([]byte, 128))
	salt, hash := make([]byte, 32), make([]byte, 32)
	const pass = "s4-test"
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"good", text(seal(t, pass, 5, good)), nil},
		{"wrapped", " " + strings.Join(strings.SplitAfter(text(seal(t, pass, 5, good)), "A"), "\n\t"), nil},
		{"another passphrase", text(seal(t, "other", 5, good)), fault.ErrPassphrase},
		{"a bit of its data", text(func() []byte { b := seal(t, pass, 5, good); b[len(b)-1] ^= 1; return b }()), fault.ErrPassphrase},
		{"empty", "", fault.ErrKeyDamaged},
		{"not base64", "!!!!", fault.ErrKeyDamaged},
		{"not msgpack", text([]byte("hello")), fault.ErrKeyDamaged},
		{"cut short", text(seal(t, pass, 5, good)[:60]), fault.ErrKeyDamaged},
		{"nothing in it", text(msgpack.AppendMap(nil, 0)), fault.ErrKeyDamaged},
		{"borg 2", text(blob(1, "argon2 aes256-ctr hmac-sha256", 3, salt, hash, nil)), fault.ErrKeyKind},
		{"a later version", text(blob(2, "sha256", 3, salt, hash, nil)), fault.ErrKeyKind},
		{"no rounds", text(blob(1, "sha256", 0, salt, hash, nil)), fault.ErrKeyDamaged},
		{"absurdly many rounds", text(blob(1, "sha256", 1<<32, salt, hash, nil)), fault.ErrKeyDamaged},
		{"negative rounds", text(blob(1, "sha256", -1, salt, hash, nil)), fault.ErrKeyDamaged},
		{"a short hash", text(blob(1, "sha256", 3, salt, hash[1:], nil)), fault.ErrKeyDamaged},
		{"other material", text(seal(t, pass, 5, []byte("hello"))), fault.ErrKeyDamaged},
		{"later material", text(seal(t, pass, 5, msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "version"), 2))), fault.ErrKeyKind},
		{"a gigabyte", strings.Repeat("A", 1<<30), fault.ErrKeyDamaged},
		{"a map of many", text([]byte("\xdf\xff\xff\xff\xff\xa1a")), fault.ErrKeyDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			over := heap.Over(16*maxKeyBytes, func() {
				var k *Sealed
				if k, err = Parse(c.text); err == nil {
					_, err = k.open(t.Context(), pass)
				}
			})
			if !errors.Is(err, c.want) || over > 0 {
				t.Errorf("%v, want %v; %d bytes over the bound", err, c.want, over)
			}
		})
	}
	if _, err := New(TypeRepokey, &Material{}); !errors.Is(err, fault.ErrKeyDamaged) {
		t.Errorf("material without keys: %v", err)
	}
}

// lookup is an environment of these variables only.
func lookup(vars map[string]string) Environ {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

// TestFindFile looks for key files in all the places where borg does.
func TestFindFile(t *testing.T) {
	var id, other [32]byte
	id[0], other[0] = 1, 2
	dir := t.TempDir()
	put := func(path, content string) string {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyOf := func(id [32]byte, what string) string { return "BORG_KEY " + hex.EncodeToString(id[:]) + "\n" + what }
	for _, place := range []string{"keys", "config/keys", "base/.config/borg/keys", "xdg/borg/keys", "home/.config/borg/keys"} {
		put(place+"/a", "not a key")
		put(place+"/b", keyOf(other, "of another"))
		put(place+"/c", keyOf(id, place))
		if err := unix.Mkfifo(filepath.Join(dir, place, "a fifo"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(p string) string { return filepath.Join(dir, p) }
	alone := put("alone", keyOf(id, "alone"))
	for _, c := range []struct {
		name string
		env  map[string]string
		want string
		kind error
	}{
		{"file", map[string]string{"BORG_KEY_FILE": alone, "BORG_KEYS_DIR": at("keys")}, "alone", nil},
		{"keys directory", map[string]string{"BORG_KEYS_DIR": at("keys"), "BORG_CONFIG_DIR": at("config")}, "keys", nil},
		{"config directory", map[string]string{"BORG_CONFIG_DIR": at("config"), "BORG_BASE_DIR": at("base")}, "config/keys", nil},
		{"base directory", map[string]string{"BORG_BASE_DIR": at("base"), "XDG_CONFIG_HOME": at("xdg"), "HOME": at("home")}, "base/.config/borg/keys", nil},
		{"XDG", map[string]string{"XDG_CONFIG_HOME": at("xdg"), "HOME": at("home")}, "xdg/borg/keys", nil},
		{"home", map[string]string{"HOME": at("home")}, "home/.config/borg/keys", nil},
		{"none", map[string]string{"BORG_KEYS_DIR": at("nowhere")}, "", fault.ErrKeyMissing},
		{"no such file", map[string]string{"BORG_KEY_FILE": at("nowhere")}, "", fault.ErrKeyMissing},
		{"another's", map[string]string{"BORG_KEY_FILE": at("keys/b")}, "", fault.ErrKeyMismatch},
		{"not a key", map[string]string{"BORG_KEY_FILE": at("keys/a")}, "", fault.ErrKeyDamaged},
		{"fifo", map[string]string{"BORG_KEY_FILE": at("keys/a fifo")}, "", fault.ErrKeyDamaged},
		{"directory", map[string]string{"BORG_KEY_FILE": at("keys")}, "", fault.ErrKeyDamaged},
		{"damaged", map[string]string{"BORG_KEY_FILE": put("damaged", keyOf(id, "")[:40])}, "", fault.ErrKeyDamaged},
		{"too long", map[string]string{"BORG_KEY_FILE": put("long", keyOf(id, strings.Repeat("A", maxKeyBytes)))}, "", fault.ErrKeyDamaged},
		{"a remark", map[string]string{"BORG_KEY_FILE": put("remark", strings.Replace(keyOf(id, "x"), "\n", " my key\n", 1))}, "x", nil},
	} {
		if got, err := FindFile(lookup(c.env), id); got != c.want || !errors.Is(err, c.kind) {
			t.Errorf("%s: %q, %v, want %q, %v", c.name, got, err, c.want, c.kind)
		}
	}
	// Without HOME, as in a service, the user's entry tells.
	env := lookup(map[string]string{"USER": "root"})
	if got, err := env.configDir("BORG_KEYS_DIR", "keys"); err != nil || got != "/root/.config/borg/keys" {
		t.Errorf("without HOME: %s, %v", got, err)
	}
	if os.Geteuid() == 0 {
		return // may read everything
	}
	if err := os.Chmod(at("keys/c"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := FindFile(lookup(map[string]string{"BORG_KEYS_DIR": at("keys")}), id); !errors.Is(err, fault.ErrKeyMissing) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("unreadable: %v", err)
	}
}

// TestPassphrases gets the passphrase from all the places where borg does.
func TestPassphrases(t *testing.T) {
	good := msgpack.AppendBytes(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "id_key"), make([]byte, 128))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		pass string // of the key
		env  map[string]string
		fd   string // what can be read from BORG_PASSPHRASE_FD
		ask  string // the answer; "-": nobody is there
		want error
	}{
		{"variable", "p", map[string]string{"BORG_PASSPHRASE": "p", "BORG_PASSCOMMAND": "false"}, "", "-", nil},
		{"empty variable", "", map[string]string{"BORG_PASSPHRASE": ""}, "", "-", nil},
		{"empty variable is an answer", "p", map[string]string{"BORG_PASSPHRASE": ""}, "", "p", fault.ErrPassphrase},
		{"line break in the variable", "p\n", map[string]string{"BORG_PASSPHRASE": "p\n"}, "", "-", nil},
		{"command", "a b'c", map[string]string{"BORG_PASSCOMMAND": `printf '%s\n\n' "a b'c"`}, "", "-", nil},
		{"command before descriptor", "p", map[string]string{"BORG_PASSCOMMAND": "echo p"}, "q", "-", nil},
		{"command that fails", "p", map[string]string{"BORG_PASSCOMMAND": "sh -c 'echo oops >&2; exit 3'"}, "", "p", fault.ErrNoPassphrase},
		{"command that is not there", "p", map[string]string{"BORG_PASSCOMMAND": "/no/such/command"}, "", "p", fault.ErrNoPassphrase},
		{"command with an open quote", "p", map[string]string{"BORG_PASSCOMMAND": "echo 'p"}, "", "p", fault.ErrNoPassphrase},
		{"empty command", "p", map[string]string{"BORG_PASSCOMMAND": " "}, "", "p", fault.ErrNoPassphrase},
		{"command that leaves an agent", "p", map[string]string{"BORG_PASSCOMMAND": "sh -c 'sleep 60 & echo p'"}, "", "-", nil},
		{"descriptor", "p q", nil, "p q\n\n", "-", nil},
		{"no descriptor", "p", map[string]string{"BORG_PASSPHRASE_FD": "999"}, "", "p", fault.ErrNoPassphrase},
		{"no number", "p", map[string]string{"BORG_PASSPHRASE_FD": "x"}, "", "p", fault.ErrNoPassphrase},
		{"empty is tried", "", nil, "", "-", nil},
		{"asked", "p", nil, "", "p", nil},
		{"asked, wrong", "p", nil, "", "q", fault.ErrPassphrase},
		{"nobody to ask", "p", nil, "", "-", fault.ErrNoPassphrase},
		{"interrupted", "p", nil, "", "^C", context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k, err := Parse(text(seal(t, c.pass, 2, good)))
			if err != nil {
				t.Fatal(err)
			}
			env := maps.Clone(c.env)
			if c.fd != "" {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				_, _ = w.WriteString(c.fd) // fits the pipe
				w.Close()
				fd, err := unix.Dup(int(r.Fd())) // which is used up
				if err != nil {
					t.Fatal(err)
				}
				r.Close()
				if env == nil {
					env = map[string]string{}
				}
				env["BORG_PASSPHRASE_FD"] = strconv.Itoa(fd)
			}
			ctx, asked := t.Context(), 0
			ask := func(context.Context) (string, error) { asked++; return c.ask, nil }
			switch c.ask {
			case "-":
				ask = nil
			case "^C":
				ctx = canceled
			}
			if _, err := Unseal(ctx, k, lookup(env), ask); !errors.Is(err, c.want) || asked > 1 {
				t.Errorf("%v after %d questions, want %v", err, asked, c.want)
			}
			if HasPassphraseEnv(lookup(env)) != (len(env) > 0) {
				t.Error("HasPassphraseEnv is wrong")
			}
		})
	}
}
