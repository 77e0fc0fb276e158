package borgio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/s4-storage/s4/borgio/internal/chunker"
)

// AddFile stores the content that src gives, and tells the chunks of which it is
// made. What the repository has already is not stored again. It works on several
// chunks of a large file at once, in bounded memory; to do many small files at
// once, call it from several goroutines.
func (t *Transaction) AddFile(ctx context.Context, src io.Reader) ([]Chunk, error) {
	c := t.takeChunker()
	defer t.giveChunker(c)
	c.Reset(contextReader{ctx, src})
	w := t.newFileWriter(ctx)
	err := w.addAll(c)
	chunks, err := w.finish(err)
	if err != nil {
		return nil, fmt.Errorf("add file: %w", err)
	}
	return chunks, nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	src io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}

// fileWriter stores the chunks of one file.
type fileWriter struct {
	t      *Transaction
	group  *errgroup.Group // of the chunks under way
	ctx    context.Context
	chunks []Chunk
	late   []lateChunk // of those whose turn was another goroutine's
	size   int64       // of all
}

type lateChunk struct {
	at    int // in chunks
	chunk *Chunk
}

func (t *Transaction) newFileWriter(ctx context.Context) *fileWriter {
	return &fileWriter{t: t, ctx: ctx}
}

// addAll stores what is left of a stream.
func (w *fileWriter) addAll(c *chunker.Chunker) error {
	for {
		plain, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = w.add(plain, c.Ended())
		}
		if err != nil {
			return err
		}
	}
}

// add stores a chunk. The last one, which most files' first is, is stored here
// and now; that costs less than to pass it on.
func (w *fileWriter) add(plain []byte, last bool) error {
	w.size += int64(len(plain))
	if last {
		chunk, err := w.t.store(w.ctx, plain)
		w.chunks = append(w.chunks, chunk)
		return err
	}
	if w.group == nil {
		w.group, w.ctx = errgroup.WithContext(w.ctx)
	}
	weight := min(2*int64(len(plain)), writeBytes) // with its object
	if err := w.t.memory.Acquire(w.ctx, weight); err != nil {
		return err
	}
	b := w.t.repo.pool.Get(len(plain))
	copy(b.Data, plain)
	chunk := &Chunk{}
	w.late = append(w.late, lateChunk{len(w.chunks), chunk})
	w.chunks = append(w.chunks, Chunk{})
	w.group.Go(func() (err error) {
		defer w.t.memory.Release(weight)
		defer b.Release()
		*chunk, err = w.t.store(w.ctx, b.Data)
		return err
	})
	return nil
}

// keep makes a chunk that is there already the next one.
func (w *fileWriter) keep(c Chunk) {
	w.chunks = append(w.chunks, c)
	w.size += int64(c.Size)
}

// finish waits for what is under way. err is what happened on the way.
func (w *fileWriter) finish(err error) ([]Chunk, error) {
	if w.group != nil {
		// What a chunk met with is why the rest was given up.
		if failed := w.group.Wait(); failed != nil {
			err = failed
		}
	}
	if err != nil {
		return nil, err
	}
	for _, l := range w.late {
		w.chunks[l.at] = *l.chunk
	}
	return w.chunks, nil
}

// Extent is a range of a file, in bytes.
type Extent struct{ Start, Length int64 }

// UpdateFile stores the content of a file of which all but the changed extents is
// as in old, its chunks in an archive that the repository has. size is its present
// length in bytes; where that differs from the old one, what was added or cut off
// need not be among the extents. It reads only the old chunks that a change
// touches, and from there on until its cuts meet old ones again.
//
// The result is that of AddFile for the whole, provided that old came from the
// same chunker. When src has less than size bytes the error is
// [io.ErrUnexpectedEOF].
func (t *Transaction) UpdateFile(ctx context.Context, old []Chunk, src io.ReaderAt, size int64, changed []Extent) ([]Chunk, error) {
	c := t.takeChunker()
	defer t.giveChunker(c)
	w := t.newFileWriter(ctx)
	err := w.update(c, old, src, size, changed)
	chunks, err := w.finish(err)
	if err == nil && w.size != size {
		err = fmt.Errorf("%w: %d bytes of %d", io.ErrUnexpectedEOF, w.size, size)
	}
	if err != nil {
		return nil, fmt.Errorf("update file: %w", err)
	}
	return chunks, nil
}

func (w *fileWriter) update(c *chunker.Chunker, old []Chunk, src io.ReaderAt, size int64, changed []Extent) error {
	changed = slices.Clone(changed)
	var before int64
	for i := range old {
		before += int64(old[i].Size)
	}
	if before != size { // where the content ends, chunks end otherwise
		edge := max(min(before, size)-1, 0)
		changed = append(changed, Extent{edge, max(before, size) - edge})
	}
	slices.SortFunc(changed, func(a, b Extent) int { return cmp.Compare(a.Start, b.Start) })
	starts := int64(0)    // of old[0]
	kept := func() bool { // whether an old chunk begins here, and is still there
		for len(old) > 0 && starts < w.size {
			starts += int64(old[0].Size)
			old = old[1:]
		}
		for len(changed) > 0 && changed[0].Start+changed[0].Length <= starts {
			changed = changed[1:]
		}
		if len(old) == 0 || starts != w.size {
			return false
		}
		seen := starts + int64(old[0].Size) + int64(w.t.hash.Window())
		return (len(changed) == 0 || changed[0].Start >= seen) && w.t.there(old[0].ID)
	}
	for w.size < size {
		if kept() {
			w.keep(old[0])
			continue
		}
		c.Reset(contextReader{w.ctx, io.NewSectionReader(src, w.size, size-w.size)})
		for again := true; again; again = w.size < size && !kept() {
			plain, err := c.Next()
			if err == nil {
				err = w.add(plain, c.Ended())
			}
			if errors.Is(err, io.EOF) { // the file is shorter than was said
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}
