package borgio

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/blake2b"
)

// The first byte of every stored object tells the repository's key mode.
const (
	typeKeyfile             = 0x00
	typePassphrase          = 0x01 // Attic's; its objects are those of repokey
	typePlain               = 0x02
	typeRepokey             = 0x03
	typeBlakeKeyfile        = 0x04
	typeBlakeRepokey        = 0x05
	typeBlakeAuthenticated  = 0x06
	typeAuthenticated       = 0x07
	encryptedOverhead       = 1 + 32 + 8 // type, MAC, IV
	authenticationKeyPrefix = "borg-metadata-authentication-"
)

// mode is what a type byte stands for.
type mode struct {
	name      string
	blake2    bool // hashes with BLAKE2b, else SHA-256
	keyed     bool // has a key blob
	encrypted bool
	keyfile   bool // the blob is in a file, else in the repository
}

func modeOf(typ byte) (mode, error) {
	switch typ {
	case typePlain:
		return mode{name: "none"}, nil
	case typeKeyfile:
		return mode{name: "keyfile", keyed: true, encrypted: true, keyfile: true}, nil
	case typeRepokey, typePassphrase:
		return mode{name: "repokey", keyed: true, encrypted: true}, nil
	case typeBlakeKeyfile:
		return mode{name: "keyfile-blake2", blake2: true, keyed: true, encrypted: true, keyfile: true}, nil
	case typeBlakeRepokey:
		return mode{name: "repokey-blake2", blake2: true, keyed: true, encrypted: true}, nil
	case typeAuthenticated:
		return mode{name: "authenticated", keyed: true}, nil
	case typeBlakeAuthenticated:
		return mode{name: "authenticated-blake2", blake2: true, keyed: true}, nil
	}
	return mode{}, fmt.Errorf("%w: key type %#02x", ErrUnsupported, typ)
}

// key opens a repository's objects. It is safe for concurrent use.
type key struct {
	mode
	typ byte
	keyMaterial
	block cipher.Block // of encKey, when encrypted
}

// newKey makes a key from its type byte and, for the keyed modes, material.
func newKey(typ byte, m *keyMaterial) (*key, error) {
	md, err := modeOf(typ)
	if err != nil {
		return nil, err
	}
	k := &key{mode: md, typ: typ}
	if !md.keyed {
		return k, nil
	}
	k.keyMaterial = *m
	want := 32
	if md.blake2 {
		want = 128
	}
	if len(m.idKey) != want || md.encrypted && (len(m.encHMACKey) != want || len(m.encKey) != 32) {
		return nil, errors.New("key material has the wrong length")
	}
	if md.encrypted {
		k.block, err = aes.NewCipher(m.encKey)
	}
	return k, err
}

// hash is the mode's keyed hash. Borg's BLAKE2b is the plain hash of key and
// data joined, not the keyed mode of RFC 7693.
func (k *key) hash(hashKey, data []byte) (sum ID) {
	switch {
	case k.blake2:
		h, err := blake2b.New256(nil)
		if err != nil { // only a key could be wrong, and there is none
			return ID{}
		}
		h.Write(hashKey)
		h.Write(data)
		h.Sum(sum[:0])
	case !k.keyed:
		return sha256.Sum256(data)
	default:
		h := hmac.New(sha256.New, hashKey)
		h.Write(data)
		h.Sum(sum[:0])
	}
	return sum
}

// id is what plaintext is stored under.
func (k *key) id(plain []byte) ID { return k.hash(k.idKey, plain) }

// decrypt authenticates a stored object and gives its payload, decrypted in
// place and still compressed.
func (k *key) decrypt(id ID, stored []byte) ([]byte, error) {
	if len(stored) < 1 || stored[0] != k.typ && (k.typ != typeRepokey || stored[0] != typePassphrase) {
		return nil, damaged(id, "key type", "the object is not of mode %s", k.name)
	}
	if !k.encrypted {
		return stored[1:], nil
	}
	if len(stored) < encryptedOverhead {
		return nil, damaged(id, "mac", "%d bytes are too few", len(stored))
	}
	mac, sealed := stored[1:33], stored[33:]
	sum := k.hash(k.encHMACKey, sealed)
	if subtle.ConstantTimeCompare(sum[:], mac) != 1 {
		return nil, &IntegrityError{Object: id, What: "mac"}
	}
	var counter [aes.BlockSize]byte
	copy(counter[8:], sealed[:8])
	payload := sealed[8:]
	cipher.NewCTR(k.block, counter[:]).XORKeyStream(payload, payload)
	return payload, nil
}

// tamKey derives the key that authenticates metadata of one kind, "manifest"
// or "archive".
func (k *key) tamKey(salt []byte, kind string) ([]byte, error) {
	if !k.keyed { // authenticates nothing, but detects damage
		return append(append([]byte(nil), salt...), kind...), nil
	}
	var secret []byte
	secret = append(secret, k.idKey...)
	secret = append(secret, k.encKey...)
	secret = append(secret, k.encHMACKey...)
	return hkdf.Key(sha512.New, secret, salt, authenticationKeyPrefix+kind, 64)
}

// checkTAM compares a packed manifest's or archive's authentication with its
// bytes. The authentication's 64 bytes lie in packed at offset at; while it is
// computed they count as zeros.
func (k *key) checkTAM(packed []byte, at int, salt []byte, kind string) error {
	secret, err := k.tamKey(salt, kind)
	if err != nil {
		return err
	}
	const size = sha512.Size
	h := hmac.New(sha512.New, secret)
	h.Write(packed[:at])
	h.Write(make([]byte, size))
	h.Write(packed[at+size:])
	if !hmac.Equal(h.Sum(nil), packed[at:at+size]) {
		return errors.New("authentication does not match")
	}
	return nil
}
