package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// pathOpener is a source that has files under their paths.
type pathOpener interface {
	// OpenPath opens the regular file at path in the snapshot, which must
	// have the size and the mtime of e.
	OpenPath(ctx context.Context, info snapshot.Info, path string, e snapshot.Entry) (snapshot.File, error)
}

func opensByPath(s snapshot.Source) bool {
	_, ok := s.(pathOpener)
	return ok
}

// OpenPath opens the regular file at path. One that has not the size and mtime
// of e is fs.ErrNotExist.
func (s *BtrfsSource) OpenPath(_ context.Context, info snapshot.Info, path string, e snapshot.Entry) (snapshot.File, error) {
	f := &btrfsFile{source: s, info: info, path: path, entry: e}
	if _, err := f.acquire(); err != nil {
		return nil, err
	}
	f.release()
	return f, nil
}

// btrfsFile is a file in a btrfs snapshot. It is closed while nobody reads, and
// opened again: a file that is open keeps the space of a whole subvolume that was
// deleted meanwhile, and mounts keep many files for long.
type btrfsFile struct {
	source *BtrfsSource
	info   snapshot.Info
	path   string
	entry  snapshot.Entry // as it is on the time line

	mu     sync.Mutex
	file   *os.File // nil while it is closed
	users  int      // of file
	used   uint64   // how often file was asked for
	idle   *time.Timer
	closed bool
}

var (
	_ snapshot.File   = (*btrfsFile)(nil)
	_ snapshot.Seeker = (*btrfsFile)(nil)
)

const copyBlock = 1 << 20

// acquire gives the open file; release must follow.
func (f *btrfsFile) acquire() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fs.ErrClosed
	}
	if f.file == nil { // under the lock: it takes no longer than the read that waits for it
		var err error
		if f.file, err = f.open(); err != nil {
			return nil, err
		}
	}
	f.users++
	f.used++
	return f.file, nil
}

func (f *btrfsFile) open() (*os.File, error) {
	root, err := f.source.root(f.info)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.OpenFile(f.path)
	if err != nil {
		return nil, f.source.explain(f.info, &fs.PathError{Op: "open", Path: f.path, Err: err})
	}
	var st unix.Stat_t
	err = unix.Fstat(int(file.Fd()), &st)
	if err == nil && (st.Mode&modeType != modeRegular || st.Size != f.entry.Size || !snapshot.SameTime(st.Mtim.Nano(), f.entry.Mtime)) {
		err = fmt.Errorf("it is another file: %w", fs.ErrNotExist)
	}
	if err != nil {
		file.Close()
		return nil, f.source.explain(f.info, &fs.PathError{Op: "open", Path: f.path, Err: err})
	}
	return file, nil
}

func (f *btrfsFile) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.users--; {
	case f.users > 0:
	case f.closed:
		f.shut()
	case f.idle == nil:
		f.rest()
	}
}

// rest closes the file once it was not asked for during a while. It needs mu
// held.
func (f *btrfsFile) rest() {
	used := f.used
	f.idle = time.AfterFunc(f.source.idle, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.idle = nil
		switch {
		case f.users > 0 || f.file == nil:
		case f.used == used:
			f.shut()
		default:
			f.rest()
		}
	})
}

// shut needs mu held.
func (f *btrfsFile) shut() {
	if f.idle != nil {
		f.idle.Stop()
		f.idle = nil
	}
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// Close implements [io.Closer]. Reads under way come to their end.
func (f *btrfsFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.users == 0 {
		f.shut()
	}
	return nil
}

// Size implements [snapshot.File].
func (f *btrfsFile) Size() int64 { return f.entry.Size }

// ReadAtContext implements [snapshot.File].
func (f *btrfsFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	file, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer f.release()
	n, err := file.ReadAt(p, off)
	return n, f.readError(err)
}

func (f *btrfsFile) readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return f.source.explain(f.info, err)
}

// WriteTo implements [io.WriterTo].
func (f *btrfsFile) WriteTo(w io.Writer) (written int64, err error) {
	file, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer f.release()
	buf := make([]byte, min(copyBlock, max(1, f.entry.Size)))
	for written < f.entry.Size {
		n, err := file.ReadAt(buf[:min(int64(len(buf)), f.entry.Size-written)], written)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("content ends after %d of %d bytes: %w", written, f.entry.Size, snapshot.ErrDamaged)
			}
			return written, f.readError(err)
		}
		m, err := w.Write(buf[:n])
		written += int64(m)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Seek implements [snapshot.Seeker].
func (f *btrfsFile) Seek(_ context.Context, off int64, hole bool) (int64, error) {
	file, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer f.release()
	whence := unix.SEEK_DATA
	if hole {
		whence = unix.SEEK_HOLE
	}
	return unix.Seek(int(file.Fd()), off, whence) // nobody else uses the offset that this sets
}
