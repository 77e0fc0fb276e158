package disk

import (
	"fmt"
	"os"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// TestMain fails where a test leaves memory behind that no collector frees. It
// is known under the race detector only. As one that is to be killed it is that
// instead.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == writeUntilKilled {
		fmt.Fprintln(os.Stderr, runWriter(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == makeUntilKilled {
		fmt.Fprintln(os.Stderr, runMaker(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	if len(os.Args) == 4 && os.Args[1] == compactUntilKilled {
		fmt.Fprintln(os.Stderr, runCompactor(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	code := m.Run()
	if left := buffer.Outstanding(); left != 0 {
		fmt.Fprintf(os.Stderr, "%d bytes of buffers were never released\n", left)
		code = 1
	}
	os.Exit(code)
}
