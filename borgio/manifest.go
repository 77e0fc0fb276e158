package borgio

import (
	"cmp"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Manifest is the list of a repository's archives.
type Manifest struct {
	Archives  []ArchiveRef // by time, then by name
	Timestamp time.Time    // UTC; grows with every change of the repository
	Version   int
}

// ArchiveRef is an archive's entry in the manifest.
type ArchiveRef struct {
	Name string // raw bytes, unique within the manifest
	ID   ID
	Time time.Time // when its making began, UTC
}

// IsCheckpoint reports whether an archive's name is that of a checkpoint: what
// an interrupted borg create leaves, incomplete.
func IsCheckpoint(name string) bool {
	if i := strings.LastIndexByte(name, '.'); i > 0 && i+1 < len(name) && strings.Trim(name[i+1:], "0123456789") == "" {
		name = name[:i]
	}
	return strings.HasSuffix(name, ".checkpoint")
}

// maxMetadataSize bounds the plaintext of a manifest or archive object: what
// stock borg's own unpacker takes.
const maxMetadataSize = 3 * (20 << 20)

// tam is the authentication inside packed metadata.
type tam struct {
	present bool
	known   bool // of the one kind there is, and well formed
	at      int  // offset of the authentication code
	salt    []byte
}

func readTAM(r *msgpack.Reader) (t tam, err error) {
	t.present = true
	kind, size := "", 0
	err = r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "type":
			kind, err = r.String()
		case "salt":
			t.salt, err = r.Bytes()
		case "hmac":
			var code []byte
			code, err = r.Bytes()
			size, t.at = len(code), r.Pos()-len(code)
		default:
			err = r.Skip()
		}
		return err
	})
	t.known = kind == "HKDF_HMAC_SHA512" && size == sha512.Size
	return t, err
}

// parseManifest decodes a packed manifest. For n bytes it allocates at most
// 16 n + 1 MiB, since each archive takes the room of an id.
func parseManifest(packed []byte) (*Manifest, tam, error) {
	m := &Manifest{}
	var auth tam
	r := msgpack.NewReader(packed)
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			var v int64
			if v, err = r.Int(); err == nil && v != 1 && v != 2 {
				err = fmt.Errorf("%w: manifest version %d", ErrUnsupported, v)
			}
			m.Version = int(v)
		case "archives":
			err = m.readArchives(r)
		case "timestamp":
			m.Timestamp, err = readTime(r)
		case "config":
			err = mandatory(r, "read")
		case "tam":
			auth, err = readTAM(r)
		default:
			err = r.Skip()
		}
		return err
	})
	if err == nil && m.Version == 0 {
		err = errors.New("no version")
	}
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes too many", r.Len())
	}
	if err != nil {
		return nil, auth, err
	}
	slices.SortFunc(m.Archives, compareRefs)
	return m, auth, nil
}

func compareRefs(a, b ArchiveRef) int {
	return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Name, b.Name))
}

func (m *Manifest) readArchives(r *msgpack.Reader) error {
	return r.Fields(func(name []byte) error {
		a := ArchiveRef{Name: string(name)}
		known := false
		err := r.Fields(func(field []byte) (err error) {
			switch string(field) {
			case "id":
				known = true
				err = r.Bytes32((*[32]byte)(&a.ID))
			case "time":
				a.Time, err = readTime(r)
			default:
				err = r.Skip()
			}
			return err
		})
		if err == nil && !known {
			err = errors.New("an archive without id")
		}
		m.Archives = append(m.Archives, a)
		return err
	})
}

// mandatory refuses a repository whose config demands a feature for an
// operation: none is defined for Borg 1.x.
func mandatory(r *msgpack.Reader, operation string) error {
	return r.Fields(func(field []byte) error {
		if string(field) != "feature_flags" {
			return r.Skip()
		}
		return r.Fields(func(name []byte) error {
			if string(name) != operation {
				return r.Skip()
			}
			return r.Fields(func(kind []byte) error {
				if string(kind) != "mandatory" {
					return r.Skip()
				}
				n, err := r.Array()
				if err != nil || n == 0 {
					return err
				}
				feature, err := r.String()
				if err != nil {
					return err
				}
				return fmt.Errorf("%w: to %s it takes feature %.40q", ErrUnsupported, operation, feature)
			})
		})
	})
}

// readTime reads Borg's ISO 8601 time: UTC without a zone, microseconds only
// when there are any. Some versions write a zone.
func readTime(r *msgpack.Reader) (time.Time, error) {
	s, err := r.String()
	if err != nil || s == "" {
		return time.Time{}, err
	}
	return parseTime(s)
}

// parseTime reads a time as Borg writes it: UTC, of late with its zone.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse("2006-01-02T15:04:05", s)
	if err != nil {
		t, err = time.Parse(time.RFC3339, s)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("time %.40q", s)
	}
	return t.UTC(), nil
}
