package keys

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
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
	ChunkSeed   int32  // of the hash that cuts files
	TAMRequired bool   // a manifest without authentication is forged
}

// maxIterations bounds the work that a hostile key blob can ask for, to some
// seconds; Borg 1.x writes 100,000.
const maxIterations = 10_000_000

// maxKeyBytes is the longest text that is taken for a key; Borg's have under
// 1,000 bytes. Reading one takes at most 16 bytes for each of its text.
const maxKeyBytes = 64 << 10

// Parse decodes the base64 text of a key as the repository or a key
// file (without its first line) holds it. Errors: [fault.ErrKeyDamaged],
// [fault.ErrKeyKind].
func Parse(text string) (*Sealed, error) {
	if len(text) > maxKeyBytes {
		return nil, fmt.Errorf("%w: %d bytes of text", fault.ErrKeyDamaged, len(text))
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrKeyDamaged, err)
	}
	k := &Sealed{}
	rounds := int64(0)
	r := msgpack.NewReader(raw)
	version, algorithm := int64(0), ""
	err = r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			version, err = r.Int()
		case "algorithm":
			algorithm, err = r.String()
		case "iterations":
			rounds, err = r.Int()
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
		return nil, fmt.Errorf("%w: %w", fault.ErrKeyDamaged, err)
	case version == 0 || algorithm == "":
		return nil, fmt.Errorf("%w: no version or no algorithm", fault.ErrKeyDamaged)
	case version != 1 || algorithm != "sha256":
		return nil, fmt.Errorf("%w: version %d, algorithm %.40q", fault.ErrKeyKind, version, algorithm)
	case rounds < 1 || rounds > maxIterations:
		return nil, fmt.Errorf("%w: it asks for %d rounds", fault.ErrKeyDamaged, rounds)
	case len(k.hash) != sha256.Size:
		return nil, fmt.Errorf("%w: %d bytes of hash", fault.ErrKeyDamaged, len(k.hash))
	}
	k.iterations = int(rounds)
	return k, nil
}

// open decrypts the key. A wrong passphrase gives [fault.ErrPassphrase].
func (k *Sealed) open(ctx context.Context, passphrase string) (*Material, error) {
	kek, err := derive(ctx, passphrase, k.salt, k.iterations)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(kek[:])
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(k.data))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, k.data)
	mac := hmac.New(sha256.New, kek[:])
	mac.Write(plain)
	if !hmac.Equal(mac.Sum(nil), k.hash) {
		return nil, fault.ErrPassphrase
	}
	return parseKeyMaterial(plain)
}

// derive is PBKDF2 with HMAC-SHA-256 for a key of one hash's length (RFC 8018,
// section 5.2). It can be interrupted, which [crypto/pbkdf2] cannot: a key may
// ask for many rounds.
func derive(ctx context.Context, passphrase string, salt []byte, rounds int) (key [sha256.Size]byte, err error) {
	const patience = 1 << 12 // rounds, about a millisecond
	prf := hmac.New(sha256.New, []byte(passphrase))
	prf.Write(salt)
	prf.Write([]byte{0, 0, 0, 1}) // of the first block
	sum := prf.Sum(nil)
	copy(key[:], sum)
	for i := 1; i < rounds; i++ {
		if i%patience == 0 && ctx.Err() != nil {
			return key, ctx.Err()
		}
		prf.Reset()
		prf.Write(sum)
		sum = prf.Sum(sum[:0])
		subtle.XORBytes(key[:], key[:], sum)
	}
	return key, nil
}

func parseKeyMaterial(plain []byte) (*Material, error) {
	m := &Material{}
	version := int64(1)
	r := msgpack.NewReader(plain)
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			version, err = r.Int()
		case "repository_id":
			err = r.Bytes32(&m.Repository)
		case "enc_key":
			m.encKey, err = r.Bytes()
		case "enc_hmac_key":
			m.encHMACKey, err = r.Bytes()
		case "id_key":
			m.idKey, err = r.Bytes()
		case "chunk_seed":
			var seed int64
			seed, err = r.Int()
			m.ChunkSeed = int32(seed)
		case "tam_required":
			m.TAMRequired, err = r.Bool()
		default:
			err = r.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: key material: %w", fault.ErrKeyDamaged, err)
	case version != 1:
		return nil, fmt.Errorf("%w: key material of version %d", fault.ErrKeyKind, version)
	}
	return m, nil
}
