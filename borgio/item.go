package borgio

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Item is one entry of an archive: a file, directory, link, device or fifo.
type Item struct {
	// Path is raw bytes, relative, separated by "/", and safe: no empty, "."
	// or ".." element and no NUL in it. The archive's root alone is ".".
	Path  string
	Mode  uint32 // st_mode: type and permission bits
	UID   uint32
	GID   uint32
	User  string // "" when unrecorded
	Group string
	Size  int64  // of the content in bytes
	Rdev  uint64 // Linux st_rdev

	Mtime     int64 // nanoseconds since 1970
	Atime     int64 // meaningful only with HasAtime, and so on
	Ctime     int64
	Birthtime int64

	HasAtime     bool
	HasCtime     bool
	HasBirthtime bool

	// Source is the target of a symbolic link; of any other kind of item it
	// is the Path of the item of which this one is a hard link, and then
	// Chunks is empty and Size may be 0.
	Source string
	// HardlinkMaster tells that later items may be hard links of this one.
	// Archives of Borg 1.0 do not record it, those of 1.1 for files only.
	HardlinkMaster bool

	Chunks     []Chunk // a regular file's content, in order
	Xattrs     []Xattr // sorted by name
	ACLAccess  []byte  // POSIX ACL as text with numeric ids appended; nil: none
	ACLDefault []byte
	BSDFlags   uint32 // 1 nodump, 2 immutable, 4 append-only
	Damaged    bool   // parts of the content were lost, and zeros put in their place
}

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// maxXattrs is how many extended attributes an item may have: more than a
// kernel gives room for the names of. Without it, an item full of empty ones
// would take twenty times its length.
const maxXattrs = 1 << 16

// minPackedChunk is the least number of bytes that one of an item's chunks
// takes: the header of a list, an id with its header, and a size.
const minPackedChunk = 1 + 2 + 32 + 1

// itemParser decodes items one after the other into the same Item. For an item
// of n bytes it allocates at most 4 n + 16 MiB, most of it for xattrs.
type itemParser struct {
	item        Item
	part        bool // a piece of a file that the archive also has whole
	sized       bool // the item records its size
	user, group string
}

// parse decodes the item at the start of r. When r ends before the item does,
// the error is io.ErrUnexpectedEOF.
func (p *itemParser) parse(r *msgpack.Reader) error {
	it := &p.item
	*it = Item{Chunks: it.Chunks[:0], Xattrs: it.Xattrs[:0]}
	p.part, p.sized = false, false
	n, err := r.Map()
	if err != nil {
		return err
	}
	for range n {
		key, err := r.Bytes()
		if err != nil {
			return err
		}
		if err := p.field(key, r); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return io.ErrUnexpectedEOF
			}
			return fmt.Errorf("item field %.40q: %w", key, err)
		}
	}
	if !p.sized {
		for _, c := range it.Chunks {
			it.Size += int64(c.Size)
		}
	}
	slices.SortFunc(it.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (p *itemParser) field(key []byte, r *msgpack.Reader) (err error) {
	it := &p.item
	switch string(key) {
	case "path":
		it.Path, err = r.String()
	case "mode":
		it.Mode, err = readUint32(r)
	case "uid":
		it.UID, err = readUint32(r)
	case "gid":
		it.GID, err = readUint32(r)
	case "user":
		it.User, err = internString(r, &p.user)
	case "group":
		it.Group, err = internString(r, &p.group)
	case "mtime":
		it.Mtime, err = readNanoseconds(r)
	case "atime":
		it.HasAtime = true
		it.Atime, err = readNanoseconds(r)
	case "ctime":
		it.HasCtime = true
		it.Ctime, err = readNanoseconds(r)
	case "birthtime":
		it.HasBirthtime = true
		it.Birthtime, err = readNanoseconds(r)
	case "size":
		if r.Nil() {
			return nil
		}
		p.sized = true
		if it.Size, err = r.Int(); err == nil && it.Size < 0 {
			err = fmt.Errorf("%d", it.Size)
		}
	case "rdev":
		var v int64
		v, err = r.Int()
		it.Rdev = uint64(v)
	case "source":
		it.Source, err = optionalString(r)
	case "hardlink_master":
		if !r.Nil() {
			it.HardlinkMaster, err = r.Bool()
		}
	case "chunks":
		err = p.chunks(r)
	case "chunks_healthy":
		it.Damaged = !r.Nil()
		if it.Damaged {
			err = r.Skip()
		}
	case "xattrs":
		err = p.xattrs(r)
	case "acl_access":
		it.ACLAccess, err = readACL(r)
	case "acl_default":
		it.ACLDefault, err = readACL(r)
	case "bsdflags":
		it.BSDFlags, err = readUint32(r)
	case "part":
		p.part = true
		err = r.Skip()
	default:
		err = r.Skip()
	}
	return err
}

func (p *itemParser) chunks(r *msgpack.Reader) error {
	if r.Nil() {
		return nil
	}
	n, err := r.Array()
	if err != nil {
		return err
	}
	p.item.Chunks = slices.Grow(p.item.Chunks, min(n, r.Len()/minPackedChunk))
	for range n {
		fields, err := r.Array()
		if err != nil {
			return err
		}
		if fields < 2 {
			return errors.New("a chunk without size")
		}
		var c Chunk
		if err := r.Bytes32((*[32]byte)(&c.ID)); err != nil {
			return err
		}
		size, err := r.Int()
		if err != nil {
			return err
		}
		if size < 0 || size > maxObjectSize {
			return fmt.Errorf("a chunk of %d bytes", size)
		}
		c.Size = uint32(size)
		if fields > 2 && !r.Nil() {
			stored, err := r.Int()
			if err != nil {
				return err
			}
			c.Stored = uint32(min(max(stored, 0), math.MaxUint32))
		}
		for range fields - 3 {
			if err := r.Skip(); err != nil {
				return err
			}
		}
		p.item.Chunks = append(p.item.Chunks, c)
	}
	return nil
}

func (p *itemParser) xattrs(r *msgpack.Reader) error {
	if r.Nil() {
		return nil
	}
	return r.Fields(func(name []byte) error {
		if len(p.item.Xattrs) == maxXattrs {
			return fmt.Errorf("more than %d", maxXattrs)
		}
		x := Xattr{Name: string(name)}
		if !r.Nil() { // nil stands for an empty value
			v, err := r.Bytes()
			if err != nil {
				return err
			}
			x.Value = slices.Clone(v)
		}
		p.item.Xattrs = append(p.item.Xattrs, x)
		return nil
	})
}

func readACL(r *msgpack.Reader) ([]byte, error) {
	if r.Nil() {
		return nil, nil
	}
	b, err := r.Bytes()
	return slices.Clone(b), err
}

func readUint32(r *msgpack.Reader) (uint32, error) {
	v, err := r.Int()
	if err == nil && (v < math.MinInt32 || v > math.MaxUint32) {
		err = fmt.Errorf("%d", v)
	}
	return uint32(v), err
}

// internString reads a string that most often equals the last of its kind.
func internString(r *msgpack.Reader, last *string) (string, error) {
	if r.Nil() {
		return "", nil
	}
	b, err := r.Bytes()
	if err != nil {
		return "", err
	}
	if string(b) != *last {
		*last = string(b)
	}
	return *last, nil
}

// readNanoseconds reads a time. One that does not fit 64 bits is stored as
// little-endian two's complement bytes, and clamped here.
func readNanoseconds(r *msgpack.Reader) (int64, error) {
	if r.Peek() != msgpack.Raw {
		return r.Int()
	}
	b, err := r.Bytes()
	if err != nil || len(b) == 0 {
		return 0, err
	}
	negative := b[len(b)-1]&0x80 != 0
	var v uint64
	for i, c := range b {
		if i < 8 {
			v |= uint64(c) << (8 * i)
		} else if negative && c != 0xff || !negative && c != 0 {
			if negative {
				return math.MinInt64, nil
			}
			return math.MaxInt64, nil
		}
	}
	if negative && len(b) < 8 {
		v |= math.MaxUint64 << (8 * len(b))
	}
	switch {
	case negative && int64(v) >= 0:
		return math.MinInt64, nil
	case !negative && int64(v) < 0:
		return math.MaxInt64, nil
	}
	return int64(v), nil
}

// safePath reports whether an item's path keeps Item.Path's promise.
func safePath(path string) bool {
	if path == "." {
		return true
	}
	if strings.IndexByte(path, 0) >= 0 {
		return false
	}
	for rest, more := path, true; more; {
		var element string
		element, rest, more = strings.Cut(rest, "/")
		if element == "" || element == "." || element == ".." {
			return false
		}
	}
	return true
}
