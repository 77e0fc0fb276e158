package disk

import (
	"bufio"
	"bytes"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/heap"
)

// FuzzHints: whatever is read is written back as what is read the same, within the
// bound of memory.
func FuzzHints(f *testing.F) {
	for _, b := range frozen(f, "*/hints.*") {
		f.Add(b)
	}
	f.Add([]byte("\x85\xa7version\x02\xa8segments\x80\xa7compact\x81\x01\xff\xb1storage_quota_use\x00\xacshadow_index\x81\xa1x\x91\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger()
		var err error
		if over := heap.Over(64*len(data), func() { err = l.unpack(data) }); over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(data))
		}
		if err != nil {
			return
		}
		again := newLedger()
		if err := again.unpack(append(l.pack(), l.shadow...)); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(l.segments, again.segments) || !maps.Equal(l.compact, again.compact) || l.quotaUse != again.quotaUse || !bytes.Equal(l.shadow, again.shadow) {
			t.Errorf("%v became %v", l, again)
		}
	})
}

// FuzzSetKey: the key that was set is the key that is read, and the rest stays.
func FuzzSetKey(f *testing.F) {
	f.Add([]byte("[repository]\nversion = 1\nkey = a\n\tb\n\nid = 00\n\n"), "new\nkey")
	f.Add([]byte("[other]\nkey = x\n[repository]\nkey=\n y\nKEY: z\n"), "k")
	f.Add([]byte(""), "k")
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		before, err := parseINI(bufio.NewScanner(bytes.NewReader(data)))
		if err != nil || len(before) == 0 || strings.ContainsAny(string(data), "\r\v\f\x85\xa0") || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz\n") != "" || strings.Contains("\n"+key+"\n", "\n\n") {
			return
		}
		after, err := parseINI(bufio.NewScanner(bytes.NewReader(setKey(data, key))))
		if err != nil || after["key"] != key {
			t.Fatalf("%q is %q, %v", key, after["key"], err)
		}
		before["key"] = key
		if !maps.Equal(before, after) {
			t.Errorf("%q became %q", before, after)
		}
	})
}

// TestTable compares with a map, through growth and tombstones.
func TestTable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	table, err := newTable(bucketsFor(600))
	if err != nil {
		t.Fatal(err)
	}
	defer table.free()
	table.clear()
	want := map[[32]byte]place{}
	for range 5000 {
		var id [32]byte
		id[0], id[1], id[9] = byte(random.IntN(3)), byte(random.IntN(100)), byte(random.IntN(3)) // they collide
		if random.IntN(3) == 0 {
			table.remove(id)
			delete(want, id)
		} else {
			p := place{random.Uint32N(1000), random.Uint32()}
			table.set(id, p)
			want[id] = p
		}
	}
	table.finish()
	x, err := parseIndex(table.data)
	if err != nil {
		t.Fatal(err)
	}
	got := map[[32]byte]place{}
	x.each(func(id [32]byte, p place) { got[id] = p })
	if !maps.Equal(got, want) || x.entries() != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	for id, p := range want {
		if q, ok := x.lookup(id); !ok || p != q {
			t.Fatalf("%x is at %v, want %v", id, q, p)
		}
	}
}
