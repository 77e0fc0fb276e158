package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// A segment file is a magic and entries; see the package comment.
const (
	segmentMagic = "BORG_SEG"
	atticMagic   = "ATTICSEG"

	entryHeaderSize = 9        // crc32, size, tag
	putHeaderSize   = 9 + 32   // and the id
	maxEntrySize    = 20 << 20 // a whole entry
	tagPut          = 0
	tagDelete       = 1
	tagCommit       = 2
)

// MaxObjectSize bounds what is stored of one object, in bytes.
const MaxObjectSize = maxEntrySize - putHeaderSize

// commitEntry is the only form of a COMMIT.
var commitEntry = [entryHeaderSize]byte{0x40, 0xf4, 0x3c, 0x25, 9, 0, 0, 0, tagCommit}

// entry is the header of one entry of a segment.
type entry struct {
	crc  uint32
	size uint32 // of the whole entry, header included
	tag  byte
	id   [32]byte // PUT and DELETE
}

// parseEntry reads an entry's header from the first putHeaderSize bytes of the
// entry, or entryHeaderSize where the segment ends there.
func parseEntry(b []byte) (entry, error) {
	var e entry
	if len(b) < entryHeaderSize {
		return e, io.ErrUnexpectedEOF
	}
	e.crc = binary.LittleEndian.Uint32(b)
	e.size = binary.LittleEndian.Uint32(b[4:])
	e.tag = b[8]
	switch {
	case e.tag == tagCommit && e.size == entryHeaderSize:
		if [entryHeaderSize]byte(b) != commitEntry {
			return e, errors.New("checksum of a commit is wrong")
		}
		return e, nil
	case e.tag == tagPut && e.size >= putHeaderSize && e.size <= maxEntrySize:
	case e.tag == tagDelete && e.size == putHeaderSize:
	default:
		return e, fmt.Errorf("no entry has tag %d and size %d", e.tag, e.size)
	}
	if len(b) < putHeaderSize {
		return e, io.ErrUnexpectedEOF
	}
	e.id = [32]byte(b[entryHeaderSize:putHeaderSize])
	return e, nil
}

// firstRead is how much of an entry is read before its size is known: enough
// for most objects, little enough to waste.
const firstRead = 64 << 10

// moreThanPlain is by how much an object may be longer than what is in it: kinds
// of encryption and compression, nonce and code, and what lz4 adds to 20 kB that it
// cannot compress.
const moreThanPlain = 128

// readPut reads and checks the PUT of id at off. The result's data is the
// object alone. sizeHint is about how long the object is; a large one is mapped
// where it can be, and must be used within [OnFault].
func readPut(r io.ReaderAt, off int64, id [32]byte, sizeHint int, pool *buffer.Pool) (*buffer.Buffer, error) {
	first := putHeaderSize + min(max(sizeHint, 0)+moreThanPlain, firstRead)
	file, mappable := r.(*os.File)
	if mappable = mappable && sizeHint > firstRead; mappable {
		first = putHeaderSize
	}
	b := pool.Get(first)
	n, err := r.ReadAt(b.Data, off)
	if err != nil && !errors.Is(err, io.EOF) {
		b.Release()
		return nil, err
	}
	e, err := parseEntry(b.Data[:n])
	switch {
	case err != nil:
	case e.tag != tagPut:
		err = fmt.Errorf("entry has tag %d", e.tag)
	case e.id != id:
		err = errors.New("entry holds another object")
	case int(e.size) > n:
		if mappable {
			if m := mapRange(file, off, int(e.size)); m != nil {
				b.Release()
				b = m
				break
			}
		}
		b = pool.Grow(b, n, int(e.size))
		if _, err = r.ReadAt(b.Data[n:], off+int64(n)); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	default:
		b.Data = b.Data[:e.size]
	}
	if err == nil {
		if fault := OnFault(func() {
			if crc32.ChecksumIEEE(b.Data[4:]) != e.crc {
				err = errors.New("checksum is wrong")
			}
		}); fault != nil {
			err = fault // borg 1.1 truncates a segment before it removes it
		}
	}
	if err != nil {
		b.Release()
		return nil, &ObjectError{"segment entry", err}
	}
	b.Data = b.Data[putHeaderSize:]
	return b, nil
}

// readPutSize reads the size of the whole PUT of id at p; its data is not looked at.
func readPutSize(r io.ReaderAt, p place, id [32]byte) (uint32, error) {
	var head [putHeaderSize]byte
	if _, err := r.ReadAt(head[:], int64(p.offset)); err != nil {
		return 0, err
	}
	e, err := parseEntry(head[:])
	if err == nil && (e.tag != tagPut || e.id != id) {
		err = errors.New("entry holds something else")
	}
	if err != nil {
		return 0, &ObjectError{"segment entry", err}
	}
	return e.size, nil
}

// walkSegment calls fn for the header of each entry of a segment of the given
// size. Object data is neither read nor checked.
func walkSegment(r io.ReaderAt, size int64, fn func(off int64, e entry) error) error {
	var head [putHeaderSize]byte
	if size < int64(len(segmentMagic)) {
		return io.ErrUnexpectedEOF
	}
	if _, err := r.ReadAt(head[:len(segmentMagic)], 0); err != nil {
		return err
	}
	switch string(head[:len(segmentMagic)]) {
	case segmentMagic:
	case atticMagic:
		return fmt.Errorf("%w: made by attic", fault.ErrUnsupported)
	default:
		return errors.New("not a segment")
	}
	for off := int64(len(segmentMagic)); off < size; {
		n, err := r.ReadAt(head[:min(int64(len(head)), size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		e, err := parseEntry(head[:n])
		if err == nil && int64(e.size) > size-off {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("entry at %d: %w", off, err)
		}
		if err := fn(off, e); err != nil {
			return err
		}
		off += int64(e.size)
	}
	return nil
}

// isCommitted reports whether a segment's entries parse and end in a COMMIT.
func isCommitted(ctx context.Context, r io.ReaderAt, size int64) (bool, error) {
	var tail [entryHeaderSize]byte
	if size < int64(len(segmentMagic)+len(tail)) {
		return false, nil
	}
	if _, err := r.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return false, err
	}
	if tail != commitEntry {
		return false, nil
	}
	var last byte
	err := walkSegment(r, size, func(_ int64, e entry) error {
		last = e.tag
		return ctx.Err()
	})
	if ctx.Err() != nil || errors.Is(err, fault.ErrUnsupported) {
		return false, err
	}
	return err == nil && last == tagCommit, nil
}
