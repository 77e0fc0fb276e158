package keys

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

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Sealed is a key blob: key material encrypted with a passphrase.
type Sealed struct {
	iterations int
	salt, hash []byte
	data       []byte
}

// Material is what a sealed key holds.
type Material struct {
	Repository  [32]byte
	encKey      []byte // AES-256
	encHMACKey  []byte // authenticates ciphertext
	idKey       []byte // makes object ids
	TAMRequired bool   // a manifest without authentication is forged
}

// maxIterations bounds the work that a hostile key blob can ask for; Borg 1.x
// writes 100,000.
const maxIterations = 10_000_000

// Parse decodes the base64 text of a key as the repository or a key
// file (without its first line) holds it.
func Parse(text string) (*Sealed, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k := &Sealed{}
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
		return nil, fmt.Errorf("%w: key of version %d, algorithm %.20q", fault.ErrUnsupported, version, algorithm)
	case k.iterations == 0 || len(k.hash) != sha256.Size:
		return nil, errors.New("key: fields are missing")
	}
	return k, nil
}

// open decrypts the key. A wrong passphrase gives [fault.ErrPassphrase].
func (k *Sealed) open(passphrase string) (*Material, error) {
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
		return nil, fault.ErrPassphrase
	}
	return parseKeyMaterial(plain)
}

func parseKeyMaterial(plain []byte) (*Material, error) {
	m := &Material{}
	r := msgpack.NewReader(plain)
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			var v int64
			if v, err = r.Int(); err == nil && v != 1 {
				err = fmt.Errorf("%w: version %d", fault.ErrUnsupported, v)
			}
		case "repository_id":
			err = r.Bytes32(&m.Repository)
		case "enc_key":
			m.encKey, err = r.Bytes()
		case "enc_hmac_key":
			m.encHMACKey, err = r.Bytes()
		case "id_key":
			m.idKey, err = r.Bytes()
		case "tam_required":
			m.TAMRequired, err = r.Bool()
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
