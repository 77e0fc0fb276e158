package worktree

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// maxExtent bounds what is read into memory to be verified. Borg's chunks are
// at most 20 MiB; larger extents are fetched.
const maxExtent = 32 << 20

// sameContent tells whether two regular files of snapshots have the same bytes.
func (p *planner) sameContent(a, b *snapshot.Entry) (bool, error) {
	switch {
	case a.Size != b.Size:
		return false, nil
	case a.Size == 0 || a.Version != 0 && a.Version == b.Version:
		return true, nil
	case p.o.Source == nil:
		return false, nil
	}
	x, err := p.o.Source.Content(p.ctx, *a)
	if err != nil {
		return false, err
	}
	y, err := p.o.Source.Content(p.ctx, *b)
	same, known := snapshot.SameContent(x, y)
	return err == nil && same && known, err
}

// holds tells whether the live file has the content of e.
func (p *planner) holds(l *Live, e *snapshot.Entry) (bool, error) {
	if p.o.Source == nil {
		return l.Size == 0 && e.Size == 0, nil
	}
	return p.root.Holds(p.ctx, p.o.Source, l, e)
}

// Holds tells whether the live file has the content of e, by reading it up to
// the first difference. One that cannot be read has not.
func (r *Root) Holds(ctx context.Context, source Source, l *Live, e *snapshot.Entry) (bool, error) {
	switch {
	case l.Size != e.Size || e.Damaged:
		return false, nil
	case e.Size == 0:
		return true, nil
	}
	extents, err := source.Content(ctx, *e)
	if err != nil {
		return false, err
	}
	f, err := r.OpenFile(l.Path)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	if len(extents) == 0 {
		return holdsBytes(ctx, source, f, e)
	}
	off := int64(0)
	var buf []byte
	for _, x := range extents {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if buf = readExtent(f, off, x, buf); buf == nil || !source.Verify(x.ID, buf) {
			return false, nil
		}
		off += int64(x.Size)
	}
	return off == e.Size, nil
}

// holdsBytes is Holds for content that has no names.
func holdsBytes(ctx context.Context, source Source, f *os.File, e *snapshot.Entry) (same bool, err error) {
	want, err := source.Open(ctx, *e)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, want.Close()) }()
	a, b := make([]byte, min(e.Size, 1<<20)), make([]byte, min(e.Size, 1<<20))
	for off := int64(0); off < e.Size; off += int64(len(a)) {
		n := min(int64(len(a)), e.Size-off)
		a, b = a[:n], b[:n]
		if _, err := io.ReadFull(io.NewSectionReader(f, off, n), a); err != nil {
			return false, nil
		}
		if got, err := want.ReadAtContext(ctx, b, off); int64(got) < n {
			return false, err
		}
		if !bytes.Equal(a, b) {
			return false, nil
		}
	}
	return true, nil
}

// readExtent reads what may be x at off, into buf if it fits; nil when the
// file ends before or cannot be read.
func readExtent(f *os.File, off int64, x snapshot.Extent, buf []byte) []byte {
	if x.Size > maxExtent {
		return nil
	}
	buf = slices.Grow(buf[:0], int(x.Size))[:x.Size]
	if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(x.Size)), buf); err != nil {
		return nil
	}
	return buf
}

// OpenFile opens the regular file at path for reading. It never waits for the
// other end of a fifo.
func (r *Root) OpenFile(path string) (*os.File, error) {
	dir, name, err := r.openParent(path)
	if err != nil {
		return nil, err
	}
	defer closeFD(dir)
	l, err := statAt(dir, name)
	if err != nil {
		return nil, err
	}
	if !isRegular(l.Mode) {
		return nil, unix.EINVAL
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// old notes that the live file at path, which goes away or changes, may hold
// the content of e or parts of it.
func (p *planner) old(path string, e *snapshot.Entry) {
	if e != nil && isRegular(e.Mode) && e.Size > 0 {
		p.oldFiles = append(p.oldFiles, oldFile{path, e})
	}
}

// findReuse finds, for each file to be written, the pieces that local files
// may hold. Whether they do is verified when they are copied.
func (p *planner) findReuse() error {
	if p.o.Source == nil {
		return nil
	}
	for _, old := range p.oldFiles {
		extents, err := p.o.Source.Content(p.ctx, *old.entry)
		if err != nil {
			return err
		}
		off := int64(0)
		for _, x := range extents {
			if _, known := p.pool[x.ID]; !known {
				p.pool[x.ID] = place{path: old.path, offset: off}
			}
			off += int64(x.Size)
		}
	}
	if len(p.pool) == 0 {
		return nil
	}
	for i := range p.Actions {
		a := &p.Actions[i]
		if a.Size() == 0 || !isRegular(a.New.Mode) {
			continue
		}
		extents, err := p.o.Source.Content(p.ctx, *a.New)
		if err != nil {
			return err
		}
		for n, x := range extents {
			if at, ok := p.pool[x.ID]; ok {
				at.index = n
				a.reuse = append(a.reuse, at)
			}
		}
	}
	return nil
}
