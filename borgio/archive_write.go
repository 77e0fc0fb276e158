package borgio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/s4-storage/s4/borgio/internal/chunker"
)

// ArchiveWriter makes one archive. It belongs to one goroutine.
type ArchiveWriter struct {
	t        *Transaction
	info     ArchiveInfo
	sections []OutlineSection // done
	open     OutlineSection   // the one that the next item may become part of
	plain    []byte           // of open, unless it is a section that was there before:
	there    bool             // then its objects are, and it is read only when it must be
	last     string           // path of the last item; of a section that was reused, the first
	packed   []byte           // memory for an item
	err      error
}

// NewArchive begins an archive. Nothing comes of it unless it is finished.
func (t *Transaction) NewArchive(info ArchiveInfo) *ArchiveWriter {
	if info.Time.IsZero() {
		info.Time = time.Now()
	}
	info.Time = info.Time.UTC().Truncate(time.Microsecond)
	w := &ArchiveWriter{t: t, info: info}
	t.mu.Lock()
	w.err = t.checkName(info.Name)
	t.mu.Unlock()
	return w
}

// Rename gives the archive another name than it began with.
func (w *ArchiveWriter) Rename(name string) { w.info.Name = name }

// Add adds an item. Items come in the order of [ComparePaths], each path once.
// A hard link's Source is the path of an item that is in the archive before it.
// The item's chunks are what AddFile or UpdateFile gave in this transaction, or
// those of an archive that the manifest lists. Size is their sum.
func (w *ArchiveWriter) Add(ctx context.Context, it *Item) error {
	sum := totalsOf(it)
	switch {
	case !safePath(it.Path):
		return fmt.Errorf("add item: %q is not a path that an item can have", it.Path)
	case it.hasContent() && it.Size != sum.size:
		return fmt.Errorf("add item %q: its chunks have %d bytes, and it %d", it.Path, sum.size, it.Size)
	}
	w.packed = AppendItem(w.packed[:0], it)
	return w.write(ctx, it.Path, w.packed, sum)
}

// write adds an item as it is packed.
func (w *ArchiveWriter) write(ctx context.Context, path string, packed []byte, sum totals) error {
	switch {
	case w.err != nil:
		return w.err
	case w.open.Items > 0 && ComparePaths(w.last, path) >= 0:
		return fmt.Errorf("add item: %q comes behind %q", path, w.last)
	case len(packed) > maxItemSize:
		return fmt.Errorf("add item %q: %d bytes are too much for one", path, len(packed))
	}
	if w.open.endsBefore(path, len(packed)) {
		if err := w.cut(ctx); err != nil {
			return err
		}
	} else if w.there { // it goes on in a section that was to be left as it is
		items, err := w.t.sections.get(ctx, &w.open)
		if err != nil {
			return w.fail(err)
		}
		w.plain = append(w.plain[:0], items.plain...)
	}
	w.there, w.open.Objects = false, nil
	w.plain = append(w.plain, packed...)
	w.open.add(path, len(packed), sum)
	w.last = path
	return nil
}

// Reuse adds a whole section of an earlier archive. It is not read, unless what
// is around it makes the cuts others than they were there.
func (w *ArchiveWriter) Reuse(ctx context.Context, s *OutlineSection) error {
	switch {
	case w.err != nil:
		return w.err
	case w.open.Items > 0 && ComparePaths(w.last, s.First) >= 0:
		return fmt.Errorf("reuse section: %q comes behind %q", s.First, w.last)
	}
	if !w.open.endsBefore(s.First, s.FirstSize) {
		items, err := w.t.sections.get(ctx, s)
		if err != nil {
			return w.fail(err)
		}
		for i := range items.items {
			it := &items.items[i]
			if err := w.write(ctx, it.path, it.packed, it.sum); err != nil {
				return err
			}
		}
		return nil
	}
	if err := w.cut(ctx); err != nil {
		return err
	}
	w.open, w.there, w.last = *s, true, s.First
	return nil
}

// cut ends the open section.
func (w *ArchiveWriter) cut(ctx context.Context) error {
	if w.open.Items == 0 {
		return nil
	}
	if !w.there {
		if err := w.storeSection(ctx); err != nil {
			return w.fail(err)
		}
	}
	w.sections = append(w.sections, w.open)
	w.open, w.plain, w.there = OutlineSection{}, w.plain[:0], false
	return nil
}

func (w *ArchiveWriter) storeSection(ctx context.Context) error {
	if len(w.plain) <= maxSection {
		c, err := w.t.storeMetadata(ctx, w.plain)
		w.open.Objects = []ID{c.ID}
		return err
	}
	// By content, so that a change within the item leaves most of it as it is.
	c := chunker.New(w.t.items)
	c.Reset(bytes.NewReader(w.plain))
	for {
		piece, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		chunk, err := w.t.storeMetadata(ctx, piece)
		if err != nil {
			return err
		}
		w.open.Objects = append(w.open.Objects, chunk.ID)
	}
}

func (w *ArchiveWriter) fail(err error) error {
	w.err = fmt.Errorf("write archive %s: %w", w.info.Name, err)
	return w.err
}

// Finish stores the archive, and names it in the manifest that Commit writes.
// The Outline is for further archives. When the name is taken, the error is
// [fs.ErrExist].
func (w *ArchiveWriter) Finish(ctx context.Context) (ArchiveRef, *Outline, error) {
	if w.err != nil {
		return ArchiveRef{}, nil, w.err
	}
	if err := w.cut(ctx); err != nil {
		return ArchiveRef{}, nil, err
	}
	if w.info.TimeEnd.IsZero() {
		w.info.TimeEnd = time.Now()
	}
	o := &Outline{Sections: w.sections}
	packed, err := w.info.pack(w.t.repo.key, o.objects(), o.total())
	if err != nil {
		return ArchiveRef{}, nil, w.fail(err)
	}
	c, err := w.t.storeMetadata(ctx, packed)
	if err != nil {
		return ArchiveRef{}, nil, w.fail(err)
	}
	o.Archive = c.ID
	ref := ArchiveRef{Name: w.info.Name, ID: c.ID, Time: w.info.Time}
	if err := w.t.addArchive(ref); err != nil {
		return ArchiveRef{}, nil, w.fail(err)
	}
	w.err = fmt.Errorf("archive %s is finished: %w", w.info.Name, ErrClosed)
	return ref, o, nil
}
