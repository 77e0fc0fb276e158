package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

const (
	writeBuffer = 256 << 10
	// writeAhead is after how many bytes the kernel is told to write them to the
	// disk already, so that the sync at the end has little left to wait for.
	writeAhead = 16 << 20
)

// segmentWriter writes new segments.
type segmentWriter struct {
	dir    string
	perDir int
	limit  int64
	mode   fs.FileMode // of directories; files are the same, but not executable
	held   func() bool // whether the lock is still there

	number int64    // of the open segment, or of the next one
	file   *os.File // nil: none is open
	buf    *bufio.Writer
	offset int64 // where the next entry begins
	ahead  int64 // how much of it the kernel was told to write
	total  int64 // bytes of all segments
}

// write appends an entry, to a new segment if it has to be fresh or the present
// one is full. id is nil for a COMMIT.
func (s *segmentWriter) write(tag byte, id *[32]byte, data []byte, fresh bool) (place, error) {
	var header [putHeaderSize]byte
	head := header[:entryHeaderSize]
	if id != nil {
		head = append(head, id[:]...)
	}
	size := int64(len(head) + len(data))
	binary.LittleEndian.PutUint32(head[4:], uint32(size))
	head[8] = tag
	binary.LittleEndian.PutUint32(head, crc32.Update(crc32.ChecksumIEEE(head[4:]), crc32.IEEETable, data))
	if s.file != nil && s.offset > int64(len(segmentMagic)) && (fresh || s.offset+size > s.limit) {
		if err := s.close(); err != nil {
			return place{}, err
		}
	}
	if s.file == nil {
		if err := s.open(); err != nil {
			return place{}, err
		}
	}
	at := place{uint32(s.number), uint32(s.offset)}
	if _, err := s.buf.Write(head); err != nil {
		return at, err
	}
	if len(data) >= writeBuffer { // to fill the buffer first would only be a copy
		if err := s.buf.Flush(); err != nil {
			return at, err
		}
	}
	if _, err := s.buf.Write(data); err != nil {
		return at, err
	}
	s.total += size
	if s.offset += size; s.offset-s.ahead >= writeAhead {
		// What cannot be done early is done in the end.
		_ = unix.SyncFileRange(int(s.file.Fd()), s.ahead, s.offset-s.ahead, unix.SYNC_FILE_RANGE_WRITE)
		s.ahead = s.offset
	}
	return at, nil
}

// open makes the next segment.
func (s *segmentWriter) open() error {
	if !s.held() {
		return fault.ErrLockLost // what follows the last commit is another's
	}
	path := segmentPath(s.dir, s.perDir, s.number)
	err := os.Mkdir(filepath.Dir(path), s.mode)
	if err == nil {
		err = syncDir(filepath.Join(s.dir, "data"))
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, s.mode&0o666)
	if err != nil {
		return err
	}
	s.file, s.offset, s.ahead = f, int64(len(segmentMagic)), 0
	if s.buf == nil {
		s.buf = bufio.NewWriterSize(nil, writeBuffer)
	}
	s.buf.Reset(f)
	_, err = s.buf.WriteString(segmentMagic)
	return err
}

// holds tells whether the kernel does not have the open segment up to end yet.
func (s *segmentWriter) holds(end int64) bool { return end > s.offset-int64(s.buf.Buffered()) }

// flush hands all to the kernel.
func (s *segmentWriter) flush() error {
	if s.file == nil {
		return nil
	}
	return s.buf.Flush()
}

// close makes the open segment durable.
func (s *segmentWriter) close() error {
	if s.file == nil {
		return nil
	}
	err := s.buf.Flush()
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil && s.offset >= writeAhead {
		// The cache is for what is read again. It is cheaper, too: the kernel has
		// the next segment in the same memory.
		_ = unix.Fadvise(int(s.file.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	path := s.file.Name()
	err = errors.Join(err, s.file.Close())
	s.file = nil
	s.number++
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// discard gives the open segment up. It is left to who removes all of them.
func (s *segmentWriter) discard() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
		s.number++
	}
}
