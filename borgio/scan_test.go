package borgio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// memoryPieces are objects in memory. It notes what was asked for.
type memoryPieces struct {
	pool   *buffer.Pool
	data   [][]byte
	last   int
	asked  []int
	broken int // this one cannot be read; 0: none
}

func (p *memoryPieces) get(i int) (*buffer.Buffer, error) {
	if i < p.last {
		return nil, fmt.Errorf("object %d after %d", i, p.last)
	}
	p.last = i
	p.asked = append(p.asked, i)
	if p.broken != 0 && i == p.broken {
		return nil, fs.ErrPermission
	}
	b := p.pool.Get(len(p.data[i]))
	copy(b.Data, p.data[i])
	return b, nil
}

func (p *memoryPieces) close() {}

// newTestScanner walks through a stream that is cut into those pieces. Equal
// pieces have equal ids.
func newTestScanner(pool *buffer.Pool, known map[ID]Section, data ...[]byte) *Scanner {
	s := &Scanner{name: "test", known: known, pieces: &memoryPieces{pool: pool, data: data}, warn: func(string) {}}
	for _, d := range data {
		s.stream = append(s.stream, idOf(d))
	}
	return s
}

func idOf(data []byte) (id ID) {
	h := uint64(14695981039346656037)
	for _, c := range data {
		h = (h ^ uint64(c)) * 1099511628211
	}
	binary.LittleEndian.PutUint64(id[:], h)
	binary.LittleEndian.PutUint64(id[8:], uint64(len(data)))
	return id
}

// packItem makes an item with that many chunks.
func packItem(path string, mtime int64, chunks int) []byte {
	b := msgpack.AppendMap(nil, 4)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "path"), path)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "mode"), 0o100644)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "mtime"), mtime)
	b = append(msgpack.AppendBytes(b, "chunks"), 0xdd, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[len(b)-4:], uint32(chunks))
	for i := range chunks {
		id := make([]byte, 32)
		binary.BigEndian.PutUint64(id, uint64(i))
		b = append(b, 0x93)
		b = msgpack.AppendInt(msgpack.AppendInt(msgpack.AppendBytes(b, id), 100), 50)
	}
	return b
}

// cutRandomly cuts a stream where its content says so, as borg does, so that
// streams with equal parts have equal pieces.
func cutRandomly(stream []byte, mean int) (pieces [][]byte) {
	h, start := uint32(0), 0
	for i, c := range stream {
		h = h<<1 + uint32(c)*0x9e3779b1
		if i-start > mean/4 && h>>8%uint32(mean) == 0 || i-start > 4*mean {
			pieces = append(pieces, stream[start:i])
			start, h = i, 0
		}
	}
	return append(pieces, stream[start:])
}

// scanned is what came out of a scan.
type scanned struct {
	paths    []string        // of the items that were fetched
	sections map[ID]Section  // all, by their first object
	members  map[ID][]string // the items of those that were fetched
	known    []ID            // first objects of those that were not
}

func scanAll(t *testing.T, s *Scanner, rawFirst bool) scanned {
	t.Helper()
	defer s.Close()
	out := scanned{sections: map[ID]Section{}, members: map[ID][]string{}}
	for s.Next() {
		if s.Known() {
			if s.NextItem() {
				t.Fatal("a section that was not fetched has an item")
			}
			sec := s.Section()
			out.sections[sec.Objects[0]] = sec
			out.known = append(out.known, sec.Objects[0])
			continue
		}
		var members []string
		for n := 0; s.NextItem(); n++ {
			if rawFirst && n%2 == 0 {
				raw := bytes.Clone(s.Raw())
				it := s.Item()
				again := itemParser{}
				if err := again.parse(msgpack.NewReader(raw)); err != nil || again.item.Path != it.Path {
					t.Fatalf("%q is packed as %q (%v)", it.Path, again.item.Path, err)
				}
			}
			if rawFirst && n%3 == 0 {
				s.Raw() // and its fields are not looked at at all, at times
			}
			it := s.Item()
			if it == nil {
				t.Fatal(s.Err())
			}
			members = append(members, fmt.Sprint(it.Path, it.Mtime, len(it.Chunks)))
		}
		out.paths = append(out.paths, members...)
		sec := s.Section()
		out.sections[sec.Objects[0]] = sec
		out.members[sec.Objects[0]] = members
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestScanKnown: of a stream that differs here and there from one that was
// scanned before, only what differs is fetched, and with the sections of
// before it makes the whole.
func TestScanKnown(t *testing.T) {
	pool := &buffer.Pool{}
	defer pool.Close()
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		type file struct {
			path   string
			mtime  int64
			chunks int
		}
		var files []file
		for i := range 400 {
			chunks := rnd.IntN(3)
			if rnd.IntN(50) == 0 {
				chunks = rnd.IntN(400) // over several objects
			}
			files = append(files, file{fmt.Sprintf("dir%d/file%d", i/20, i), int64(i), chunks})
		}
		pack := func() (stream []byte, want []string) {
			for _, f := range files {
				stream = append(stream, packItem(f.path, f.mtime, f.chunks)...)
				want = append(want, fmt.Sprint(f.path, f.mtime, f.chunks))
			}
			return stream, want
		}
		stream, want := pack()
		first := scanAll(t, newTestScanner(pool, nil, cutRandomly(stream, 1000)...), seed%2 == 0)
		if !slices.Equal(first.paths, want) {
			t.Fatalf("seed %d: %d items instead of %d", seed, len(first.paths), len(want))
		}
		for range rnd.IntN(3) {
			switch i := rnd.IntN(len(files) - 2); rnd.IntN(3) {
			case 0:
				files[i].mtime += 1000
			case 1:
				files = slices.Delete(files, i, i+1+rnd.IntN(2))
			case 2:
				files = slices.Insert(files, i, file{fmt.Sprintf("new%d", i), 7, rnd.IntN(30)})
			}
		}
		stream, want = pack()
		s := newTestScanner(pool, first.sections, cutRandomly(stream, 1000)...)
		second := scanAll(t, s, seed%2 == 1)
		var got []string
		for _, d := range s.stream { // in the stream's order
			if slices.Contains(second.known, d) {
				got = append(got, first.members[d]...)
			} else {
				got = append(got, second.members[d]...)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: known and new sections make %d items instead of %d", seed, len(got), len(want))
		}
		if len(second.known) < len(first.sections)/2 {
			t.Errorf("seed %d: only %d of %d sections were known", seed, len(second.known), len(first.sections))
		}
		if asked := s.pieces.(*memoryPieces).asked; len(asked)+len(second.known) > len(s.stream)+2*3 {
			t.Errorf("seed %d: %d of %d objects were fetched though %d sections are known", seed, len(asked), len(s.stream), len(second.known))
		}
		// What is planned is what is needed, but for an object here or there.
		plan := planScan(s.stream, first.sections)
		if more := len(s.pieces.(*memoryPieces).asked) - len(plan); more > 3 || more < -3 {
			t.Errorf("seed %d: %d objects were planned to be fetched, off by %d", seed, len(plan), more)
		}
	}
}

// TestScanLeap: whoever knows how long items are may leap over them, and finds
// the same items behind them, in the same sections.
func TestScanLeap(t *testing.T) {
	pool := &buffer.Pool{}
	defer pool.Close()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var stream []byte
		var want []string
		for i := range 300 {
			item := packItem(fmt.Sprintf("dir%d/file%d", i/20, i), int64(i), rnd.IntN(3))
			stream, want = append(stream, item...), append(want, string(item))
		}
		data := cutRandomly(stream, 1000)
		sections := scanAll(t, newTestScanner(pool, nil, data...), false).sections
		s := newTestScanner(pool, nil, data...)
		leaps, at := 0, 0
		for s.Next() {
			for s.NextItem() {
				ahead, n := s.Ahead(), 0
				for range rnd.IntN(5) {
					if at == len(want) || !bytes.HasPrefix(ahead[n:], []byte(want[at])) {
						break // there is none, or it is cut
					}
					n, at = n+len(want[at]), at+1
				}
				if n > 0 {
					s.Leap(n)
					leaps++
					continue
				}
				if string(s.Raw()) != want[at] {
					t.Fatalf("seed %d: item %d is %q instead of %q", seed, at, s.Raw(), want[at])
				}
				at++
			}
			if sec := s.Section(); !reflect.DeepEqual(sec, sections[sec.Objects[0]]) {
				t.Fatalf("seed %d: section %v instead of %v", seed, sec, sections[sec.Objects[0]])
			}
		}
		if s.Err() != nil || at != len(want) || leaps < 50 {
			t.Errorf("seed %d: %d items instead of %d after %d leaps: %v", seed, at, len(want), leaps, s.Err())
		}
		s.Close()
	}
}

// TestScanEnds: a stream that is damaged ends with an error, whoever looks.
func TestScanEnds(t *testing.T) {
	pool := &buffer.Pool{}
	defer pool.Close()
	good := packItem("a", 1, 100)
	for name, c := range map[string]struct {
		data   [][]byte
		broken int
		want   error
		items  int
	}{
		"whole":           {[][]byte{good, good[:10], good[10:], {}}, 0, nil, 2},
		"empty":           {nil, 0, nil, 0},
		"only nothing":    {[][]byte{{}, {}}, 0, nil, 0},
		"cut short":       {[][]byte{good, good[:len(good)-1]}, 0, ErrIntegrity, 1},
		"no map":          {[][]byte{good, {0x01}}, 0, ErrIntegrity, 1},
		"no item":         {[][]byte{good, {0xc1}}, 0, ErrIntegrity, 1},
		"never ending":    {[][]byte{good, {0xdf, 0xff, 0xff, 0xff, 0xff}, []byte(strings.Repeat("\x01", 1<<16))}, 0, ErrIntegrity, 1},
		"unreadable tail": {[][]byte{good, good[:10], good[10:]}, 2, fs.ErrPermission, 1},
	} {
		for _, look := range []string{"item", "raw", "nothing"} {
			s := newTestScanner(pool, nil, c.data...)
			s.pieces.(*memoryPieces).broken = c.broken
			n := 0
			for s.Next() {
				for s.NextItem() {
					switch {
					case look == "item" && s.Item() == nil, look == "raw" && s.Raw() == nil:
					default:
						n++
					}
				}
			}
			err := s.Err()
			s.Close()
			if !errors.Is(err, c.want) || look != "nothing" && n != c.items || look == "nothing" && n < c.items {
				t.Errorf("%s, looking at the %s: %d items, %v", name, look, n, err)
			}
		}
	}
}
