package diff

import "bytes"

// maxCost bounds the search for the shortest way from one text to another.
// Beyond it a way is taken that need not be the shortest.
const maxCost = 512

// lines cuts text after each line break.
func lines(text []byte) [][]byte {
	var out [][]byte
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		out = append(out, text[:n])
		text = text[n:]
	}
	return out
}

// compare tells which lines of a go and which of b come. It is Myers' O(ND)
// algorithm in linear space ("An O(ND) Difference Algorithm and Its
// Variations", 1986), with a bound on D.
func compare(a, b [][]byte) (goes, comes []bool) {
	d := differ{goes: make([]bool, len(a)), comes: make([]bool, len(b))}
	ids := map[string]int32{}
	number := func(lines [][]byte) []int32 {
		out := make([]int32, len(lines))
		for i, l := range lines {
			id, ok := ids[string(l)]
			if !ok {
				id = int32(len(ids))
				ids[string(l)] = id
			}
			out[i] = id
		}
		return out
	}
	d.a, d.b = number(a), number(b)
	d.compare(0, len(a), 0, len(b))
	return d.goes, d.comes
}

type differ struct {
	a, b        []int32
	goes, comes []bool
	front, back frontier
}

// compare marks what differs between a[a0:a1] and b[b0:b1].
func (d *differ) compare(a0, a1, b0, b1 int) {
	for {
		for a0 < a1 && b0 < b1 && d.a[a0] == d.b[b0] {
			a0++
			b0++
		}
		for a0 < a1 && b0 < b1 && d.a[a1-1] == d.b[b1-1] {
			a1--
			b1--
		}
		if a0 == a1 || b0 == b1 {
			break
		}
		x, y := d.middle(a0, a1, b0, b1)
		if x == a0 && y == b0 || x == a1 && y == b1 {
			break
		}
		d.compare(a0, x, b0, y)
		a0, b0 = x, y
	}
	for i := a0; i < a1; i++ {
		d.goes[i] = true
	}
	for i := b0; i < b1; i++ {
		d.comes[i] = true
	}
}

// frontier holds how far into a each diagonal has come; a diagonal is the
// position in a less that in b.
type frontier struct {
	at   []int
	zero int
	// lo and hi are the outermost diagonals still inside both texts.
	lo, hi int
}

func (f *frontier) reset(n, m, cost int) {
	f.zero = cost + 1
	if len(f.at) < 2*cost+3 {
		f.at = make([]int, 2*cost+3)
	}
	for i := range f.at {
		f.at[i] = -1
	}
	f.at[f.zero+1] = 0
	f.lo, f.hi = -m, n
}

// step goes one edit further on every diagonal and calls met for each place
// reached, until that says true.
func (f *frontier) step(cost, n, m int, equal func(x, y int) bool, met func(diagonal, x int) bool) bool {
	for k := -cost; k <= cost; k += 2 {
		if k < f.lo || k > f.hi {
			continue
		}
		var x int
		if k == -cost || k != cost && f.at[f.zero+k-1] < f.at[f.zero+k+1] {
			x = f.at[f.zero+k+1]
		} else {
			x = f.at[f.zero+k-1] + 1
		}
		if x < 0 || x > n || x-k > m || x-k < 0 {
			f.at[f.zero+k] = -1
			continue
		}
		for x < n && x-k < m && equal(x, x-k) {
			x++
		}
		f.at[f.zero+k] = x
		if met(k, x) {
			return true
		}
	}
	return false
}

// middle finds a place on a short way from (a0,b0) to (a1,b1), going from both
// ends at once.
func (d *differ) middle(a0, a1, b0, b1 int) (int, int) {
	n, m := a1-a0, b1-b0
	delta := n - m
	most := min((n+m+1)/2, maxCost)
	d.front.reset(n, m, most)
	d.back.reset(n, m, most)
	meetX, meetY := 0, 0
	for cost := 0; cost <= most; cost++ {
		if d.front.step(cost, n, m, func(x, y int) bool { return d.a[a0+x] == d.b[b0+y] }, func(k, x int) bool {
			other := delta - k
			if delta%2 == 0 || other < -(cost-1) || other > cost-1 {
				return false
			}
			far := d.back.at[d.back.zero+other]
			meetX, meetY = a0+x, b0+x-k
			return far >= 0 && x+far >= n
		}) {
			return meetX, meetY
		}
		if d.back.step(cost, n, m, func(x, y int) bool { return d.a[a1-1-x] == d.b[b1-1-y] }, func(k, x int) bool {
			other := delta - k
			if delta%2 != 0 || other < -cost || other > cost {
				return false
			}
			far := d.front.at[d.front.zero+other]
			meetX, meetY = a1-x, b1-(x-k)
			return far >= 0 && x+far >= n
		}) {
			return meetX, meetY
		}
	}
	// Too far apart: what came furthest is a place on some way.
	bestX, bestY := 0, 0
	for k := -most; k <= most; k++ {
		if x := d.front.at[d.front.zero+k]; x >= 0 && x+x-k > bestX+bestY {
			bestX, bestY = x, x-k
		}
	}
	return a0 + bestX, b0 + bestY
}
