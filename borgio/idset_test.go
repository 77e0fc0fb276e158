package borgio

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

func TestIDSet(t *testing.T) {
	const n = 300_000
	random := rand.NewChaCha8([32]byte{1})
	ids := make([]ID, n)
	var s idSet
	if s.has(ID{}) {
		t.Error("an empty set has something")
	}
	for i := range ids {
		_, _ = random.Read(ids[i][:])
		if !s.add(ids[i]) || s.add(ids[i]) {
			t.Fatal("an id is new once")
		}
	}
	for range n {
		var other ID
		_, _ = random.Read(other[:])
		if s.has(other) {
			t.Fatal("it has what was never added")
		}
	}
	for _, id := range ids {
		if !s.has(id) {
			t.Fatal("it lacks what was added")
		}
	}
	if !s.add(ID{}) || !s.has(ID{}) {
		t.Error("zeros are an id, too")
	}
	if each := float64(len(s.slots)) * float64(unsafe.Sizeof(s.slots[0])) / n; each > 22 {
		t.Errorf("%.1f bytes for each id", each)
	}
}

// TestChunksOfItem: what an item refers to is found also where [Scanner.Item] leaves
// it out: in a piece of a file, and where borg put zeros in the place of what was lost.
func TestChunksOfItem(t *testing.T) {
	list := func(b []byte, name string, ids ...byte) []byte {
		b = msgpack.AppendArray(msgpack.AppendBytes(b, name), len(ids))
		for _, id := range ids {
			b = msgpack.AppendBytes(msgpack.AppendArray(b, 3), (&ID{id})[:])
			b = msgpack.AppendInt(msgpack.AppendInt(b, 100), int64(id))
		}
		return b
	}
	raw := msgpack.AppendMap(nil, 4)
	raw = msgpack.AppendBytes(msgpack.AppendBytes(raw, "path"), "file.borg_part_1")
	raw = msgpack.AppendInt(msgpack.AppendBytes(raw, "part"), 1)
	raw = list(raw, "chunks", 1, 2)
	raw = list(raw, "chunks_healthy", 1, 3)
	var got []byte
	err := chunksOf(raw, func(id ID, stored uint32) {
		if stored != uint32(id[0]) {
			t.Errorf("%v is stored in %d bytes", id, stored)
		}
		got = append(got, id[0])
	})
	if err != nil || string(got) != "\x01\x02\x01\x03" {
		t.Errorf("%v, %v", got, err)
	}
}
