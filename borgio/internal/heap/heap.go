// Package heap measures for tests how much memory a function asks for. The
// parsers of this module state a bound on that for any input, and their tests
// hold them to it.
package heap

import "runtime/metrics"

// slack is what other goroutines and the runtime may take meanwhile, and what
// the allocator has not counted yet: it does so by whole spans.
const slack = 256 << 10

// allocated is the sum of all allocations of the process so far, in bytes.
// Unlike [runtime.ReadMemStats] this does not stop the world, which would make
// fuzzing many times slower.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Over runs fn and gives by how many bytes its allocations on the Go heap,
// those already freed included, are over the bound; 0 when they keep to it.
func Over(bound int, fn func()) int {
	before := allocated()
	fn()
	return max(int(allocated()-before)-bound-slack, 0)
}
