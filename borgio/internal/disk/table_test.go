package disk

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// TestTable compares with a map, through growth and tombstones.
func TestTable(t *testing.T) {
	for name, removing := range map[string]bool{"growing": false, "removing": true} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 1))
			size := 0
			if removing {
				size = 6000 // each change may take an empty bucket
			}
			table, err := newTable(bucketsFor(size))
			if err != nil {
				t.Fatal(err)
			}
			defer table.free()
			table.clear()
			want := map[[32]byte]place{}
			for range 6000 {
				var id [32]byte
				id[0], id[1], id[9] = byte(random.IntN(3)), byte(random.IntN(100)), byte(random.IntN(3)) // they collide
				if removing {
					if random.IntN(3) == 0 {
						table.remove(id)
						delete(want, id)
						continue
					}
				} else {
					id[8] = byte(random.IntN(100))
					if err := table.grow(); err != nil {
						t.Fatal(err)
					}
				}
				p := place{random.Uint32N(1000), random.Uint32()}
				table.set(id, p)
				want[id] = p
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
		})
	}
}
