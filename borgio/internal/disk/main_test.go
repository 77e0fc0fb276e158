package disk

import (
	"fmt"
	"os"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// TestMain fails where a test leaves memory behind that no collector frees. It
// is known under the race detector only.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := buffer.Outstanding(); left != 0 {
		fmt.Fprintf(os.Stderr, "%d bytes of buffers were never released\n", left)
		code = 1
	}
	os.Exit(code)
}
