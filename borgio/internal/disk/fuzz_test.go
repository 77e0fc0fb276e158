package disk

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// frozen gives the files of the frozen repositories that match.
func frozen(tb testing.TB, pattern string) (files [][]byte) {
	tb.Helper()
	paths, err := filepath.Glob("../../testdata/" + pattern)
	if err != nil || len(paths) == 0 {
		tb.Fatalf("%s: no files, %v", pattern, err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		files = append(files, b)
	}
	return files
}

// record is an entry as a slow reader finds it.
type record struct {
	off  int64
	tag  byte
	id   [32]byte
	data []byte
	good bool // its checksum matches
}

// slowSegment reads a segment by the letter of its description, up to the
// first thing that is none.
func slowSegment(b []byte) (records []record, whole bool) {
	if !bytes.HasPrefix(b, []byte("BORG_SEG")) {
		return nil, false
	}
	for off := 8; off < len(b); {
		rest := b[off:]
		if len(rest) < 9 {
			return records, false
		}
		size, tag := int64(binary.LittleEndian.Uint32(rest[4:])), rest[8]
		rec := record{off: int64(off), tag: tag}
		switch {
		case size > int64(len(rest)), size > 20<<20:
			return records, false
		case tag == 0 && size >= 41, tag == 1 && size == 41:
			rec.id, rec.data = [32]byte(rest[9:]), rest[41:size]
		case tag == 2 && size == 9:
		default:
			return records, false
		}
		rec.good = crc32.ChecksumIEEE(rest[4:size]) == binary.LittleEndian.Uint32(rest)
		if tag == 2 && !rec.good {
			return records, false
		}
		records = append(records, rec)
		off += int(size)
	}
	return records, true
}

// FuzzSegment compares with a slow reader: the same entries, the same objects,
// the same end.
func FuzzSegment(f *testing.F) {
	for _, b := range frozen(f, "mode-none/data/0/*") {
		f.Add(b)
	}
	f.Add([]byte("ATTICSEG"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, pool := bytes.NewReader(in), &buffer.Pool{}
		defer pool.Close()
		want, whole := slowSegment(in)
		var got []record
		var err error
		over := heap.Over(256, func() {
			err = walkSegment(r, int64(len(in)), func(off int64, e entry) error { return nil })
		})
		if over > 0 {
			t.Errorf("%d bytes to walk %d", over, len(in))
		}
		if (err == nil) != whole {
			t.Fatalf("walked: %v; slowly %v", err, whole)
		}
		_ = walkSegment(r, int64(len(in)), func(off int64, e entry) error {
			got = append(got, record{off: off, tag: e.tag, id: e.id})
			return nil
		})
		if !slices.EqualFunc(got, want, func(a, b record) bool { return a.off == b.off && a.tag == b.tag && a.id == b.id }) {
			t.Fatalf("%d entries; slowly %d", len(got), len(want))
		}
		for i, rec := range want {
			for _, hint := range []int{0, len(rec.data), 1 << 30} {
				b, err := readPut(r, rec.off, rec.id, hint, pool)
				if (err == nil) != (rec.tag == tagPut && rec.good) {
					t.Fatalf("entry %d: %v, want %+v", i, err, rec)
				}
				if err != nil {
					if !errors.Is(err, fault.ErrIntegrity) {
						t.Fatalf("entry %d: %v", i, err)
					}
					continue
				}
				if !bytes.Equal(b.Data, rec.data) {
					t.Fatalf("entry %d holds %x, want %x", i, b.Data, rec.data)
				}
				b.Release()
				other := rec.id
				other[0]++
				if b, err := readPut(r, rec.off, other, hint, pool); err == nil {
					b.Release()
					t.Fatal("another object passes for it")
				}
			}
		}
		committed, err := isCommitted(t.Context(), r, int64(len(in)))
		if ends := whole && len(want) > 0 && want[len(want)-1].tag == tagCommit; err == nil && committed != ends {
			t.Fatalf("committed: %v, want %v", committed, ends)
		}
	})
}

// FuzzIndex looks objects up in tables that may be anything. What is found is
// in the table, and a table that says it is digested right is.
func FuzzIndex(f *testing.F) {
	integrity := frozen(f, "mode-none/integrity.*")[0]
	f.Add(frozen(f, "mode-none/index.*")[0], integrity)
	head := []byte("BORG_IDX\x01\x00\x00\x00\x02\x00\x00\x00\x20\x08")
	f.Add(append(bytes.Clone(head), make([]byte, 80)...), []byte{})
	f.Add(append(bytes.Clone(head), bytes.Repeat([]byte{0xff}, 80)...), integrity)
	f.Fuzz(func(t *testing.T, in, integrity []byte) {
		digests, _ := parseIntegrity(integrity, "index")
		err := checkIndex("index.9", in, digests, func([]byte) {})
		if len(in) > 0 && err == nil && digests["final"] != "" {
			changed := bytes.Clone(in)
			changed[len(changed)/2] ^= 1
			if checkIndex("index.9", changed, digests, func([]byte) {}) == nil {
				t.Fatal("a changed index has the same digest")
			}
		}
		x, err := parseIndex(in)
		if err != nil {
			return
		}
		live := map[[32]byte][]place{}
		for b := in[18:]; len(b) > 0; b = b[40:] {
			p := place{binary.LittleEndian.Uint32(b[32:]), binary.LittleEndian.Uint32(b[36:])}
			if p.segment < bucketTombstone {
				live[[32]byte(b)] = append(live[[32]byte(b)], p)
			}
		}
		live[[32]byte{1, 2, 3}] = append(live[[32]byte{1, 2, 3}], []place{}...)
		for id, places := range live {
			if p, ok := x.lookup(id); ok && !slices.Contains(places, p) {
				t.Fatalf("%x is at %v, which is none of %v", id, p, places)
			}
		}
	})
}

// FuzzIndexTable fills a table as borg does and compares it with a map.
func FuzzIndexTable(f *testing.F) {
	f.Add([]byte{1, 1, 9, 2, 17, 3, 1, 0, 25, 4, 9, 0}, uint8(8))
	f.Add(bytes.Repeat([]byte{3, 1, 3, 0, 19, 5}, 20), uint8(16))
	f.Fuzz(func(t *testing.T, ops []byte, size uint8) {
		buckets := max(int(size), 1)
		table := make([]byte, indexHeaderSize+indexBucketSize*buckets)
		copy(table, "BORG_IDX")
		binary.LittleEndian.PutUint32(table[12:], uint32(buckets))
		table[16], table[17] = 32, 8
		bucket := func(i int) []byte { return table[indexHeaderSize+indexBucketSize*(i%buckets):][:indexBucketSize] }
		for i := range buckets {
			binary.LittleEndian.PutUint32(bucket(i)[32:], bucketEmpty)
		}
		model := map[[32]byte]place{}
		for ; len(ops) >= 2; ops = ops[2:] {
			id, value := [32]byte{ops[0], 31: ops[0] / 16}, ops[1]
			start := int(binary.LittleEndian.Uint32(id[:]) % uint32(buckets))
			found, free := -1, -1
			for i := start; i < start+buckets; i++ {
				segment := binary.LittleEndian.Uint32(bucket(i)[32:])
				if segment == bucketEmpty || segment == bucketTombstone {
					if free < 0 {
						free = i
					}
					if segment == bucketEmpty {
						break
					}
				} else if [32]byte(bucket(i)) == id {
					found = i
				}
			}
			switch {
			case value == 0 && found >= 0:
				binary.LittleEndian.PutUint32(bucket(found)[32:], bucketTombstone)
				delete(model, id)
			case value != 0 && max(found, free) >= 0:
				if found < 0 {
					found = free
				}
				p := place{uint32(value), uint32(ops[0])}
				copy(bucket(found), id[:])
				binary.LittleEndian.PutUint32(bucket(found)[32:], p.segment)
				binary.LittleEndian.PutUint32(bucket(found)[36:], p.offset)
				model[id] = p
			}
		}
		binary.LittleEndian.PutUint32(table[8:], uint32(len(model)))
		x, err := parseIndex(table)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 256 {
			id := [32]byte{byte(i), 31: byte(i) / 16}
			want, there := model[id]
			if p, ok := x.lookup(id); ok != there || p != want {
				t.Fatalf("%x: %v, %v, want %v, %v", id, p, ok, want, there)
			}
		}
	})
}

// FuzzIntegrity reads files integrity.N that may be anything.
func FuzzIntegrity(f *testing.F) {
	for _, b := range frozen(f, "*/integrity.*") {
		f.Add(b)
	}
	f.Add([]byte("\x82\xa7version\x02\xa5index\xda\x00\x40" + `{"algorithm": "XXH64", "digests": {"final": "0123456789abcdef"}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var err error
		if over := heap.Over(64*len(in), func() { _, err = parseIntegrity(in, "index") }); over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(in))
		}
		if r := msgpack.NewReader(in); err == nil && r.Skip() != nil {
			t.Fatal("what is no msgpack was read")
		}
	})
}

// FuzzConfig reads a repository's configuration, and again what it read
// written down.
func FuzzConfig(f *testing.F) {
	for _, b := range frozen(f, "*/config") {
		f.Add(string(b))
	}
	f.Add("[repository]\nversion: 1\nid = " + strings.Repeat("0aF", 22)[:64] + "\nsegments_per_dir=1000\n# c\nkey =\n\ta\n b\n[other]\nversion = 2\n")
	f.Fuzz(func(t *testing.T, in string) {
		var fields map[string]string
		var c config
		var err error
		over := heap.Over(64*len(in), func() {
			if fields, err = parseINI(bufio.NewScanner(strings.NewReader(in))); err == nil {
				c, err = newConfig(fields)
			}
		})
		if over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(in))
		}
		if fields == nil {
			return
		}
		switch {
		case err == nil:
			if c.segmentsPerDir < 1 || segmentPath("r", c.segmentsPerDir, bucketTombstone-1) == "" {
				t.Fatalf("%+v", c)
			}
		case !errors.Is(err, fault.ErrNotRepository) && !errors.Is(err, fault.ErrUnsupported) && !errors.Is(err, bufio.ErrTooLong):
			t.Fatal(err)
		}
		if errors.Is(err, bufio.ErrTooLong) {
			return
		}
		var b strings.Builder
		b.WriteString("[repository]\n")
		for _, key := range slices.SortedFunc(maps.Keys(fields), cmp.Compare) {
			b.WriteString(key + "=" + strings.ReplaceAll(fields[key], "\n", "\n\t") + "\n")
		}
		again, err := parseINI(bufio.NewScanner(strings.NewReader(b.String())))
		if err != nil || !maps.Equal(again, fields) {
			t.Fatalf("%q comes back as %q, %v", fields, again, err)
		}
	})
}
