package keys

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Borg 1.x makes keys that take this many rounds to open.
const newIterations = 100_000

// TypeOf tells the type byte of a mode by its name. Errors:
// [fault.ErrUnsupported].
func TypeOf(name string) (byte, error) {
	for typ := byte(typeKeyfile); typ <= typeAuthenticated; typ++ {
		if md, err := ModeOf(typ); typ != TypePassphrase && err == nil && md.Name == name {
			return typ, nil
		}
	}
	return 0, fmt.Errorf("%w: no key mode is named %.40q", fault.ErrUnsupported, name)
}

// Generate makes the key of a new repository, and its text as it is to be kept:
// "" in the mode that has none.
func Generate(ctx context.Context, typ byte, repository [32]byte, passphrase string) (*Key, string, error) {
	md, err := ModeOf(typ)
	if err != nil {
		return nil, "", err
	}
	if !md.Keyed {
		k, err := New(typ, nil)
		return k, "", err
	}
	var random [32 + 64 + 64 + 4]byte
	_, _ = rand.Read(random[:]) // never fails
	m := &Material{
		Repository: repository, TAMRequired: true,
		encKey:    random[:32],
		ChunkSeed: int32(binary.BigEndian.Uint32(random[160:])),
	}
	if md.blake2 { // padded to a block of the hash
		m.encHMACKey = append(random[32:96:96], make([]byte, 64)...)
		m.idKey = append(random[96:160:160], make([]byte, 64)...)
	} else {
		m.encHMACKey, m.idKey = random[32:64:64], random[96:128:128]
	}
	k, err := New(typ, m)
	if err != nil {
		return nil, "", err
	}
	text, err := m.seal(ctx, passphrase)
	return k, text, err
}

// lineLength is that of a key's text.
const lineLength = 70

// seal encrypts key material with a passphrase, and gives its text.
func (m *Material) seal(ctx context.Context, passphrase string) (string, error) {
	plain := msgpack.AppendMap(nil, 7)
	plain = msgpack.AppendInt(msgpack.AppendBytes(plain, "chunk_seed"), int64(m.ChunkSeed))
	plain = msgpack.AppendBytes(msgpack.AppendBytes(plain, "enc_hmac_key"), m.encHMACKey)
	plain = msgpack.AppendBytes(msgpack.AppendBytes(plain, "enc_key"), m.encKey)
	plain = msgpack.AppendBytes(msgpack.AppendBytes(plain, "id_key"), m.idKey)
	plain = msgpack.AppendBytes(msgpack.AppendBytes(plain, "repository_id"), m.Repository[:])
	plain = msgpack.AppendBool(msgpack.AppendBytes(plain, "tam_required"), m.TAMRequired)
	plain = msgpack.AppendInt(msgpack.AppendBytes(plain, "version"), 1)

	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails
	kek, err := derive(ctx, passphrase, salt, newIterations)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, kek[:])
	mac.Write(plain)
	block, err := aes.NewCipher(kek[:])
	if err != nil {
		return "", err
	}
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, plain)

	b := msgpack.AppendMap(nil, 6)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "algorithm"), "sha256")
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "data"), plain)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "hash"), mac.Sum(nil))
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "iterations"), newIterations)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "salt"), salt)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "version"), 1)
	text := base64.StdEncoding.EncodeToString(b)
	var lines []string
	for len(text) > lineLength {
		lines, text = append(lines, text[:lineLength]), text[lineLength:]
	}
	return strings.Join(append(lines, text), "\n"), nil
}

// maxKeyfileName is how many characters of a repository's place name its key
// file.
const maxKeyfileName = 100

// WriteFile puts the text of a key into a new key file, and tells its path: that
// of BORG_KEY_FILE, else one in borg's keys directory that is named after the
// repository's host, if any, and path. A file that is there is left alone, unless it
// is of a repository with this very id, which was begun and never finished, and has a
// new key now; where BORG_KEY_FILE names another's, the error is [fs.ErrExist].
func WriteFile(env Environ, id [32]byte, text, host, path string) (string, error) {
	text = keyfileMagic + hex.EncodeToString(id[:]) + "\n" + text + "\n"
	target, fixed := env.get("BORG_KEY_FILE"), true
	if target == "" {
		dir, err := env.configDir("BORG_KEYS_DIR", "keys")
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("write key file: %w", err)
		}
		target, fixed = filepath.Join(dir, keyfileName(host, path)), false
		if before, _, err := findIn(dir, id); err == nil {
			target = before
		}
	}
	tmp, err := writeTemp(target, text, 0o600)
	if err != nil {
		return "", fmt.Errorf("write key file: %w", err)
	}
	defer func() { _ = os.Remove(tmp) }() // the key is safe under another name, or nowhere
	name := target
	for i := 2; ; i++ {
		err := os.Link(tmp, name) // which replaces nothing
		if errors.Is(err, fs.ErrExist) {
			if owner, _, rerr := readKeyfile(name); rerr == nil && owner == id {
				err = os.Rename(tmp, name)
			}
		}
		if err == nil {
			return name, syncDir(filepath.Dir(name))
		}
		if fixed || !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("write key file: %w", err)
		}
		name = fmt.Sprintf("%s.%d", target, i)
	}
}

// keyfileName makes a file's name of a repository's place, as borg does.
func keyfileName(host, path string) string {
	words := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r) {
				return '_'
			}
			return r
		}, s)
	}
	name := strings.Trim(words(path), "_")
	if host != "" {
		name = words(host) + "__" + name
	}
	if r := []rune(name); len(r) > maxKeyfileName {
		name = string(r[:maxKeyfileName])
	}
	if name == "" {
		name = "key" // of the repository "/"
	}
	return name
}
