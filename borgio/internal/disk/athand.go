package disk

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// atHand reads a file as far as that needs no disk, which may hang for longer
// than the caller can wait. What the kernel does not have in memory, or cannot
// tell of, is an error; of a network's files that is everything.
type atHand struct{ file *os.File }

var _ io.ReaderAt = atHand{}

var errNotAtHand = errors.New("not in the page cache")

func (a atHand) ReadAt(p []byte, off int64) (n int, err error) {
	conn, err := a.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	if cerr := conn.Control(func(fd uintptr) { n, err = readAtHand(int(fd), p, off) }); cerr != nil {
		return 0, cerr // closed by another reader
	}
	return n, err
}

// readAtHand asks before it reads: RWF_NOWAIT alone does not wait for data, but
// has missing data read ahead, and for that the disk may have to tell where it is.
func readAtHand(fd int, p []byte, off int64) (int, error) {
	pages := (off+int64(len(p))-1)/pageSize - off/pageSize + 1
	var there unix.Cachestat_t
	err := unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(len(p))}, &there, 0)
	if err == nil && int64(there.Cache) < pages {
		err = errNotAtHand
	}
	if err != nil {
		return 0, err
	}
	n, err := unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return max(n, 0), err
}

// pageSize is the smallest that there is. Where pages are larger, too few are
// there, and nothing is at hand.
const pageSize = 4096

// GetAtHand is [Repository.Get] without waiting for anything: ok is false where
// that might be necessary, where the object is large, and where anything is
// wrong.
func (s *Repository) GetAtHand(id [32]byte, sizeHint int) (b *buffer.Buffer, ok bool) {
	if sizeHint > firstRead || id == manifest {
		return nil, false
	}
	p, f := s.findAtHand(id)
	if f == nil {
		return nil, false
	}
	b, err := readPut(atHand{f}, int64(p.offset), id, sizeHint, s.pool)
	return b, err == nil
}

// findAtHand gives an object's place and segment, nil if that is not known yet.
func (s *Repository) findAtHand(id [32]byte) (p place, f *os.File) {
	if !s.mu.TryRLock() { // somebody may hold it and wait for the disk
		return p, nil
	}
	defer s.mu.RUnlock()
	if s.view == nil {
		return p, nil
	}
	p, ok := s.view.lookupAtHand(id)
	if !ok {
		return p, nil
	}
	return p, s.files[p.segment]
}

// rowAtHand is how many buckets are looked at: rarely are more needed.
const rowAtHand = 25

// lookupAtHand is lookup without touching mapped pages, which would be waited
// for. A search that is unusually long is left to lookup.
func (v *view) lookupAtHand(id [32]byte) (p place, ok bool) {
	if p, ok := v.overlay[id]; ok {
		return p, p.segment != bucketTombstone
	}
	if v.index == nil {
		return place{}, false
	}
	var row [rowAtHand * indexBucketSize]byte
	from := indexHeaderSize + indexBucketSize*int64(v.index.first(id))
	n := min(len(row), len(v.mapped)-int(from))
	if _, err := (atHand{v.file}).ReadAt(row[:n], from); err != nil {
		return place{}, false
	}
	p, ok, _ = probe(row[:n], id)
	return p, ok
}
