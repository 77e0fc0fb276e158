package disk

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// digest hashes a file as Borg does: the length and text of its name, then its
// bytes, with the names of its parts and how long it was so far in between.
type digest struct {
	hash *xxhash.Digest
	size int
}

func newDigest(name string) *digest {
	d := &digest{hash: xxhash.New()}
	d.text(name)
	return d
}

func (d *digest) text(s string) { fmt.Fprintf(d.hash, "%10d%s", len(s), s) }

func (d *digest) write(b []byte) {
	_, _ = d.hash.Write(b) // a hash takes everything
	d.size += len(b)
}

// part ends a part of the file and gives its digest.
func (d *digest) part(name string) string {
	d.text(name)
	_, _ = d.hash.WriteString(strconv.Itoa(d.size))
	return hex.EncodeToString(d.hash.Sum(nil))
}

// maxIntegrityBytes bounds the file integrity.N; Borg's have under 1 KB.
const maxIntegrityBytes = 64 << 10

// readIntegrity reads the digests that the file integrity.N holds of "index" or
// "hints".
func readIntegrity(path, of string) (digests map[string]string, err error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIntegrityBytes))
	if err != nil {
		return nil, err
	}
	return parseIntegrity(data, of)
}

// parseIntegrity reads the digests of one file from the content of the
// file integrity.N. Unknown algorithms give none. It allocates at most 64 bytes
// for each of data.
func parseIntegrity(data []byte, of string) (digests map[string]string, err error) {
	r := msgpack.NewReader(data)
	err = r.Fields(func(key []byte) error {
		if string(key) != of {
			return r.Skip()
		}
		text, err := r.Bytes()
		if err != nil {
			return err
		}
		var doc struct {
			Algorithm string            `json:"algorithm"`
			Digests   map[string]string `json:"digests"`
		}
		if err := json.Unmarshal(text, &doc); err != nil {
			return err
		}
		if doc.Algorithm == "XXH64" {
			digests = doc.Digests
		}
		return nil
	})
	return digests, err
}

// packDigests makes what integrity.N holds of one file.
func packDigests(digests map[string]string) ([]byte, error) {
	return json.Marshal(map[string]any{"algorithm": "XXH64", "digests": digests})
}
