package msgpack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"testing"
)

func TestReadBackWhatWasWritten(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 70000)
	ints := []int64{0, 1, 127, 128, 255, 65536, 1<<32 - 1, 1 << 32, math.MaxInt64, -1, -32, -33, -129, math.MinInt64}
	b := AppendMap(nil, 4)
	b = AppendBytes(AppendBytes(b, "long"), long)
	b = AppendArray(AppendBytes(b, "ints"), len(ints))
	for _, v := range ints {
		b = AppendInt(b, v)
	}
	b = AppendNil(AppendBytes(b, "nil"))
	b = AppendBool(AppendBytes(b, "bool"), true)

	r := NewReader(b)
	seen := 0
	err := r.Fields(func(key []byte) error {
		seen++
		switch string(key) {
		case "long":
			v, err := r.Bytes()
			if !bytes.Equal(v, long) {
				t.Error("long bytes differ")
			}
			return err
		case "ints":
			n, err := r.Array()
			for i := range n {
				if v, err := r.Int(); err != nil || v != ints[i] {
					t.Errorf("int %d: got %d, %v, want %d", i, v, err, ints[i])
				}
			}
			return err
		case "nil":
			if !r.Nil() {
				t.Error("nil not seen")
			}
			return nil
		}
		v, err := r.Bool()
		if !v {
			t.Error("true came back false")
		}
		return err
	})
	if err != nil || seen != 4 || r.Len() != 0 {
		t.Fatalf("fields: %v, seen %d, left %d", err, seen, r.Len())
	}
	r.Reset(b)
	if err := r.Skip(); err != nil || r.Len() != 0 {
		t.Fatalf("skip: %v, left %d", err, r.Len())
	}
	for n := range b {
		r.Reset(b[:n])
		if err := r.Skip(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestBothDialectsAreRead(t *testing.T) {
	for _, in := range []string{"a3616263", "d903616263", "c403616263", "c50003616263", "da0003616263", "db00000003616263", "c600000003616263"} {
		raw, _ := hex.DecodeString(in)
		if s, err := NewReader(raw).String(); s != "abc" || err != nil {
			t.Errorf("%s: %q, %v", in, s, err)
		}
	}
	if b := AppendBytes(nil, bytes.Repeat([]byte("y"), 200)); b[0] != 0xda {
		t.Errorf("200 bytes written with %#x, not raw16", b[0])
	}
}

func TestLyingCountsAllocateNothing(t *testing.T) {
	for _, in := range []string{"dfffffffff", "ddffffffff", "dbffffffff00", "c9ffffffff00", "dfffffffffc0c0"} {
		raw, _ := hex.DecodeString(in)
		if err := NewReader(raw).Skip(); err == nil {
			t.Errorf("%s: skipped", in)
		}
		for _, f := range []func(*Reader) error{
			func(r *Reader) error { _, err := r.Map(); return err },
			func(r *Reader) error { _, err := r.Array(); return err },
			func(r *Reader) error { _, err := r.Bytes(); return err },
		} {
			if f(NewReader(raw)) == nil {
				t.Errorf("%s: read", in)
			}
		}
	}
}
