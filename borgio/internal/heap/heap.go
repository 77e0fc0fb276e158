// Package heap measures for tests how much memory a function asks for. The
// parsers of this module state a bound on that for any input, and their tests
// hold them to it.
package heap

import (
	"runtime"
	"runtime/metrics"
)

// slack is what other goroutines and the runtime may take meanwhile.
const slack = 128 << 10

// Over runs fn and gives by how many bytes its allocations on the Go heap,
// those already freed included, are over the bound; 0 when they keep to it.
//
// Looking exactly stops the world, which would make fuzzing many times slower.
// So the first look only adds up whole spans, which may have been filled long
// before, and fn is run once more when that is too much.
func Over(bound int, fn func()) int {
	spans := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	if grown(spans, fn) <= bound+slack {
		return 0
	}
	exact := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	return max(grown(exact, fn)-bound-slack, 0)
}

func grown(allocated func() uint64, fn func()) int {
	before := allocated()
	fn()
	return int(allocated() - before)
}
