// Package send runs btrfs send and reads its streams.
//
// # Format
//
// The source is the kernel's fs/btrfs/send.h, and send.c for what commands
// mean. All numbers are little-endian and unaligned.
//
//	stream    "btrfs-stream\0", version u32, command…
//	command   length u32 of the attributes together, kind u16, checksum u32, attribute…
//	attribute type u16, length u16, value
//
// The checksum is the CRC-32C of the whole command with zero in place of the
// checksum, begun with 0 and not inverted at the end. A value is a number of its
// length, a string without a zero byte at its end, a UUID's 16 bytes, or a time:
// seconds u64, nanoseconds u32. From version 2 on the attribute "data" has no
// length and takes the rest of its command, so that commands can be longer than
// 64 KiB. Version 3 is an addition for fs-verity and not final.
//
// A stream tells how to make one tree from another, one step after the other,
// inode by inode in the order of their numbers. Hence paths are those of the
// moment: a new file is made under a name such as o257-8-0 in the root (inode,
// generation, counter) and renamed from it, and a directory whose name another
// one needs is renamed to such a name in the meantime. Nested subvolumes do not
// appear.
package send

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
)

// maxCommand bounds a command's length. The kernel's are at most 64 KiB in
// version 1, and what holds 128 KiB of compressed data in version 2.
const maxCommand = 1 << 20

const (
	headerLen  = 10
	magic      = "btrfs-stream\x00"
	maxVersion = 3
)

// ErrFormat is the kind of error for everything that is not a whole and sound
// stream; see [FormatError].
var ErrFormat = errors.New("damaged btrfs stream")

// FormatError tells what is wrong in a stream. It is an [ErrFormat], and an
// [io.ErrUnexpectedEOF] where the stream ends too early.
type FormatError struct {
	Offset int64 // of the command in the stream, bytes
	Kind   Kind  // of the command, 0 in front of its kind
	Err    error
}

func (e *FormatError) Error() string {
	if e.Kind == 0 {
		return fmt.Sprintf("%v at byte %d: %v", ErrFormat, e.Offset, e.Err)
	}
	return fmt.Sprintf("%v at byte %d: %v: %v", ErrFormat, e.Offset, e.Kind, e.Err)
}

func (e *FormatError) Unwrap() []error { return []error{ErrFormat, e.Err} }

// Reader reads a stream's commands. It takes at most a little over 1 MiB of
// memory, whatever the stream says.
type Reader struct {
	r       *bufio.Reader
	version uint32
	offset  int64
	buf     []byte // header and attributes of a command
	cmd     Command
	err     error
}

// NewReader reads the stream in r, which is read ahead.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), buf: make([]byte, headerLen, 4<<10)}
}

// Version is the stream's version, known with its first command.
func (r *Reader) Version() uint32 { return r.version }

// Next gives the next command, valid until the one after it, and io.EOF at the
// stream's end. Other errors are [*FormatError], or those of the underlying
// reader.
func (r *Reader) Next() (*Command, error) {
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.cmd, nil
}

func (r *Reader) next() error {
	r.cmd = Command{}
	if r.version == 0 {
		if err := r.begin(); err != nil {
			return r.damaged(err)
		}
	}
	head := r.buf[:headerLen]
	if _, err := io.ReadFull(r.r, head); err != nil {
		return r.damaged(cut(err))
	}
	length := int(binary.LittleEndian.Uint32(head))
	kind := Kind(binary.LittleEndian.Uint16(head[4:]))
	sum := binary.LittleEndian.Uint32(head[6:])
	if length < 0 || length > maxCommand {
		return r.damaged(fmt.Errorf("a command of %d bytes", uint32(length)))
	}
	if cap(r.buf) < headerLen+length {
		r.buf = make([]byte, headerLen+length)
		copy(r.buf, head)
	}
	r.buf = r.buf[:headerLen+length]
	if _, err := io.ReadFull(r.r, r.buf[headerLen:]); err != nil {
		return r.damaged(cut(err))
	}
	copy(r.buf[6:], "\x00\x00\x00\x00")
	if checksum(r.buf) != sum {
		return r.damaged(errors.New("wrong checksum"))
	}
	r.cmd.Kind = kind
	if kind == 0 || kind > EnableVerity || kind.version() > r.version {
		return r.damaged(fmt.Errorf("not a command of version %d", r.version))
	}
	if err := r.parse(r.buf[headerLen:]); err != nil {
		return r.damaged(err)
	}
	r.offset += int64(len(r.buf))
	if kind == End {
		return io.EOF
	}
	return nil
}

// begin reads the stream's header.
func (r *Reader) begin() error {
	var head [len(magic) + 4]byte
	n, err := io.ReadFull(r.r, head[:])
	if m := min(n, len(magic)); string(head[:m]) != magic[:m] {
		return errors.New("not a btrfs stream")
	}
	if err != nil {
		return cut(err)
	}
	version := binary.LittleEndian.Uint32(head[len(magic):])
	if version == 0 || version > maxVersion {
		return fmt.Errorf("version %d is unknown", version)
	}
	r.version, r.offset = version, int64(len(head))
	return nil
}

// damaged makes a FormatError of what is about the stream itself.
func (r *Reader) damaged(err error) error {
	var other *readError
	if errors.As(err, &other) {
		return other.error
	}
	return &FormatError{Offset: r.offset, Kind: r.cmd.Kind, Err: err}
}

// readError is the underlying reader's.
type readError struct{ error }

// cut is an error of io.ReadFull, which at a stream's end means that it was cut.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return &readError{err}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the kernel's crc32c(0, p): Go's without the inversions around it.
func checksum(p []byte) uint32 { return ^crc32.Update(^uint32(0), castagnoli, p) }

// parse reads a command's attributes.
func (r *Reader) parse(p []byte) error {
	var have set
	for len(p) > 0 {
		if len(p) < 2 {
			return io.ErrUnexpectedEOF
		}
		a := attr(binary.LittleEndian.Uint16(p))
		var value []byte
		if a == aData && r.version >= 2 {
			value, p = p[2:], nil
		} else {
			if len(p) < 4 {
				return io.ErrUnexpectedEOF
			}
			n := int(binary.LittleEndian.Uint16(p[2:]))
			if len(p) < 4+n {
				return io.ErrUnexpectedEOF
			}
			value, p = p[4:4+n], p[4+n:]
		}
		if a == 0 || a >= aEnd {
			return fmt.Errorf("unknown attribute %d", a)
		}
		if have&setOf(a) != 0 {
			return fmt.Errorf("attribute %d twice", a)
		}
		have |= setOf(a)
		if err := r.cmd.set(a, value); err != nil {
			return fmt.Errorf("attribute %d: %w", a, err)
		}
	}
	if missing := r.cmd.Kind.required() &^ have; missing != 0 {
		return fmt.Errorf("attributes %#x are missing", uint64(missing))
	}
	return nil
}

// set sets the field that an attribute is for.
func (c *Command) set(a attr, v []byte) error {
	switch a {
	case aUUID:
		return number(v, 16, func() { c.UUID = uuid.UUID(v) })
	case aCTransid:
		return u64(v, &c.CTransid)
	case aIno:
		return u64(v, &c.Ino)
	case aSize, aCloneLen:
		return u64(v, &c.Size)
	case aMode:
		var mode uint64
		err := u64(v, &mode)
		c.Mode = uint32(mode)
		return err
	case aUID:
		return u64(v, &c.UID)
	case aGID:
		return u64(v, &c.GID)
	case aRdev:
		return u64(v, &c.Rdev)
	case aCTime:
		return moment(v, &c.CTime)
	case aMTime:
		return moment(v, &c.MTime)
	case aATime:
		return moment(v, &c.ATime)
	case aOTime:
		return moment(v, &c.OTime)
	case aXattrName:
		return text(v, &c.Xattr)
	case aXattrData, aData:
		c.Data = v
	case aPath:
		return path(v, &c.Path)
	case aPathTo:
		return path(v, &c.To)
	case aPathLink:
		if c.Kind == Symlink {
			return text(v, &c.Link)
		}
		return path(v, &c.Link)
	case aFileOffset:
		return u64(v, &c.Offset)
	case aCloneUUID:
		return number(v, 16, func() { c.CloneUUID = uuid.UUID(v) })
	case aCloneCTransid:
		return u64(v, &c.CloneCTransid)
	case aClonePath:
		return path(v, &c.ClonePath)
	case aCloneOffset:
		return u64(v, &c.CloneOffset)
	case aFallocateMode:
		return u32(v, &c.FallocateMode)
	case aFileAttr:
		return u64(v, &c.Attr)
	case aUnencodedFileLen:
		return u64(v, &c.UnencodedFileLen)
	case aUnencodedLen:
		return u64(v, &c.UnencodedLen)
	case aUnencodedOffset:
		return u64(v, &c.UnencodedOffset)
	case aCompression:
		return u32(v, &c.Compression)
	case aEncryption:
		return u32(v, &c.Encryption)
	case aVerityAlgorithm:
		return number(v, 1, func() { c.VerityAlgorithm = v[0] })
	case aVerityBlockSize:
		return u32(v, &c.VerityBlockSize)
	case aVeritySalt:
		c.VeritySalt = v
	case aVeritySignature:
		c.VeritySignature = v
	}
	return nil
}

// number sees to it that a value of fixed size has it.
func number(v []byte, size int, take func()) error {
	if len(v) != size {
		return fmt.Errorf("%d bytes instead of %d", len(v), size)
	}
	take()
	return nil
}

func u64(v []byte, to *uint64) error {
	return number(v, 8, func() { *to = binary.LittleEndian.Uint64(v) })
}

func u32(v []byte, to *uint32) error {
	return number(v, 4, func() { *to = binary.LittleEndian.Uint32(v) })
}

func moment(v []byte, to *time.Time) error {
	return number(v, 12, func() {
		*to = time.Unix(int64(binary.LittleEndian.Uint64(v)), int64(binary.LittleEndian.Uint32(v[8:])))
	})
}

func text(v []byte, to *string) error {
	*to = string(v)
	if strings.IndexByte(*to, 0) >= 0 {
		return errors.New("a zero byte in it")
	}
	return nil
}

// path takes a relative path that stays inside.
func path(v []byte, to *string) error {
	if err := text(v, to); err != nil || len(v) == 0 {
		return err
	}
	for part := range strings.SplitSeq(*to, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("unsafe path %q", *to)
		}
	}
	return nil
}
