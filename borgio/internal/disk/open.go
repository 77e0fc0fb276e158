package disk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

var errNotRegular = fmt.Errorf("%w: not a regular file", fault.ErrIntegrity)

// openRegular opens a file of a repository for reading and tells its size. In
// somebody else's repository a pipe may lie where a file should, and to open
// one waits for its writer.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("open %s: %w", path, errNotRegular)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}
