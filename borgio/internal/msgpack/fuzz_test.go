package msgpack

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/heap"
)

// value is anything, decoded: nil, bool, int64, string, a list, or pairs.
// What borg has no use for, such as a float, is its bytes.
type (
	list  []any
	pairs []any // key, value, key, …
	other string
)

// slow decodes the value at the start of b by the letter of the specification.
func slow(b []byte) (v any, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	c, b := b[0], b[1:]
	number := func(width int) (n uint64, ok bool) {
		if len(b) < width {
			return 0, false
		}
		for _, c := range b[:width] {
			n = n<<8 | uint64(c)
		}
		b = b[width:]
		return n, true
	}
	raw := func(n uint64, ok bool) (string, bool) {
		if !ok || n > uint64(len(b)) {
			return "", false
		}
		s := string(b[:n])
		b = b[n:]
		return s, true
	}
	many := func(n uint64, ok bool) (all []any, _ bool) {
		for ; ok && n > 0; n-- {
			var e any
			if e, b, ok = slow(b); ok {
				all = append(all, e)
			}
		}
		return all, ok
	}
	switch {
	case c <= 0x7f:
		return int64(c), b, true
	case c >= 0xe0:
		return int64(int8(c)), b, true
	case c <= 0x8f:
		all, ok := many(2*uint64(c&15), true)
		return pairs(all), b, ok
	case c <= 0x9f:
		all, ok := many(uint64(c&15), true)
		return list(all), b, ok
	case c <= 0xbf:
		s, ok := raw(uint64(c&31), true)
		return s, b, ok
	}
	switch c {
	case 0xc0:
		return nil, b, true
	case 0xc2, 0xc3:
		return c == 0xc3, b, true
	case 0xc4, 0xc5, 0xc6:
		s, ok := raw(number(1 << (c - 0xc4)))
		return s, b, ok
	case 0xc7, 0xc8, 0xc9:
		n, ok := number(1 << (c - 0xc7))
		s, ok := raw(n+1, ok)
		return other(s), b, ok
	case 0xca, 0xcb:
		s, ok := raw(4<<(c-0xca), true)
		return other(s), b, ok
	case 0xcc, 0xcd, 0xce, 0xcf:
		n, ok := number(1 << (c - 0xcc))
		return int64(min(n, math.MaxInt64)), b, ok
	case 0xd0, 0xd1, 0xd2, 0xd3:
		width := 1 << (c - 0xd0)
		n, ok := number(width)
		return int64(n<<(64-8*width)) >> (64 - 8*width), b, ok
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		s, ok := raw(1+1<<(c-0xd4), true)
		return other(s), b, ok
	case 0xd9, 0xda, 0xdb:
		s, ok := raw(number(1 << (c - 0xd9)))
		return s, b, ok
	case 0xdc, 0xdd:
		all, ok := many(number(2 << (c - 0xdc)))
		return list(all), b, ok
	case 0xde, 0xdf:
		n, ok := number(2 << (c - 0xde))
		all, ok := many(2*n, ok)
		return pairs(all), b, ok
	}
	return nil, nil, false
}

// fast decodes the same with a Reader.
func fast(t *testing.T, r *Reader) (any, error) {
	many := func(n int) (all []any, err error) {
		for range n {
			e, err := fast(t, r)
			if err != nil {
				return nil, err
			}
			all = append(all, e)
		}
		return all, nil
	}
	switch r.Peek() {
	case Nil:
		if !r.Nil() {
			t.Fatal("a nil is none")
		}
		return nil, nil
	case Bool:
		return r.Bool()
	case Int:
		return r.Int()
	case Raw:
		return r.String()
	case Array:
		n, err := r.Array()
		if err != nil {
			return nil, err
		}
		all, err := many(n)
		return list(all), err
	case Map:
		n, err := r.Map()
		if err != nil {
			return nil, err
		}
		all, err := many(2 * n)
		return pairs(all), err
	}
	start := r.Pos()
	if err := r.Skip(); err != nil {
		return nil, err
	}
	b := r.buf[start:r.Pos()]
	h, err := ParseHeader(b)
	if h.Kind == Ext { // its type counts as content above
		h.Size--
	}
	return other(b[h.Size:]), err
}

func same(a, b any) bool {
	switch a := a.(type) {
	case list:
		b, ok := b.(list)
		return ok && slices.EqualFunc(a, b, same)
	case pairs:
		b, ok := b.(pairs)
		return ok && slices.EqualFunc(a, b, same)
	}
	return a == b
}

// pack encodes a value that has no others in it.
func pack(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return AppendNil(b)
	case bool:
		return AppendBool(b, v)
	case int64:
		return AppendInt(b, v)
	case string:
		return AppendBytes(b, v)
	case list:
		b = AppendArray(b, len(v))
		for _, e := range v {
			b = pack(b, e)
		}
	case pairs:
		b = AppendMap(b, len(v)/2)
		for _, e := range v {
			b = pack(b, e)
		}
	}
	return b
}

func hasOther(v any) bool {
	switch v := v.(type) {
	case other:
		return true
	case list:
		return slices.ContainsFunc(v, hasOther)
	case pairs:
		return slices.ContainsFunc(v, hasOther)
	}
	return false
}

// frozenPlain gives what a repository without encryption and compression
// stores.
func frozenPlain(tb testing.TB) (objects [][]byte) {
	segments, err := filepath.Glob("../../testdata/comp-none/data/0/*")
	if err != nil || len(segments) == 0 {
		tb.Fatalf("no segments: %v", err)
	}
	const magic, header, typed = 8, 9, 9 + 32 + 1 + 2
	for _, path := range segments {
		b, err := os.ReadFile(path)
		if err != nil {
			tb.Fatal(err)
		}
		for b = b[magic:]; len(b) > header; {
			size := binary.LittleEndian.Uint32(b[4:])
			if b[8] == 0 {
				objects = append(objects, b[typed:size])
			}
			b = b[size:]
		}
	}
	return objects
}

// FuzzReader compares with a slow decoder: both take the same inputs, find the
// same in them, and end at the same place; a value that is skipped in two
// pieces as well. Written again, it is read the same.
func FuzzReader(f *testing.F) {
	for _, b := range frozenPlain(f) {
		f.Add(b, 100)
	}
	f.Add(AppendBytes(AppendMap(nil, 1), "k"), 1)
	f.Add([]byte{0x92, 0xd3, 1, 2, 3, 4, 5, 6, 7, 8, 0xc7, 1, 2, 3}, 5)
	f.Add([]byte{0xca, 0, 0, 0, 0}, 2)
	f.Add([]byte("\xde\x00\x01\xdc\x00\x02\xcc\x80\xd0\x80\xcb12345678"), 7)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		want, rest, ok := slow(in)
		end := len(in) - len(rest)

		var skipped *Reader
		var err error
		if over := heap.Over(0, func() { skipped = NewReader(in); err = skipped.Skip() }); over > 0 {
			t.Errorf("%d bytes on the heap to skip %d", over, len(in))
		}
		if (err == nil) != ok || ok && skipped.Pos() != end {
			t.Fatalf("skipped to %d, %v; %v, slowly to %d", skipped.Pos(), err, ok, end)
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrFormat) {
			t.Fatalf("not one of the package's errors: %v", err)
		}
		if cut < 0 || cut > len(in) {
			cut = len(in) / 2
		}
		var s Skipper
		r := NewReader(in[:cut])
		err2 := s.Skip(r)
		if errors.Is(err2, io.ErrUnexpectedEOF) {
			r.Extend(in)
			err2 = s.Skip(r)
		} else if err2 == nil && end > cut {
			t.Fatalf("a value of %d bytes ends within %d", end, cut)
		}
		if (err2 == nil) != ok || ok && r.Pos() != end {
			t.Fatalf("skipped in two pieces to %d, %v; slowly to %d", r.Pos(), err2, end)
		}

		r = NewReader(in)
		got, err := fast(t, r)
		if (err == nil) != ok {
			t.Fatalf("read: %v; slowly %v", err, ok)
		}
		if !ok {
			return
		}
		if !same(got, want) || r.Pos() != end {
			t.Fatalf("read %#v to %d; slowly %#v to %d", got, r.Pos(), want, end)
		}
		if hasOther(want) {
			return
		}
		packed := pack(nil, want)
		if slices.Contains([]byte{0xc4, 0xc5, 0xc6, 0xd9}, packed[0]) {
			t.Fatal("not the old dialect")
		}
		if again, rest, ok := slow(packed); !ok || len(rest) > 0 || !same(again, want) {
			t.Fatalf("%#v comes back as %#v", want, again)
		}
	})
}
