package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/s4-storage/s4/snapshot"
)

// The column meta, all numbers unsigned varints where nothing else is said:
//
//	present  bits as below
//	mode
//	owner    number of a row of table owner
//	size     if presentSize
//	mtime    8 bytes little-endian, ns
//	ctime, atime, birth  each if present, zigzag varint, ns after mtime
//	rdev     if present
//	target   if present: length, bytes
//	xattrs   if present: count, then for each length, name, length, value
//	flags    if present
//	link     if present: 8 bytes little-endian, then nlink
//	holes    if present
//
// The column content is a file's extents one after another: 32 bytes of id,
// twice the size, and 1 more for a hole. Equal entries give equal bytes, so
// versions are compared as bytes.
const (
	presentSize = 1 << iota
	presentCtime
	presentAtime
	presentBirth
	presentRdev
	presentTarget
	presentXattrs
	presentFlags
	presentLink
	presentDamaged
	presentHoles
)

var errCodec = errors.New("malformed row")

// appendMeta packs everything of e that is not a column of its own.
func appendMeta(b []byte, e *snapshot.Entry, owner uint64) []byte {
	var present uint64
	mark := func(is bool, bit uint64) {
		if is {
			present |= bit
		}
	}
	mark(e.Size != 0, presentSize)
	mark(e.Ctime != 0, presentCtime)
	mark(e.Atime != 0, presentAtime)
	mark(e.Birth != 0, presentBirth)
	mark(e.Rdev != 0, presentRdev)
	mark(e.Target != "", presentTarget)
	mark(len(e.Xattrs) > 0, presentXattrs)
	mark(e.Flags != 0, presentFlags)
	mark(e.LinkID != 0, presentLink)
	mark(e.Damaged, presentDamaged)
	mark(e.Holes != 0, presentHoles)

	b = binary.AppendUvarint(b, present)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, owner)
	if present&presentSize != 0 {
		b = binary.AppendUvarint(b, uint64(e.Size))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Mtime))
	for _, t := range []int64{e.Ctime, e.Atime, e.Birth} {
		if t != 0 {
			b = binary.AppendVarint(b, t-e.Mtime) // wraps around, and back when read
		}
	}
	if present&presentRdev != 0 {
		b = binary.AppendUvarint(b, e.Rdev)
	}
	if present&presentTarget != 0 {
		b = appendString(b, e.Target)
	}
	if present&presentXattrs != 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
		for i := range e.Xattrs {
			b = appendString(b, e.Xattrs[i].Name)
			b = appendString(b, e.Xattrs[i].Value)
		}
	}
	if present&presentFlags != 0 {
		b = binary.AppendUvarint(b, uint64(e.Flags))
	}
	if present&presentLink != 0 {
		b = binary.LittleEndian.AppendUint64(b, e.LinkID)
		b = binary.AppendUvarint(b, uint64(e.Nlink))
	}
	if present&presentHoles != 0 {
		b = binary.AppendUvarint(b, uint64(e.Holes))
	}
	return b
}

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeMeta fills e from the column meta and gives the owner's number.
func decodeMeta(b []byte, e *snapshot.Entry) (owner uint64, err error) {
	r := reader{b: b}
	present := r.uvarint()
	has := func(bit uint64) bool { return present&bit != 0 }
	e.Mode = uint32(r.uvarint())
	owner = r.uvarint()
	if has(presentSize) {
		e.Size = int64(r.uvarint())
	}
	e.Mtime = int64(r.fixed64())
	if has(presentCtime) {
		e.Ctime = e.Mtime + r.varint()
	}
	if has(presentAtime) {
		e.Atime = e.Mtime + r.varint()
	}
	if has(presentBirth) {
		e.Birth = e.Mtime + r.varint()
	}
	if has(presentRdev) {
		e.Rdev = r.uvarint()
	}
	if has(presentTarget) {
		e.Target = string(r.bytes())
	}
	if has(presentXattrs) {
		n := r.uvarint()
		if n > uint64(len(r.b)) {
			return 0, errCodec
		}
		e.Xattrs = make([]snapshot.Xattr, n)
		for i := range e.Xattrs {
			e.Xattrs[i] = snapshot.Xattr{Name: string(r.bytes()), Value: r.bytes()}
		}
	}
	if has(presentFlags) {
		e.Flags = uint32(r.uvarint())
	}
	e.Nlink = 1
	if has(presentLink) {
		e.LinkID = r.fixed64()
		e.Nlink = uint32(r.uvarint())
	}
	e.Damaged = has(presentDamaged)
	if has(presentHoles) {
		e.Holes = int64(r.uvarint())
	}
	if r.bad || len(r.b) != 0 {
		return 0, errCodec
	}
	return owner, nil
}

func appendContent(b []byte, extents []snapshot.Extent) []byte {
	for i := range extents {
		b = append(b, extents[i].ID[:]...)
		size := uint64(extents[i].Size) << 1
		if extents[i].Hole {
			size |= 1
		}
		b = binary.AppendUvarint(b, size)
	}
	return b
}

func decodeContent(b []byte) ([]snapshot.Extent, error) {
	var extents []snapshot.Extent
	for len(b) > 0 {
		var e snapshot.Extent
		if copy(e.ID[:], b) < len(e.ID) {
			return nil, fmt.Errorf("content: %w", errCodec)
		}
		size, n := binary.Uvarint(b[len(e.ID):])
		if n <= 0 || size > 1<<33-1 {
			return nil, fmt.Errorf("content: %w", errCodec)
		}
		e.Size, e.Hole = uint32(size>>1), size&1 != 0
		extents = append(extents, e)
		b = b[len(e.ID)+n:]
	}
	return extents, nil
}

// reader takes a row's bytes apart. After a field that is not whole, bad is
// set and every further field is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	return v
}

func (r *reader) skip(n int) {
	if n <= 0 {
		r.bad, r.b = true, nil
		return
	}
	r.b = r.b[n:]
}

func (r *reader) fixed64() uint64 {
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) id() (id [32]byte) {
	if len(r.b) < len(id) {
		r.bad, r.b = true, nil
		return id
	}
	copy(id[:], r.b)
	r.b = r.b[len(id):]
	return id
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
