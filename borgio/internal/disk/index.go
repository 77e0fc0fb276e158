package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
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
	start := binary.LittleEndian.Uint32(id[:4]) % x.buckets
	for i, n := start, uint32(0); n < min(x.buckets, maxProbes); n++ {
		b := x.data[indexHeaderSize+indexBucketSize*int(i):][:indexBucketSize]
		p := place{binary.LittleEndian.Uint32(b[32:]), binary.LittleEndian.Uint32(b[36:])}
		switch p.segment {
		case bucketEmpty:
			return place{}, false
		case bucketTombstone:
		default:
			if bytes.Equal(b[:32], id[:]) {
				return p, true
			}
		}
		if i++; i == x.buckets {
			i = 0
		}
	}
	return place{}, false
}

// mapFile maps a whole file for reading. An empty file is an error.
func mapFile(path string) ([]byte, error) {
	f, size, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size == 0 || size != int64(int(size)) {
		return nil, fmt.Errorf("map %s: %d bytes", path, size)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return data, nil
}

// letGo takes mapped pages out of the process's memory. They come back when
// they are read.
func letGo(mapped []byte) { _ = unix.Madvise(mapped, unix.MADV_DONTNEED) }

// maxIntegrityBytes bounds the file integrity.N; Borg's have under 1 KB.
const maxIntegrityBytes = 64 << 10

// readIntegrity reads the digests that the file integrity.N holds.
func readIntegrity(path string) (digests map[string]string, err error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIntegrityBytes))
	if err != nil {
		return nil, err
	}
	return parseIntegrity(data)
}

// parseIntegrity reads the digests of an index file from the content of the
// file integrity.N. Unknown algorithms give none. It allocates at most 64 bytes
// for each of data.
func parseIntegrity(data []byte) (digests map[string]string, err error) {
	r := msgpack.NewReader(data)
	err = r.Fields(func(key []byte) error {
		if string(key) != "index" {
			return r.Skip()
		}
		text, err := r.Bytes()
		if err != nil {
			return err
		}
		var doc struct {
			Algorithm string            `json:"algorithm"`
			Digests   map[string]string `json:"digests"`
		}
		if err := json.Unmarshal(text, &doc); err != nil {
			return err
		}
		if doc.Algorithm == "XXH64" {
			digests = doc.Digests
		}
		return nil
	})
	return digests, err
}

// checkStep is how much of an index is looked at before it is let go.
const checkStep = 4 << 20

// checkIndex compares an index file's bytes with its digests. name is the
// file's base name, which is part of what is hashed. done is told of the
// pieces that are not needed any more.
func checkIndex(name string, data []byte, digests map[string]string, done func(piece []byte)) error {
	if len(data) < indexHeaderSize {
		return errors.New("index is cut short")
	}
	h := xxhash.New()
	part := func(s string) { fmt.Fprintf(h, "%10d%s", len(s), s) }
	compare := func(what string) error {
		if want, ok := digests[what]; ok && want != hex.EncodeToString(h.Sum(nil)) {
			return fmt.Errorf("digest %s of the index is wrong", what)
		}
		return nil
	}
	part(name)
	_, _ = h.Write(data[:indexHeaderSize]) // a hash takes everything
	part("HashHeader")
	fmt.Fprint(h, indexHeaderSize)
	if err := compare("HashHeader"); err != nil {
		return err
	}
	for from := 0; from < len(data); from += checkStep {
		piece := data[from:min(from+checkStep, len(data))]
		if from == 0 {
			_, _ = h.Write(piece[indexHeaderSize:])
		} else {
			_, _ = h.Write(piece)
		}
		done(piece)
	}
	part("final")
	fmt.Fprint(h, len(data))
	return compare("final")
}
