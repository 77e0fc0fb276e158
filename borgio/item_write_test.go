package borgio

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// TestItemsAsBorg packs again what borg packed, into the same bytes.
func TestItemsAsBorg(t *testing.T) {
	for _, name := range []string{"mode-none", "borg-1.2-none"} {
		p := frozenPlaintexts(t, name)
		n := 0
		for _, stream := range p.items {
			r := msgpack.NewReader(stream)
			var parser itemParser
			for r.Len() > 0 {
				start := r.Pos()
				if err := parser.parse(r); err != nil {
					t.Fatal(err)
				}
				raw := stream[start:r.Pos()]
				if got := AppendItem(nil, &parser.item); !bytes.Equal(got, raw) {
					t.Errorf("%s: %q is packed as\n%q, by borg as\n%q", name, parser.item.Path, got, raw)
				}
				n++
			}
		}
		if n < 5 {
			t.Errorf("%s: only %d items", name, n)
		}
	}
}

// TestAppendItem: what borg's archives of ordinary trees may not have is read
// back, too.
func TestAppendItem(t *testing.T) {
	var parser itemParser
	for _, it := range []Item{
		{Path: ".", Mode: unix.S_IFDIR},
		{Path: "a\xff\n", Mode: unix.S_IFREG | 0o7777, UID: math.MaxUint32, GID: 1, User: "\xfe", Group: "g", Mtime: math.MinInt64, Size: 0},
		{Path: "b", Mode: unix.S_IFREG, Mtime: math.MaxInt64, HasAtime: true, Atime: -1, HasCtime: true, Ctime: -40000, HasBirthtime: true, Birthtime: -1 << 31,
			Size: maxObjectSize + 1, Chunks: []Chunk{{ID{1}, maxObjectSize, 0}, {ID{2}, 1, math.MaxUint32}}, HardlinkMaster: true,
			Xattrs: []Xattr{{"user.a", nil}, {"user.b", []byte("\x00")}}, ACLAccess: []byte("user::rw-\n"), ACLDefault: []byte{}, BSDFlags: 7},
		{Path: "hard", Mode: unix.S_IFREG, Source: "b", Size: 5},
		{Path: "link", Mode: unix.S_IFLNK | 0o777, Source: "\xff/../x"},
		{Path: "dev", Mode: unix.S_IFBLK, Rdev: 1<<44 | 5, HardlinkMaster: true},
		{Path: "zero", Mode: unix.S_IFCHR},
		{Path: "fifo", Mode: unix.S_IFIFO, Source: "dev"},
	} {
		packed := AppendItem([]byte("before"), &it)
		r := msgpack.NewReader(packed[6:])
		if err := parser.parse(r); err != nil || r.Len() > 0 {
			t.Fatalf("%q: %v, %d bytes are left", it.Path, err, r.Len())
		}
		want := keep(&it)
		if got := keep(&parser.item); !sameItem(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	// In whatever order they come.
	it := Item{Path: "x", Xattrs: []Xattr{{"b", []byte("2")}, {"a", []byte("1")}}}
	packed := AppendItem(nil, &it)
	if i, j := bytes.Index(packed, []byte("\xa1a")), bytes.Index(packed, []byte("\xa1b")); i < 0 || i > j || it.Xattrs[0].Name != "b" {
		t.Errorf("xattrs: %q of %v", packed, it.Xattrs)
	}
}

func sameItem(a, b Item) bool { return string(AppendItem(nil, &a)) == string(AppendItem(nil, &b)) }

func FuzzAppendItem(f *testing.F) {
	for _, stream := range frozenPlaintexts(f, "mode-none").items {
		f.Add(stream)
	}
	f.Add(AppendItem(nil, &Item{Path: "x", Mode: unix.S_IFBLK, Rdev: 1 << 60, HasBirthtime: true}))
	f.Fuzz(func(t *testing.T, packed []byte) {
		var p itemParser
		if p.parse(msgpack.NewReader(packed)) != nil {
			return
		}
		once := AppendItem(nil, &p.item)
		if err := p.parse(msgpack.NewReader(once)); err != nil {
			t.Fatalf("%q: %v", once, err)
		}
		if again := AppendItem(nil, &p.item); !bytes.Equal(again, once) {
			t.Fatalf("%q, and then %q", once, again)
		}
	})
}

// TestComparePaths: the order is that of a walk, and one.
func TestComparePaths(t *testing.T) {
	want := []string{".", "!", "-", "a", "a/", "a/b", "a/b/c", "a/b!", "a\x01", "a ", "a!", "a-", "a.", "a.b", "aa", "b", "\xff"}
	got := slices.Clone(want)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		rnd.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, ComparePaths)
		if !slices.Equal(got, want) {
			t.Fatalf("%q", got)
		}
	}
	for _, c := range []struct {
		path, dir string
		want      bool
	}{{"a/b", "a", true}, {"a", "a", true}, {"a!", "a", false}, {"ab/c", "a", false}, {"x", ".", true}, {"a", "a/b", false}} {
		if got := isUnder(c.path, c.dir); got != c.want {
			t.Errorf("%q is under %q: %v", c.path, c.dir, got)
		}
	}
}

func madeOutline() *Outline {
	o := &Outline{Archive: ID{9}}
	for i, p := range []string{".", "a", "a/b", "a/bc", "b\xff"} {
		s := OutlineSection{Objects: []ID{{byte(i)}}, First: p, FirstSize: 100 * i, Items: 1 + i, Bytes: int64(i) << 10, sum: totals{int64(i), int64(i) << 40, 5}}
		if i == 3 {
			s.Objects = append(s.Objects, ID{100}, ID{101})
		}
		o.Sections = append(o.Sections, s)
	}
	return o
}

// TestParseOutline: a damaged encoding is refused.
func TestParseOutline(t *testing.T) {
	o := madeOutline()
	good := o.Append([]byte("x"))[1:]
	got, err := ParseOutline(good)
	if err != nil || sameOutline(got, o) != "" || got.Archive != o.Archive {
		t.Fatalf("%+v, %v", got, err)
	}
	if o.Items() != 15 || o.Files() != 10 || o.Size() != 10<<40 {
		t.Errorf("%d items, %d files, %d bytes", o.Items(), o.Files(), o.Size())
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := ParseOutline(bad); err == nil {
			t.Errorf("byte %d does not matter", i)
		}
		if _, err := ParseOutline(good[:i]); err == nil {
			t.Errorf("%d bytes are enough", i)
		}
	}
	for name, o := range map[string]*Outline{
		"order": {Sections: []OutlineSection{{Objects: []ID{{}}, First: "b", Items: 1}, {Objects: []ID{{}}, First: "a", Items: 1}}},
		"items": {Sections: []OutlineSection{{Objects: []ID{{}}, First: "b"}}},
		"ids":   {Sections: []OutlineSection{{First: "b", Items: 1}}},
		"path":  {Sections: []OutlineSection{{Objects: []ID{{}}, First: strings.Repeat("a", maxOutlinePath+1), Items: 1}}},
	} {
		if _, err := ParseOutline(o.Append(nil)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// sealOutline adds the checksum.
func sealOutline(b []byte) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(b), xxhash.Sum64(b))
}

func FuzzParseOutline(f *testing.F) {
	trim := func(o *Outline) []byte { b := o.Append(nil); return b[:len(b)-8] }
	f.Add(trim(&Outline{}))
	f.Add(trim(madeOutline()))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = sealOutline(b)
		var o *Outline
		var err error
		if over := heap.Over(160*len(b)+128<<10, func() { o, err = ParseOutline(b) }); over > 0 {
			t.Fatalf("%d bytes over the bound", over)
		}
		if err != nil {
			return
		}
		again, err := ParseOutline(o.Append(nil))
		if err != nil || sameOutline(again, o) != "" {
			t.Fatalf("%v: %+v, was %+v", err, again, o)
		}
	})
}
