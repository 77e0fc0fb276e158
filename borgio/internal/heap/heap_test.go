package heap

import "testing"

var sink []byte

func TestOver(t *testing.T) {
	take := func() { sink = make([]byte, 8<<20) }
	if n := Over(8<<20, take); n != 0 {
		t.Errorf("%d bytes over what was asked for", n)
	}
	if n := Over(4<<20, take); n < 3<<20 {
		t.Errorf("%d bytes over half of it", n)
	}
}

func BenchmarkOver(b *testing.B) {
	for b.Loop() {
		Over(0, func() {})
	}
}
