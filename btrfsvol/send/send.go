package send

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options are those of the kernel's send.
type Options struct {
	Parent  uint64 // the id of the read-only subvolume to compare with; 0 sends everything
	NoData  bool   // tell the extents that changed (UpdateExtent) and not their content
	Version uint32 // of the stream; 0 is 1
}

// sendArgs is struct btrfs_ioctl_send_args.
type sendArgs struct {
	FD           int64
	SourcesCount uint64
	Sources      uintptr
	ParentRoot   uint64
	Flags        uint64
	Version      uint32
	_            [28]byte
}

const (
	iocSend = 1<<30 | 72<<16 | 0x94<<8 | 38

	flagNoData  = 0x1
	flagVersion = 0x8
)

// Run sends a read-only subvolume, given by its open root directory, and calls
// each for each command of the stream; what it gets is valid until it returns.
// It needs CAP_SYS_ADMIN. Run ends with each's first error, or as soon as ctx
// is done. Nothing of the kernel's work is left over when it returns.
func Run(ctx context.Context, subvolume *os.File, o Options, each func(*Command) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	// The kernel must wait at its end; the reader's must not, so that closing it
	// wakes the reader up.
	nonblock := unix.SetNonblock(fds[0], true)
	r, w := os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
	if nonblock != nil {
		return errors.Join(nonblock, r.Close(), w.Close())
	}
	args := sendArgs{FD: int64(fds[1]), ParentRoot: o.Parent}
	if o.NoData {
		args.Flags |= flagNoData
	}
	if o.Version > 1 {
		args.Flags |= flagVersion
		args.Version = o.Version
	}
	sent := make(chan error, 1)
	go func() {
		err := sendTo(subvolume, &args)
		w.Close()
		sent <- err
	}()
	// Without a reader the kernel's next write fails.
	stop := context.AfterFunc(ctx, func() { r.Close() })
	err := readAll(r, each)
	stop()
	r.Close()
	kernel := <-sent
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case kernel != nil && !errors.Is(kernel, unix.EPIPE):
		return fmt.Errorf("send: %w", kernel) // what was read is only its consequence
	}
	return err
}

// sendTo runs one send. A signal would make the kernel begin it again in the
// middle of the stream, so this thread gets none.
func sendTo(subvolume *os.File, args *sendArgs) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	// But for 32 and 33, which the C library needs for its own threads.
	bits := 8 * int(unsafe.Sizeof(all.Val[0]))
	for _, signal := range []int{32, 33} {
		all.Val[(signal-1)/bits] &^= 1 << ((signal - 1) % bits)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, subvolume.Fd(), iocSend, uintptr(unsafe.Pointer(args)))
	runtime.KeepAlive(subvolume)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

func readAll(r io.Reader, each func(*Command) error) error {
	stream := NewReader(r)
	for {
		cmd, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(cmd); err != nil {
			return err
		}
	}
}
