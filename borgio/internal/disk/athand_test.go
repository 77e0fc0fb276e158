package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// smallObject adds a segment with one object to the repository in dir.
func smallObject(t *testing.T, dir string, segment int64, id [32]byte, data []byte) (path string) {
	t.Helper()
	put := binary.LittleEndian.AppendUint32(nil, uint32(putHeaderSize+len(data)))
	put = append(append(append(put, tagPut), id[:]...), data...)
	put = append(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(put)), put...)
	content := append(append([]byte(segmentMagic), put...), commitEntry[:]...)
	path = segmentPath(dir, 1000, segment)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAtHand: what is at hand is given once its segment has been opened, and
// nothing is when it might have to be waited for, or is damaged.
func TestAtHand(t *testing.T) {
	dir := copyNone(t)
	id, data := [32]byte{1, 2, 3}, bytes.Repeat([]byte("some text\n"), 3000)
	path := smallObject(t, dir, 100, id, data)
	r := mustOpen(t, dir, quiet)
	hint := len(data) - moreThanPlain - 100 // so that no more than the file is asked for
	atHand := func() bool {
		b, ok := r.GetAtHand(id, hint)
		if !ok {
			return false
		}
		defer b.Release()
		if !bytes.Equal(b.Data, data) {
			t.Error("another object was given")
		}
		return true
	}
	if atHand() {
		t.Error("an object was at hand in a segment that is not open")
	}
	b, err := r.Get(t.Context(), id, len(data))
	if err != nil {
		t.Fatal(err)
	}
	b.Release()
	if !atHand() {
		t.Skip("this kernel does not tell what is in the page cache") // it does since 6.5
	}
	if b, ok := r.GetAtHand(id, firstRead+1); ok {
		b.Release()
		t.Error("a large object was given")
	}
	if b, ok := r.GetAtHand([32]byte{9}, hint); ok {
		b.Release()
		t.Error("an object was given that is not there")
	}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	var there unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &there, 0); err != nil {
		t.Fatal(err)
	}
	if there.Cache == 0 && atHand() {
		t.Error("an object was at hand that is not in the page cache")
	}

	if _, err := f.WriteAt([]byte("x"), int64(len(segmentMagic)+putHeaderSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, len(data)), 0); err != nil {
		t.Fatal(err)
	}
	if atHand() {
		t.Error("a damaged object was given")
	}
}

// TestIndexAtHand: objects that the index file knows are found without its mapped
// pages, all but those that take a long search.
func TestIndexAtHand(t *testing.T) {
	r := mustOpen(t, copyNone(t), quiet)
	x := r.view.index
	if x == nil {
		t.Fatal("no index")
	}
	found, all := 0, 0
	for row := x.data[indexHeaderSize:]; len(row) >= indexBucketSize; row = row[indexBucketSize:] {
		id := [32]byte(row)
		want, ok := x.lookup(id)
		if !ok || binary.LittleEndian.Uint32(row[32:]) >= bucketTombstone {
			continue
		}
		all++
		if got, ok := r.view.lookupAtHand(id); ok {
			found++
			if got != want {
				t.Errorf("%x is at %v instead of %v", id[:4], got, want)
			}
		}
	}
	var there unix.Cachestat_t
	if err := unix.Cachestat(uint(r.view.file.Fd()), &unix.CachestatRange{}, &there, 0); err != nil {
		t.Skipf("this kernel does not tell what is in the page cache: %v", err)
	}
	if all == 0 || found < all*9/10 {
		t.Errorf("%d of %d objects found", found, all)
	}
}
