package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMappedFileIsCut: a page that goes away under a reader is an error of that
// read, and not the end of the process.
func TestMappedFileIsCut(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/segment")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if m := mapRange(f, 1000, 1<<20); m != nil {
		t.Error("a range past the end was mapped")
	}
	m := mapRange(f, 1000, 1<<19)
	if m == nil || len(m.Data) != 1<<19 {
		t.Fatalf("mapped: %v", m)
	}
	defer m.Release()
	sum := func() { crc32.ChecksumIEEE(m.Data) }
	if err := OnFault(sum); err != nil {
		t.Errorf("before: %v", err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := OnFault(sum); !errors.Is(err, unix.EIO) {
		t.Errorf("after: %v", err)
	}
}

// writeSegments writes segments of one object each, large enough to be mapped.
func writeSegments(t *testing.T, dir string, from, count int) (id [32]byte, size int) {
	t.Helper()
	id, size = [32]byte{7}, 200<<10
	put := make([]byte, putHeaderSize+size)
	binary.LittleEndian.PutUint32(put[4:], uint32(len(put)))
	copy(put[entryHeaderSize:], id[:])
	for i := range size {
		put[putHeaderSize+i] = byte(i)
	}
	binary.LittleEndian.PutUint32(put, crc32.ChecksumIEEE(put[4:]))
	for n := range count {
		if err := os.WriteFile(segmentPath(dir, 1000, int64(from+n)), append([]byte(segmentMagic), put...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return id, size
}

// TestManySegmentsTogether reads from more segments than are kept open, from many
// goroutines: none maps what has taken the place of a file that another closed.
func TestManySegmentsTogether(t *testing.T) {
	dir := copyNone(t)
	const count = 2 * maxOpenSegments
	id, size := writeSegments(t, dir, 100, count)
	r := mustOpen(t, dir, quiet)
	var work sync.WaitGroup
	for seed := range uint64(8) {
		work.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			for range 300 {
				b, err := r.read(place{uint32(100 + random.IntN(count)), 8}, id, size)
				if err != nil {
					t.Error(err)
					return
				}
				if len(b.Data) != size {
					t.Errorf("%d bytes", len(b.Data))
				}
				b.Release()
			}
		})
	}
	work.Wait()
}

// TestCutWhileMapped cuts a segment short again and again, as borg 1.1 does before
// it removes one: whoever reads it then is told that of the object.
func TestCutWhileMapped(t *testing.T) {
	dir := copyNone(t)
	id, size := writeSegments(t, dir, 100, 1)
	path := segmentPath(dir, 1000, 100)
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, dir, quiet)
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, werr := f.WriteAt(body, 0)
			if err := errors.Join(werr, f.Truncate(0)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	faults := 0
	for deadline := time.Now().Add(5 * time.Second); faults < 20 && time.Now().Before(deadline); {
		b, err := r.read(place{100, 8}, id, size)
		if err == nil {
			b.Release()
			continue
		}
		if _, ok := errors.AsType[*ObjectError](err); !ok {
			t.Errorf("untyped: %v", err)
			break
		}
		if errors.Is(err, ErrFault) {
			faults++
		}
	}
	close(stop)
	cutting.Wait()
	t.Logf("%d faults", faults)
}
