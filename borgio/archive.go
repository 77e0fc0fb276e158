package borgio

import (
	"errors"
	"fmt"
	"time"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Archive describes one archive. What is text is raw bytes.
type Archive struct {
	ID       ID
	Name     string
	Comment  string
	Hostname string
	Username string
	Time     time.Time // begin, UTC
	TimeEnd  time.Time // UTC; zero when unrecorded
	Cmdline  []string  // the first 131,072 words
	NFiles   int64     // regular files; 0 when unrecorded
	Size     int64     // sum of their sizes in bytes; 0 when unrecorded
	// Items are the objects whose plaintexts, joined, are the item stream. An
	// id that another archive has too stands for the same bytes.
	Items []ID
}

// maxCmdline is how many words of a command line are kept.
const maxCmdline = 1 << 17

// parseArchive decodes a packed archive. For n bytes it allocates at most
// 4 n + 4 MiB.
func parseArchive(id ID, packed []byte) (*Archive, tam, error) {
	a := &Archive{ID: id}
	var auth tam
	version, listed := int64(0), false
	r := msgpack.NewReader(packed)
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			if version, err = r.Int(); err == nil && version != 1 {
				err = fmt.Errorf("%w: archive version %d", ErrUnsupported, version)
			}
		case "item_ptrs":
			err = fmt.Errorf("%w: archive of borg 2", ErrUnsupported)
		case "name":
			a.Name, err = r.String()
		case "comment":
			a.Comment, err = optionalString(r)
		case "hostname":
			a.Hostname, err = optionalString(r)
		case "username":
			a.Username, err = optionalString(r)
		case "time":
			a.Time, err = readTime(r)
		case "time_end":
			a.TimeEnd, err = readTime(r)
		case "cmdline":
			a.Cmdline, err = readStrings(r)
		case "nfiles":
			a.NFiles, err = r.Int()
		case "size":
			a.Size, err = r.Int()
		case "items":
			listed = true
			a.Items, err = readIDs(r)
		case "tam":
			auth, err = readTAM(r)
		default:
			err = r.Skip()
		}
		return err
	})
	if err == nil && (version == 0 || !listed) {
		err = errors.New("no version or no items")
	}
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes too many", r.Len())
	}
	if err != nil {
		return nil, auth, err
	}
	return a, auth, nil
}

func optionalString(r *msgpack.Reader) (string, error) {
	if r.Nil() {
		return "", nil
	}
	return r.String()
}

func readStrings(r *msgpack.Reader) ([]string, error) {
	n, err := r.Array()
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, min(n, maxCmdline))
	for range n {
		s, err := r.Bytes()
		if err != nil {
			return nil, err
		}
		if len(out) < maxCmdline {
			out = append(out, string(s))
		}
	}
	return out, nil
}

func readIDs(r *msgpack.Reader) ([]ID, error) {
	n, err := r.Array()
	if err != nil {
		return nil, err
	}
	ids := make([]ID, 0, min(n, r.Len()/33))
	for range n {
		var id ID
		if err := r.Bytes32((*[32]byte)(&id)); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
