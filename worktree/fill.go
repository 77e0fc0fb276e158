package worktree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/s4-storage/s4/snapshot"
)

// content fills the temporary file f with what x.New holds.
func (a *applier) content(ctx context.Context, f *os.File, x *Action) (err error) {
	if x.New.Size == 0 {
		return nil
	}
	if a.o.Source == nil {
		return errors.New("no source of content")
	}
	src, err := a.o.Source.Open(ctx, *x.New)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	w := &sparseWriter{ctx: ctx, file: f, wrote: a.wrote}
	if len(x.reuse) == 0 {
		_, err = src.WriteTo(w)
		a.add(w.off, 0)
	} else {
		err = a.assemble(ctx, w, src, x)
	}
	if err != nil {
		return err
	}
	if w.off != x.New.Size {
		return fmt.Errorf("content ends after %d of %d bytes: %w", w.off, x.New.Size, snapshot.ErrDamaged)
	}
	if w.end == w.off {
		return nil
	}
	return f.Truncate(w.off) // the end is a hole
}

// assemble writes a file of which local files may hold parts.
func (a *applier) assemble(ctx context.Context, w *sparseWriter, src snapshot.File, x *Action) error {
	extents, err := a.o.Source.Content(ctx, *x.New)
	if err != nil {
		return err
	}
	locals := &localFiles{root: a.root, open: map[string]*os.File{}}
	defer locals.close()
	var buf []byte
	hints, from, off := x.reuse, int64(0), int64(0) // bytes [from,off) are still to be fetched
	for i, e := range extents {
		if len(hints) > 0 && hints[0].index == i {
			hint := hints[0]
			hints = hints[1:]
			if buf = locals.read(hint, e, buf); buf != nil && a.o.Source.Verify(e.ID, buf) {
				if err := a.fetch(ctx, w, src, from, off); err != nil {
					return err
				}
				if _, err := w.Write(buf); err != nil {
					return err
				}
				a.add(0, int64(e.Size))
				from = off + int64(e.Size)
			}
		}
		off += int64(e.Size)
	}
	return a.fetch(ctx, w, src, from, off)
}

// fetch copies [from,to) from the source.
func (a *applier) fetch(ctx context.Context, w *sparseWriter, src snapshot.File, from, to int64) error {
	if from >= to {
		return nil
	}
	buf := make([]byte, min(to-from, 4<<20))
	for from < to {
		part := buf[:min(to-from, int64(len(buf)))]
		n, err := src.ReadAtContext(ctx, part, from)
		if n < len(part) {
			if err == nil {
				err = fmt.Errorf("content ends at byte %d: %w", from+int64(n), snapshot.ErrDamaged)
			}
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
		a.add(int64(n), 0)
		from += int64(n)
	}
	return nil
}

func (a *applier) add(fetched, reused int64) {
	a.mu.Lock()
	a.res.Fetched += fetched
	a.res.Reused += reused
	a.mu.Unlock()
}

func (a *applier) wrote(n int) {
	a.mu.Lock()
	a.progress.Bytes += int64(n)
	a.mu.Unlock()
	a.report(false)
}

// localFiles are the old files that one new file takes bytes from.
type localFiles struct {
	root *Root
	open map[string]*os.File // nil where it cannot be opened
}

// maxLocals bounds the descriptors that one file being written holds.
const maxLocals = 16

func (l *localFiles) read(p place, e snapshot.Extent, buf []byte) []byte {
	f, known := l.open[p.path]
	if !known {
		if len(l.open) >= maxLocals {
			l.close()
		}
		f, _ = l.root.OpenFile(p.path)
		l.open[p.path] = f
	}
	if f == nil {
		return nil
	}
	return readExtent(f, p.offset, e, buf)
}

func (l *localFiles) close() {
	for _, f := range l.open {
		if f != nil {
			f.Close()
		}
	}
	clear(l.open)
}

// sparseWriter writes a file in sequence and leaves holes where whole blocks
// of it are zero. The caller sets the size at the end.
type sparseWriter struct {
	ctx   context.Context
	file  *os.File
	off   int64 // where the next byte belongs
	end   int64 // after the last byte that was written and not left as a hole
	wrote func(n int)
}

const blockSize = 4096

var zeros [blockSize]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	for start, pos := 0, 0; start < len(p); start = pos {
		// A run of blocks that are all zero, or all not.
		hole := false
		for pos < len(p) {
			n := min(blockSize-int((w.off+int64(pos))%blockSize), len(p)-pos)
			zero := bytes.Equal(p[pos:pos+n], zeros[:n])
			if pos > start && zero != hole {
				break
			}
			hole = zero
			pos += n
		}
		if !hole {
			if _, err := w.file.WriteAt(p[start:pos], w.off+int64(start)); err != nil {
				return 0, err
			}
			w.end = w.off + int64(pos)
		}
	}
	w.off += int64(len(p))
	w.wrote(len(p))
	return len(p), nil
}
