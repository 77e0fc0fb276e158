package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

// metadata makes the item for a path, without content.
func (m *Maker) metadata(c *Changed) (*borgio.Item, error) {
	if c.Live.Xattrs == nil {
		var err error
		if c.Live.Xattrs, err = m.Root.AllXattrs(c.Live.Path); err != nil {
			return nil, &readError{err}
		}
	}
	it, err := m.itemOf(c.Live)
	if err != nil {
		return nil, &readError{err}
	}
	it.HardlinkMaster = linked(c.Live)
	return it, nil
}

// content makes the item for a path, and stores its content.
func (m *Maker) content(ctx context.Context, j *job, base *borgio.Outline) (*borgio.Item, error) {
	c := &j.Changed
	it, err := m.metadata(c)
	if err != nil || !isRegular(c.Live.Mode) || c.Live.Size == 0 && !m.Moving {
		return it, err
	}
	var old []borgio.Chunk
	if c.From != "" {
		if old, err = m.baseChunks(ctx, base, c); err != nil {
			return nil, err
		}
	}
	if old != nil && len(c.Extents) == 0 && total(old) == c.Live.Size {
		it.Chunks, it.Size = old, c.Live.Size
		return it, nil
	}
	f, err := m.Root.OpenFile(c.Live.Path)
	if err != nil {
		return nil, &readError{err}
	}
	defer f.Close()
	src := &source{f: f}
	if old != nil && len(c.Extents) > 0 {
		it.Chunks, err = m.Tx.UpdateFile(ctx, old, src, c.Live.Size, c.Extents)
	} else {
		it.Chunks, err = m.Tx.AddFile(ctx, src)
	}
	if err != nil {
		if src.err != nil { // the file's fault and not the repository's
			err = &readError{src.err}
		}
		return nil, err
	}
	it.Size = total(it.Chunks)
	j.changing = m.Moving && changedMeanwhile(f, c)
	return it, nil
}

// baseChunks gives the content that c.From has in the base; nil where it has
// none, or another file's: what only moved has the time that it had.
func (m *Maker) baseChunks(ctx context.Context, base *borgio.Outline, c *Changed) ([]borgio.Chunk, error) {
	it, err := m.Tx.BaseItem(ctx, base, c.From)
	if err == nil && c.From != c.Path && len(c.Extents) == 0 && it.Mtime != c.Live.Mtime {
		return nil, nil
	}
	if err == nil && isRegular(it.Mode) && it.Source != "" {
		it, err = m.Tx.BaseItem(ctx, base, it.Source)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && (!isRegular(it.Mode) || it.Damaged):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look at what is archived: %w", err)
	}
	return it.Chunks, nil
}

func total(chunks []borgio.Chunk) (n int64) {
	for _, c := range chunks {
		n += int64(c.Size)
	}
	return n
}

// changedMeanwhile tells whether a file is not any more what it was when it was
// looked at.
func changedMeanwhile(f *os.File, c *Changed) bool {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return err != nil || st.Size != c.Live.Size || st.Mtim.Nano() != c.Live.Mtime
}

// source reads a file and remembers its error.
type source struct {
	f   *os.File
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.f.Read(p)
	return n, s.note(err)
}

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.f.ReadAt(p, off)
	return n, s.note(err)
}

func (s *source) note(err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return err
}
