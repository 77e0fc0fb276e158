package fusefs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// The holes of a fake history are blocks that are all zero.

func extentsOf(data []byte) (extents []snapshot.Extent) {
	for block := range slices.Chunk(data, blockSize) {
		hole := len(block) == blockSize && bytes.Equal(block, make([]byte, blockSize))
		extents = append(extents, snapshot.Extent{Size: uint32(len(block)), Hole: hole})
	}
	return extents
}

func holes(extents []snapshot.Extent) (size int64) {
	for _, e := range extents {
		if e.Hole {
			size += int64(e.Size)
		}
	}
	return size
}

func (h *fakeHistory) Content(_ context.Context, version int64) ([]snapshot.Extent, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.snaps {
		if data, ok := s.content[version]; ok {
			return extentsOf(data), nil
		}
	}
	return nil, os.ErrNotExist
}

// withDirs counts the directories in a directory.
func (s *fakeSnap) withDirs(e snapshot.Entry) snapshot.Entry {
	for _, c := range s.children[e.Dir] {
		if c.Dir != 0 {
			e.Subdirs++
		}
	}
	return e
}

// A sparse file takes its data's blocks, and its holes are found without
// reading it; a directory has a size and as many links as on a disk.
func TestHolesAndDirectories(t *testing.T) {
	tree := newVolume(t)
	sparse := make([]byte, 10*blockSize)
	copy(sparse[3*blockSize:], "data")
	copy(sparse[4*blockSize:], "more")
	write(t, filepath.Join(tree, "sparse"), string(sparse))
	write(t, filepath.Join(tree, "dense"), "data")
	write(t, filepath.Join(tree, "zeros"), string(make([]byte, 2*blockSize)))
	for _, dir := range []string{"a", "a/b", "a/c", "a/c/d"} {
		if err := os.Mkdir(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := newFakeHistory()
	info := h.add(t, tree, time.Unix(1_700_000_000, 0))
	past := filepath.Join(mountLive(t, newVolume(t), h, nil), ".s4/history", info.Dir)
	for path, want := range map[string]int64{"sparse": 16, "dense": 8, "zeros": 0, "a": 8} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(past, path), &st); err != nil || st.Blocks != want {
			t.Errorf("%s takes %d blocks instead of %d, %v", path, st.Blocks, want, err)
		}
	}
	for path, want := range map[string]uint64{"a": 4, "a/b": 2, "a/c": 3} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(past, path), &st); err != nil || st.Nlink != want || st.Size != blockSize {
			t.Errorf("%s has %d links instead of %d, %d bytes, %v", path, st.Nlink, want, st.Size, err)
		}
	}
	const none = -1
	for _, c := range []struct {
		path            string
		off, data, hole int64
	}{
		{"sparse", 0, 3 * blockSize, 0},
		{"sparse", 3*blockSize + 1, 3*blockSize + 1, 5 * blockSize},
		{"sparse", 6 * blockSize, none, 6 * blockSize},
		{"sparse", 10 * blockSize, none, none},
		{"dense", 1, 1, 4},
		{"zeros", 0, none, 0},
	} {
		f, err := os.Open(filepath.Join(past, c.path))
		if err != nil {
			t.Fatal(err)
		}
		for whence, want := range map[int]int64{unix.SEEK_DATA: c.data, unix.SEEK_HOLE: c.hole} {
			got, err := unix.Seek(int(f.Fd()), c.off, whence)
			if err == unix.ENXIO {
				got = none
			}
			if got != want {
				t.Errorf("%s from %d, whence %d: %d instead of %d, %v", c.path, c.off, whence, got, want, err)
			}
		}
		f.Close()
	}
	if n := h.opens(); n != 0 {
		t.Errorf("content was opened %d times", n)
	}
}
