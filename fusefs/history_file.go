package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// historyFile is a regular file of a snapshot that is being read.
type historyFile struct {
	id    uint64
	num   int64
	entry snapshot.Entry
	log   *slog.Logger
	users int // reads under way, and one more while it is among the recent files; guarded by them

	opening chan struct{} // holds a token while the content is opened
	content atomic.Pointer[snapshot.File]
	warned  atomic.Bool
}

// Open is answered from the index alone; content is opened at the first read.
func (f *historyFS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.unopened {
		return fuse.ENOSYS // don't ask again: whatever there is may be read, as its mode says
	}
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY || in.Flags&unix.O_TRUNC != 0 {
		return fuse.EROFS
	}
	n, err := f.node(request(&in.InHeader, cancel), in.NodeId)
	if err != nil {
		return f.fail("open", in.NodeId, err)
	}
	if n.entry.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fuse.EINVAL
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (*historyFS) Release(<-chan struct{}, *fuse.ReleaseIn) {}

// file gives the regular file with a node id, to be left to recent.
func (f *historyFS) file(ctx context.Context, id uint64) (*historyFile, error) {
	if h, ok := f.recent.take(id); ok {
		return h, nil
	}
	n, err := f.node(ctx, id)
	if err != nil {
		return nil, err
	}
	if n.entry.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, syscall.EINVAL
	}
	return f.recent.add(&historyFile{id: id, num: n.num, entry: n.entry, log: f.log, opening: make(chan struct{}, 1)}), nil
}

func (h *historyFile) close() {
	file := h.content.Load()
	if file == nil {
		return
	}
	if err := (*file).Close(); err != nil {
		h.log.Warn("history: close", "snapshot", h.num, "name", h.entry.Name, "err", err)
	}
}

var errTooSlow = errors.New("content did not arrive in time")

func (f *historyFS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, err := f.file(request(&in.InHeader, cancel), in.NodeId)
	if err != nil {
		return nil, f.fail("read", in.NodeId, err)
	}
	defer f.recent.leave(h)
	off := int64(in.Offset)
	if off >= h.entry.Size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:min(int64(len(buf)), h.entry.Size-off)]
	ctx := &limited{Context: request(&in.InHeader, cancel), deadline: time.Now().Add(f.timeout)}
	defer ctx.stop()
	data, err := h.read(ctx, f.history, buf, off)
	if err == nil {
		h.warned.Store(false)
		return data, fuse.OK
	}
	select {
	case <-cancel:
		return nil, fuse.EINTR
	default:
	}
	if errors.Is(context.Cause(ctx), errTooSlow) {
		err = fmt.Errorf("%w (%s): %w", errTooSlow, f.timeout, err)
	}
	// One line for a file is enough; a file manager tries it a hundred times.
	if !h.warned.Swap(true) {
		f.log.Warn("history: read", "snapshot", f.dirOf(ctx, h.num), "name", h.entry.Name,
			"version", h.entry.Version, "offset", off, "err", err)
	}
	return nil, fuse.EIO
}

// lent is an answer that lies in somebody else's memory. go-fuse writes it to
// the kernel from there.
type lent struct {
	snapshot.View
	size int
}

func (l *lent) Size() int                          { return l.size }
func (l *lent) Done()                              { l.Release() }
func (l *lent) Slices() ([][]byte, fuse.Status)    { return l.Parts, fuse.OK }
func (l *lent) Bytes([]byte) ([]byte, fuse.Status) { return slices.Concat(l.Parts...), fuse.OK }

// read gives as many bytes as buf, which lies within the file, has room for.
func (h *historyFile) read(ctx context.Context, src History, buf []byte, off int64) (fuse.ReadResult, error) {
	file, err := h.open(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	if v, ok := file.(snapshot.Viewer); ok {
		view, err := v.View(ctx, off, len(buf))
		if err == nil {
			return &lent{view, len(buf)}, nil
		}
		return nil, readError(err)
	}
	if n, err := file.ReadAtContext(ctx, buf, off); n < len(buf) {
		return nil, readError(err)
	}
	return fuse.ReadResultVector([][]byte{buf}), nil
}

// readError is why not all was read. A short answer would look like the file's
// end.
func readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read content: %w", err)
}

// open opens the content if that has not been done. One that could not be
// opened is tried again by the next read.
func (h *historyFile) open(ctx context.Context, src History) (snapshot.File, error) {
	if file := h.content.Load(); file != nil {
		return *file, nil
	}
	select {
	case h.opening <- struct{}{}:
	default:
		select {
		case h.opening <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-h.opening }()
	if file := h.content.Load(); file != nil {
		return *file, nil
	}
	file, err := src.Open(ctx, h.num, h.entry)
	if errors.Is(err, fs.ErrNotExist) { // an outdated version number, perhaps
		var e snapshot.Entry
		if e, err = src.Stat(ctx, h.num, h.entry.Version); err == nil {
			file, err = src.Open(ctx, h.num, e)
		}
	}
	if err != nil {
		return nil, err
	}
	h.content.Store(&file)
	return file, nil
}

// dirOf names a snapshot for the log.
func (f *historyFS) dirOf(ctx context.Context, num int64) string {
	if m, err := f.line.get(context.WithoutCancel(ctx)); err == nil {
		if info, ok := m.num(num); ok {
			return info.Dir
		}
	}
	return fmt.Sprintf("number %d: %v", num, fs.ErrNotExist)
}

func (f *historyFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	if f.unopened {
		return fuse.ENOSYS // nor this
	}
	return fuse.OK
}

func (*historyFS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }
