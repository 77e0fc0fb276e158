package borgio

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// sealedKey is a key blob: key material encrypted with a passphrase.
type sealedKey struct {
	iterations int
	salt, hash []byte
	data       []byte
}

// keyMaterial is what a sealed key holds.
type keyMaterial struct {
	repository  ID
	encKey      []byte // AES-256
	encHMACKey  []byte // authenticates ciphertext
	idKey       []byte // makes object ids
	tamRequired bool
}

// maxIterations bounds the work that a hostile key blob can ask for; Borg 1.x
// writes 100,000.
const maxIterations = 10_000_000

// parseKeyText decodes the base64 text of a key as the repository or a key
// file (without its first line) holds it.
func parseKeyText(text string) (*sealedKey, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k := &sealedKey{}
	r := msgpack.NewReader(raw)
	version, algorithm := int64(0), ""
	err = r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			version, err = r.Int()
		case "algorithm":
			algorithm, err = r.String()
		case "iterations":
			var n int64
			if n, err = r.Int(); err == nil && (n < 1 || n > maxIterations) {
				err = fmt.Errorf("%d iterations", n)
			}
			k.iterations = int(n)
		case "salt":
			k.salt, err = r.Bytes()
		case "hash":
			k.hash, err = r.Bytes()
		case "data":
			k.data, err = r.Bytes()
		default:
			err = r.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("key: %w", err)
	case version != 1 || algorithm != "sha256":
		return nil, fmt.Errorf("%w: key of version %d, algorithm %.20q", ErrUnsupported, version, algorithm)
	case k.iterations == 0 || len(k.hash) != sha256.Size:
		return nil, errors.New("key: fields are missing")
	}
	return k, nil
}

// open decrypts the key. A wrong passphrase gives [ErrPassphrase].
func (k *sealedKey) open(passphrase string) (*keyMaterial, error) {
	kek, err := pbkdf2.Key(sha256.New, passphrase, k.salt, k.iterations, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key from passphrase: %w", err)
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(k.data))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, k.data)
	mac := hmac.New(sha256.New, kek)
	mac.Write(plain)
	if !hmac.Equal(mac.Sum(nil), k.hash) {
		return nil, ErrPassphrase
	}
	return parseKeyMaterial(plain)
}

func parseKeyMaterial(plain []byte) (*keyMaterial, error) {
	m := &keyMaterial{}
	r := msgpack.NewReader(plain)
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			var v int64
			if v, err = r.Int(); err == nil && v != 1 {
				err = fmt.Errorf("%w: version %d", ErrUnsupported, v)
			}
		case "repository_id":
			err = readID(r, &m.repository)
		case "enc_key":
			m.encKey, err = r.Bytes()
		case "enc_hmac_key":
			m.encHMACKey, err = r.Bytes()
		case "id_key":
			m.idKey, err = r.Bytes()
		case "tam_required":
			m.tamRequired, err = r.Bool()
		default:
			err = r.Skip()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("key material: %w", err)
	}
	return m, nil
}

// readID reads 32 raw bytes.
func readID(r *msgpack.Reader, id *ID) error {
	b, err := r.Bytes()
	if err != nil {
		return err
	}
	if len(b) != len(id) {
		return fmt.Errorf("id of %d bytes", len(b))
	}
	*id = ID(b)
	return nil
}
