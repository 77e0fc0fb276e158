package borgio

import (
	"encoding/hex"
	"fmt"
)

// ID names an object of a repository: the keyed hash of its plaintext. The
// manifest alone has the zero ID. A repository's own id has the same shape.
type ID [32]byte

var manifestID ID

// String gives 64 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what [ID.String] writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("parse id %.70q: want %d hexadecimal digits", s, 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("parse id %q: %w", s, err)
	}
	return id, nil
}
