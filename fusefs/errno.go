package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/s4-storage/s4/snapshot"
)

// errnoOf says what a program that made the call is told. A bare errno, as
// system calls on the live tree give it, is passed on; an error of the history
// that carries one deeper down (a refused connection, say) is not the
// caller's, and becomes EIO like everything else unknown.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // only a bare one
		return errno
	}
	switch {
	case errors.Is(err, snapshot.ErrDamaged), errors.Is(err, snapshot.ErrUnreachable):
		// What lacks an object is there all the same, though the error may say
		// of the object that it does not exist.
		return syscall.EIO
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	case errors.Is(err, errIDRange):
		return syscall.EOVERFLOW
	default:
		return syscall.EIO
	}
}

func statusOf(err error) fuse.Status { return fuse.Status(errnoOf(err)) }
