package serve

import (
	"context"
	"io"
	"syscall"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

const (
	// heldBytes is how much of large answers may be in their callers' hands
	// at once; the server waits when it has sent more. What a call expects is
	// bounded by the caller: this holds against servers that send more.
	heldBytes = 24 << 20
	// smallFrame is the size in bytes up to which an answer needs no leave.
	smallFrame = 64 << 10
	// stride is how many bytes of an answer show that the server goes on.
	stride = 64 << 10
	// pipeSize lets ssh and this process take turns less often than a pipe's
	// usual 64 KiB do.
	pipeSize = 1 << 20
)

// memory is what all sessions of a client share of it.
type memory struct {
	pool *buffer.Pool
	held *semaphore.Weighted // heldBytes
}

func newMemory(pool *buffer.Pool) *memory {
	return &memory{pool: pool, held: semaphore.NewWeighted(heldBytes)}
}

// admit waits until there is room for one more answer in callers' hands. The
// reference to the frame becomes one to what it gives.
func (m *memory) admit(ctx context.Context, frame *buffer.Buffer) (*buffer.Buffer, error) {
	n := int64(len(frame.Data))
	if n <= smallFrame {
		return frame, nil
	}
	if err := m.held.Acquire(ctx, n); err != nil {
		frame.Release()
		return nil, err
	}
	return buffer.Of(frame.Data, func() {
		frame.Release()
		m.held.Release(n)
	}), nil
}

// meter tells of every stride of bytes that comes.
type meter struct {
	r    io.Reader
	n    int
	note func()
}

// Read is [io.Reader].
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.n += n; m.n >= stride {
		m.n = 0
		m.note()
	}
	return n, err
}

// widen makes a pipe hold more, where the kernel lets us.
func widen(pipe any) {
	if f, ok := pipe.(syscall.Conn); ok {
		if c, err := f.SyscallConn(); err == nil {
			_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
		}
	}
}
