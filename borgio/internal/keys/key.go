// Package keys holds a BorgBackup 1.x repository's key: how it is made, where it
// is kept, how a passphrase opens it, and what it does to objects: their ids,
// their MACs, their encryption, and the authentication (TAM) inside manifests and
// archives. It also keeps what borg notes about a repository on this machine.
//
// # Counter blocks
//
// Objects are encrypted by AES in counter mode, under one key for all of a
// repository's life. A counter block that is used twice gives both plaintexts
// away, so blocks are reserved before any is used: in the repository, for other
// writers, and on this machine, in case the repository is put back to an older
// state. What was reserved and not used is never used; there are 2^64.
package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/s4-storage/s4/borgio/internal/blake2b"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// The first byte of every stored object tells the repository's key mode.
const (
	typeKeyfile             = 0x00
	TypePassphrase          = 0x01 // Attic's; its objects are those of repokey
	TypePlain               = 0x02
	TypeRepokey             = 0x03
	typeBlakeKeyfile        = 0x04
	typeBlakeRepokey        = 0x05
	typeBlakeAuthenticated  = 0x06
	typeAuthenticated       = 0x07
	encryptedOverhead       = 1 + 32 + 8 // type, MAC, IV
	authenticationKeyPrefix = "borg-metadata-authentication-"
)

// Mode is what a type byte stands for.
type Mode struct {
	Name      string // as borg calls it
	blake2    bool   // hashes with BLAKE2b, else SHA-256
	Keyed     bool   // has a key blob
	Encrypted bool
	Keyfile   bool // the blob is in a file, else in the repository
}

// ModeOf tells the mode of a stored object by its first byte.
func ModeOf(typ byte) (Mode, error) {
	switch typ {
	case TypePlain:
		return Mode{Name: "none"}, nil
	case typeKeyfile:
		return Mode{Name: "keyfile", Keyed: true, Encrypted: true, Keyfile: true}, nil
	case TypeRepokey, TypePassphrase:
		return Mode{Name: "repokey", Keyed: true, Encrypted: true}, nil
	case typeBlakeKeyfile:
		return Mode{Name: "keyfile-blake2", blake2: true, Keyed: true, Encrypted: true, Keyfile: true}, nil
	case typeBlakeRepokey:
		return Mode{Name: "repokey-blake2", blake2: true, Keyed: true, Encrypted: true}, nil
	case typeAuthenticated:
		return Mode{Name: "authenticated", Keyed: true}, nil
	case typeBlakeAuthenticated:
		return Mode{Name: "authenticated-blake2", blake2: true, Keyed: true}, nil
	}
	return Mode{}, fmt.Errorf("%w: key type %#02x", fault.ErrUnsupported, typ)
}

// Key opens a repository's objects. It is safe for concurrent use.
type Key struct {
	Mode
	Type byte // of the objects
	Material
	block cipher.Block // of encKey, when encrypted
}

// New makes a key from its type byte and, for the keyed modes, material.
func New(typ byte, m *Material) (*Key, error) {
	md, err := ModeOf(typ)
	if err != nil {
		return nil, err
	}
	k := &Key{Mode: md, Type: typ}
	if !md.Keyed {
		return k, nil
	}
	k.Material = *m
	want := 32
	if md.blake2 {
		want = 128
	}
	if len(m.idKey) != want || md.Encrypted && (len(m.encHMACKey) != want || len(m.encKey) != 32) {
		return nil, fmt.Errorf("%w: key material has the wrong length", fault.ErrKeyDamaged)
	}
	if md.Encrypted {
		k.block, err = aes.NewCipher(m.encKey)
	}
	return k, err
}

// hash is the mode's keyed hash. Borg's BLAKE2b is the plain hash of key and
// data joined, not the keyed mode of RFC 7693.
func (k *Key) hash(hashKey, data []byte) (sum [32]byte) {
	switch {
	case k.blake2:
		return blake2b.Sum256(hashKey, data)
	case !k.Keyed:
		return sha256.Sum256(data)
	default:
		h := hmac.New(sha256.New, hashKey)
		h.Write(data)
		h.Sum(sum[:0])
	}
	return sum
}

// ID is what plaintext is stored under.
func (k *Key) ID(plain []byte) [32]byte { return k.hash(k.idKey, plain) }

// CheckError says which check a stored object did not pass.
type CheckError struct {
	What string // "key type" or "mac"
	Err  error  // nil when What tells all
}

func (e *CheckError) Error() string { return e.What + " is wrong" }

// Overhead is how many bytes an object has before its payload.
func (k *Key) Overhead() int {
	if k.Encrypted {
		return encryptedOverhead
	}
	return 1
}

// Blocks is how many counter blocks encrypting n bytes of payload uses up.
func Blocks(n int) uint64 { return (uint64(n) + aes.BlockSize - 1) / aes.BlockSize }

// Encrypt makes an object, in place, of a payload that stands behind Overhead
// bytes. iv is the first of [Blocks] counter blocks that this key has never used
// and never will use again: with one used twice, the two payloads can be told.
// It does not matter where nothing is encrypted.
func (k *Key) Encrypt(object []byte, iv uint64) {
	object[0] = k.Type
	if !k.Encrypted {
		return
	}
	var counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(counter[8:], iv)
	sealed := object[1+32:]
	copy(sealed, counter[8:])
	cipher.NewCTR(k.block, counter[:]).XORKeyStream(sealed[8:], sealed[8:])
	sum := k.hash(k.encHMACKey, sealed)
	copy(object[1:], sum[:])
}

// FreeBehind gives the first counter block behind those that a stored object
// used; 0 where nothing is encrypted.
func (k *Key) FreeBehind(stored []byte) (uint64, error) {
	if !k.Encrypted {
		return 0, nil
	}
	if len(stored) < encryptedOverhead {
		return 0, &CheckError{"mac", fmt.Errorf("%d bytes are too few", len(stored))}
	}
	iv := binary.BigEndian.Uint64(stored[33:])
	free := iv + Blocks(len(stored))
	if free < iv {
		return 0, errNoncesUsedUp
	}
	return free, nil
}

// Decrypt authenticates a stored object and gives its payload, still
// compressed. When the mode encrypts, the payload lies in scratch, which must be
// at least as long as stored; else it is a part of stored. Errors:
// [*CheckError].
func (k *Key) Decrypt(stored, scratch []byte) ([]byte, error) {
	if len(stored) < 1 || stored[0] != k.Type && (k.Type != TypeRepokey || stored[0] != TypePassphrase) {
		return nil, &CheckError{"key type", fmt.Errorf("the object is not of mode %s", k.Name)}
	}
	if !k.Encrypted {
		return stored[1:], nil
	}
	if len(stored) < encryptedOverhead {
		return nil, &CheckError{"mac", fmt.Errorf("%d bytes are too few", len(stored))}
	}
	mac, sealed := stored[1:33], stored[33:]
	sum := k.hash(k.encHMACKey, sealed)
	if subtle.ConstantTimeCompare(sum[:], mac) != 1 {
		return nil, &CheckError{What: "mac"}
	}
	var counter [aes.BlockSize]byte
	copy(counter[8:], sealed[:8])
	payload := scratch[:len(sealed)-8]
	cipher.NewCTR(k.block, counter[:]).XORKeyStream(payload, sealed[8:])
	return payload, nil
}

// tamKey derives the key that authenticates metadata of one kind, "manifest"
// or "archive".
func (k *Key) tamKey(salt []byte, kind string) ([]byte, error) {
	if !k.Keyed { // authenticates nothing, but detects damage
		return append(append([]byte(nil), salt...), kind...), nil
	}
	var secret []byte
	secret = append(secret, k.idKey...)
	secret = append(secret, k.encKey...)
	secret = append(secret, k.encHMACKey...)
	return hkdf.Key(sha512.New, secret, salt, authenticationKeyPrefix+kind, 64)
}

// CheckTAM compares a packed manifest's or archive's authentication with its
// bytes. The authentication's 64 bytes lie in packed at offset at; while it is
// computed they count as zeros.
func (k *Key) CheckTAM(packed []byte, at int, salt []byte, kind string) error {
	secret, err := k.tamKey(salt, kind)
	if err != nil {
		return err
	}
	if !hmac.Equal(tamOf(packed, at, secret), packed[at:at+TAMSize]) {
		return errors.New("authentication does not match")
	}
	return nil
}

// TAMSize is the length of an authentication's code and of its salt, in bytes.
const TAMSize = sha512.Size

// SignTAM puts a packed manifest's or archive's authentication into it, at offset
// at, where TAMSize bytes are free for it.
func (k *Key) SignTAM(packed []byte, at int, salt []byte, kind string) error {
	secret, err := k.tamKey(salt, kind)
	if err != nil {
		return err
	}
	copy(packed[at:], tamOf(packed, at, secret))
	return nil
}

func tamOf(packed []byte, at int, secret []byte) []byte {
	h := hmac.New(sha512.New, secret)
	h.Write(packed[:at])
	h.Write(make([]byte, TAMSize))
	h.Write(packed[at+TAMSize:])
	return h.Sum(nil)
}
