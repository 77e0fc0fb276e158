package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

func TestErrnoOf(t *testing.T) {
	gone := fmt.Errorf("object: %w", fs.ErrNotExist)
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{syscall.ELOOP, syscall.ELOOP},
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), syscall.EIO},
		{gone, syscall.ENOENT},
		{fmt.Errorf("read: %w", errors.Join(gone, snapshot.ErrDamaged)), syscall.EIO},
		{fmt.Errorf("read: %w", errors.Join(gone, snapshot.ErrUnreachable)), syscall.EIO},
		{fmt.Errorf("look up: %w", context.Canceled), syscall.EINTR},
		{fmt.Errorf("open: %w", fs.ErrPermission), syscall.EACCES},
		{errIDRange, syscall.EOVERFLOW},
		{errors.New("anything"), syscall.EIO},
	} {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
