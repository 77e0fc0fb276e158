package borgio_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// TestMain fails where a test leaves memory behind that no collector frees:
// every repository was closed and every stream has ended. It is known under
// the race detector only. As a stand-in for ssh it is a server instead.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakeServer {
		os.Exit(runFakeServer(os.Args[1:]))
	}
	code := m.Run()
	if left := buffer.Outstanding(); left != 0 {
		fmt.Fprintf(os.Stderr, "%d bytes of buffers were never released\n", left)
		code = 1
	}
	os.Exit(code)
}
