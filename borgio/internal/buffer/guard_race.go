//go:build race

package buffer

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// outstanding is the only thing that all pools of a process share, and there
// in tests alone.
var outstanding atomic.Int64

func account(n int) { outstanding.Add(int64(n)) }

// Outstanding is how many bytes of mapped and foreign memory were not given
// back, by all pools: 0 once all of them are closed and nobody reads.
func Outstanding() int64 { return outstanding.Load() }

// seal makes each use of idle memory a fault.
func seal(m memory) { protect(m, unix.PROT_NONE) }

// unseal undoes seal.
func unseal(m memory) { protect(m, unix.PROT_READ|unix.PROT_WRITE) }

func protect(m memory, how int) {
	if !m.mapped {
		return
	}
	if err := unix.Mprotect(m.bytes, how); err != nil {
		panic("buffer: protect: " + err.Error())
	}
}
