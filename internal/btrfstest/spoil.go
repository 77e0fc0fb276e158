package btrfstest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/mountinfo"
)

// Spoil damages the first block of a file on the disk of the file system that is
// mounted on dir, so that reading it is EIO, until heal puts it right. The file has
// to be larger than what btrfs keeps beside the metadata, and like no other.
func Spoil(tb testing.TB, dir, path string) (heal func()) {
	tb.Helper()
	const block = 4096
	data, err := os.ReadFile(path)
	if err == nil && len(data) < block {
		err = errors.New("too small to be damaged")
	}
	fail(tb, err)
	image, err := os.OpenFile(imageOf(tb, dir), os.O_RDWR, 0)
	fail(tb, err)
	defer image.Close()
	forget := func() {
		tb.Helper()
		f, err := os.Open(path)
		fail(tb, err)
		defer f.Close()
		fail(tb, errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)))
	}
	forget()
	at := find(tb, image, data[:block])
	write := func(f *os.File, b []byte) {
		tb.Helper()
		_, err := f.WriteAt(b, at)
		fail(tb, errors.Join(err, f.Sync()))
	}
	write(image, bytes.Repeat([]byte("spoilt.."), block/8))
	forget()
	if _, err := os.ReadFile(path); !errors.Is(err, unix.EIO) {
		tb.Fatalf("%s is spoilt and reads as if nothing were: %v", path, err)
	}
	return func() {
		tb.Helper()
		f, err := os.OpenFile(image.Name(), os.O_RDWR, 0)
		fail(tb, err)
		defer f.Close()
		write(f, data[:block])
	}
}

// find looks for a block, of which there must be one.
func find(tb testing.TB, image *os.File, block []byte) (at int64) {
	tb.Helper()
	at = -1
	buf := make([]byte, len(block))
	for off := int64(0); ; off += int64(len(block)) {
		data, err := unix.Seek(int(image.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no more
			break
		}
		fail(tb, err)
		off = data - data%int64(len(block))
		_, err = image.ReadAt(buf, off)
		fail(tb, err)
		if bytes.Equal(buf, block) {
			if at >= 0 {
				tb.Fatal("the block is there twice")
			}
			at = off
		}
	}
	if at < 0 {
		tb.Fatal("the block is not found")
	}
	return at
}

// imageOf is the file below the file system that is mounted on dir.
func imageOf(tb testing.TB, dir string) string {
	tb.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	fail(tb, err)
	for line := range strings.Lines(string(table)) {
		if m, ok := mountinfo.Parse(line); ok && m.Dir == dir {
			name, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(m.Source), "loop/backing_file"))
			fail(tb, err)
			return strings.TrimSpace(string(name))
		}
	}
	tb.Fatalf("nothing is mounted on %s", dir)
	return ""
}

func fail(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
