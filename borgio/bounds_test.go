package borgio

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// many is the start of a map (0xdf) or an array (0xdd) of n, whatever follows,
// as the value of a field.
func many(b []byte, field string, kind byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(msgpack.AppendBytes(b, field), kind), uint32(n))
}

func one(fields int) []byte { return msgpack.AppendMap(nil, fields) }

// TestBounds: the worst inputs known take no more memory than the parsers say.
func TestBounds(t *testing.T) {
	const n = 1 << 20
	fill := func(b []byte, unit string, n int) []byte { return append(b, bytes.Repeat([]byte(unit), n)...) }
	version := msgpack.AppendInt(msgpack.AppendBytes(nil, "version"), 1)
	id := "\xc4\x20" + string(make([]byte, 32))
	manifest := func(b []byte) error { _, _, err := parseManifest(b); return err }
	archive := func(b []byte) error { _, _, err := parseArchive(ID{}, b); return err }
	item := func(b []byte) error { return new(itemParser).parse(msgpack.NewReader(b)) }
	stream := func(b []byte) error {
		pool := &buffer.Pool{}
		defer pool.Close()
		s := newTestScanner(pool, nil, b[:len(b)/3], b[len(b)/3:])
		defer s.Close()
		for s.Next() {
			for s.NextItem() {
				s.Item()
			}
		}
		return s.Err()
	}
	for _, c := range []struct {
		name  string
		parse func([]byte) error
		bound func(int) int
		input []byte
		good  bool
	}{
		{"archives without ids", manifest, manifestBound, fill(many(append(one(2), version...), "archives", 0xdf, n), "\xa0\x80", n), false},
		{"archives of little", manifest, manifestBound, fill(many(append(one(2), version...), "archives", 0xdf, n/40), "\xa0\x81\xa2id"+id, n/40), true},
		{"archives that are not there", manifest, manifestBound, many(one(1), "archives", 0xdf, 1<<31), false},
		{"archives with times", manifest, manifestBound,
			fill(many(append(one(2), version...), "archives", 0xdf, n/70), "\xa0\x82\xa2id"+id+"\xa4time\xb32020-01-01T00:00:00", n/70), true},
		{"a deep nest in a manifest", manifest, manifestBound, fill(msgpack.AppendBytes(append(one(2), version...), "x"), "\x91", 4*n), false},
		{"many features", manifest, manifestBound,
			fill(many(append(append(one(2), version...), "\xa6config\x81\xadfeature_flags\x81\xa4read\x81"...), "mandatory", 0xdd, n), "\xa0", n), false},
		{"empty words", archive, archiveBound,
			append(fill(many(append(one(3), version...), "cmdline", 0xdd, 4*n), "\xa0", 4*n), "\xa5items\x90"...), true},
		{"ids", archive, archiveBound, fill(many(append(one(2), version...), "items", 0xdd, n/34), id, n/34), true},
		{"ids that are not there", archive, archiveBound, fill(many(append(one(2), version...), "items", 0xdd, n), "\x00", n), false},
		{"a long name", archive, archiveBound, append(append(append(one(3), version...), msgpack.AppendBytes([]byte("\xa4name"), make([]byte, n))...), "\xa5items\x90"...), true},
		{"one name again and again", archive, archiveBound,
			fill(append([]byte{0xdf, 0, 0x10, 0, 0}, version...), "\xa4name\xaa0123456789", n-1), false},
		{"xattrs of nothing", item, itemBound, fill(many(one(1), "xattrs", 0xdf, 4*n), "\xa0\xc0", 4*n), false},
		{"as many xattrs as may be", item, itemBound, fill(many(one(1), "xattrs", 0xdf, maxXattrs), "\xa0\xc0", maxXattrs), true},
		{"xattrs in many fields", item, itemBound, fill([]byte{0xdf, 0, 0x02, 0, 0}, "\xa6xattrs\x81\xa0\xc0", 2<<16), false},
		{"chunks", item, itemBound, fill(many(one(1), "chunks", 0xdd, n/36), "\x92"+id+"\x01", n/36), true},
		{"chunks of much more", item, itemBound, fill(many(one(1), "chunks", 0xdd, n/50), "\x9f"+id+"\x01"+"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01", n/50), true},
		{"chunks that are not there", item, itemBound, fill(many(one(1), "chunks", 0xdd, n), "\x00", n), false},
		{"a deep nest in an item", item, itemBound, fill(msgpack.AppendBytes(one(1), "x"), "\x91", 4*n), false},
		{"a long path", item, itemBound, append(one(1), msgpack.AppendBytes([]byte("\xa4path"), make([]byte, n))...), true},
		{"users in turn", item, itemBound, fill([]byte{0xdf, 0, 0x08, 0, 0}, "\xa4user\xa1a\xa4user\xa1b", 1<<18), true},
		{"items of nothing", stream, itemBound, fill(nil, "\x80", 4*n), true},
		{"items of little", stream, itemBound, fill(nil, "\x81\xa4path\xa1a", n/8), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			over := heap.Over(c.bound(len(c.input)), func() { err = c.parse(c.input) })
			if over > 0 {
				t.Errorf("%d bytes over the bound for %d", over, len(c.input))
			}
			if (err == nil) != c.good {
				t.Errorf("error %v", err)
			}
		})
	}
}
