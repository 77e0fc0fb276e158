package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A repository index file is an 18-byte header and an open-addressed hash
// table of 40-byte buckets; see the package comment.
const (
	indexMagic      = "BORG_IDX"
	indexHeaderSize = 18
	indexBucketSize = 40

	bucketEmpty     = 0xffffffff
	bucketTombstone = 0xfffffffe
)

// place says where an object's PUT begins.
type place struct {
	segment uint32
	offset  uint32
}

// diskIndex looks objects up in an index file's bytes.
type diskIndex struct {
	data    []byte // the whole file
	buckets uint32
}

// parseIndex checks an index file's header and length.
func parseIndex(data []byte) (*diskIndex, error) {
	if len(data) < indexHeaderSize || string(data[:8]) != indexMagic {
		return nil, errors.New("not a repository index")
	}
	entries := int32(binary.LittleEndian.Uint32(data[8:]))
	buckets := int32(binary.LittleEndian.Uint32(data[12:]))
	switch {
	case data[16] != 32 || data[17] != 8:
		return nil, fmt.Errorf("key of %d and value of %d bytes", data[16], data[17])
	case buckets < 1 || entries < 0 || entries > buckets:
		return nil, fmt.Errorf("%d entries in %d buckets", entries, buckets)
	case int64(len(data)) != indexHeaderSize+indexBucketSize*int64(buckets):
		return nil, fmt.Errorf("%d bytes for %d buckets", len(data), buckets)
	}
	return &diskIndex{data, uint32(buckets)}, nil
}

// maxProbes bounds a search. Borg fills 93 % of the buckets at most, tombstones
// included, and then the longest row without an empty one is some thousands.
const maxProbes = 1 << 20

// lookup finds an object. It gives up after one turn, or after maxProbes.
func (x *diskIndex) lookup(id [32]byte) (place, bool) {
	table := x.data[indexHeaderSize:]
	first := indexBucketSize * int(x.first(id))
	row := table[first:min(len(table), first+indexBucketSize*maxProbes)]
	p, ok, done := probe(row, id)
	if !done {
		p, ok, _ = probe(table[:min(first, indexBucketSize*maxProbes-len(row))], id)
	}
	return p, ok
}

// first is the bucket where the search for an object begins.
func (x *diskIndex) first(id [32]byte) uint32 {
	return binary.LittleEndian.Uint32(id[:4]) % x.buckets
}

// probe looks for an object in a row of buckets, and tells whether the search is
// done with that.
func probe(row []byte, id [32]byte) (p place, ok, done bool) {
	for ; len(row) >= indexBucketSize; row = row[indexBucketSize:] {
		p := place{binary.LittleEndian.Uint32(row[32:]), binary.LittleEndian.Uint32(row[36:])}
		switch p.segment {
		case bucketEmpty:
			return place{}, false, true
		case bucketTombstone:
		default:
			if [32]byte(row) == id {
				return p, true, true
			}
		}
	}
	return place{}, false, false
}

// mapFile opens a file and maps all of it for reading. An empty file is an
// error.
func mapFile(path string) (f *os.File, data []byte, err error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, nil, err
	}
	if size == 0 || size != int64(int(size)) {
		err = fmt.Errorf("%d bytes", size)
	} else {
		data, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("map %s: %w", path, err)
	}
	return f, data, nil
}

// letGo takes mapped pages out of the process's memory. They come back when
// they are read.
func letGo(mapped []byte) { _ = unix.Madvise(mapped, unix.MADV_DONTNEED) }

// checkStep is how much of an index is looked at before it is let go.
const checkStep = 4 << 20

// checkIndex compares an index file's bytes with its digests. name is the
// file's base name, which is part of what is hashed. done is told of the
// pieces that are not needed any more.
func checkIndex(name string, data []byte, digests map[string]string, done func(piece []byte)) error {
	if len(data) < indexHeaderSize {
		return errors.New("index is cut short")
	}
	h := newDigest(name)
	compare := func(what, got string) error {
		if want, ok := digests[what]; ok && want != got {
			return fmt.Errorf("digest %s of the index is wrong", what)
		}
		return nil
	}
	h.write(data[:indexHeaderSize])
	if err := compare("HashHeader", h.part("HashHeader")); err != nil {
		return err
	}
	for from := 0; from < len(data); from += checkStep {
		piece := data[from:min(from+checkStep, len(data))]
		if from == 0 {
			h.write(piece[indexHeaderSize:])
		} else {
			h.write(piece)
		}
		done(piece)
	}
	return compare("final", h.part("final"))
}
