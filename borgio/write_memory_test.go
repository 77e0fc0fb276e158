package borgio

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
)

// TestObjectsMemory: what a transaction has stored takes nothing on the Go heap,
// where the collector lets as much again pile up, and is still known.
func TestObjectsMemory(t *testing.T) {
	const objects = 60_000
	tx, err := written(t, "none").Begin(t.Context(), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
	add := func(n int) Chunk {
		t.Helper()
		content := binary.BigEndian.AppendUint64([]byte("file "), uint64(n))
		chunks, err := tx.AddFile(t.Context(), bytes.NewReader(append(content, make([]byte, n%200)...)))
		if err != nil || len(chunks) != 1 {
			t.Fatal(chunks, err)
		}
		return chunks[0]
	}
	live := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	first := add(0)
	before := live()
	var last Chunk
	for n := 1; n < objects; n++ {
		last = add(n)
	}
	if grown := live() - before; grown > objects*8 {
		t.Errorf("%d objects take %d bytes of the heap", objects, grown)
	}
	stored := tx.Added()
	if again := add(0); again != first || again.Stored == 0 {
		t.Errorf("the first once more: %+v, want %+v", again, first)
	}
	if again := add(objects - 1); again != last || again.Stored == 0 {
		t.Errorf("the last once more: %+v, want %+v", again, last)
	}
	if more := tx.Added() - stored; more != 0 {
		t.Errorf("%d bytes were stored again", more)
	}
}
