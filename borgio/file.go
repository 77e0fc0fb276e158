package borgio

import (
	"context"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// File is the content of a regular file. Reading is safe from many goroutines.
// Errors are [*IntegrityError] where content is damaged; what is around the
// damage stays readable.
type File struct {
	repo   *Repository
	chunks []Chunk
	ends   []int64 // offset of each chunk's end

	mu     sync.Mutex // guards what follows
	closed bool
	next   int64 // where a sequential reader would go on
	run    int64 // bytes read in sequence so far
	asked  int   // chunks below this one were fetched ahead
}

// OpenFile gives the content that chunks make up. It does no I/O. chunks must
// not be changed while the File is in use.
func (r *Repository) OpenFile(chunks []Chunk) *File {
	f := &File{repo: r, chunks: chunks, ends: make([]int64, len(chunks))}
	var size int64
	for i, c := range chunks {
		size += int64(c.Size)
		f.ends[i] = size
	}
	return f
}

// Size is the content's length in bytes.
func (f *File) Size() int64 {
	if len(f.ends) == 0 {
		return 0
	}
	return f.ends[len(f.ends)-1]
}

// Close makes further reads fail. It never fails itself.
func (f *File) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	return nil
}

// ReadAt is [io.ReaderAt].
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return f.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext is ReadAt that gives up when ctx ends. It fetches only the
// chunks that the range touches, and when the reads before it went on from one
// another, some of those that follow it.
func (f *File) ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = f.walk(ctx, off, len(p), func(buf *buffer.Buffer, part []byte) {
		n += copy(p[n:], part)
		buf.Release()
	})
	return n, err
}

// View is a range of a file's content, lent and not copied.
type View struct {
	Parts [][]byte // in order, not to be written to
	bufs  []*buffer.Buffer
}

// Release gives a view back; its parts must not be used after that.
func (v *View) Release() {
	for _, buf := range v.bufs {
		buf.Release()
	}
	v.Parts, v.bufs = nil, nil
}

// View is ReadAtContext that lends what it reads. The view is to be released
// where there is an error, too; it has what comes before the error then.
func (f *File) View(ctx context.Context, off int64, n int) (v View, err error) {
	err = f.walk(ctx, off, n, func(buf *buffer.Buffer, part []byte) {
		v.Parts, v.bufs = append(v.Parts, part), append(v.bufs, buf)
	})
	return v, err
}

// walk gives the range [off,off+n) piece by piece, each with a reference to
// the buffer that it lies in. Behind the content's end the error is io.EOF.
func (f *File) walk(ctx context.Context, off int64, n int, each func(buf *buffer.Buffer, part []byte)) error {
	if off < 0 {
		return fmt.Errorf("read at %d: negative offset", off)
	}
	if n == 0 {
		return nil
	}
	first := f.chunkAt(off)
	if err := f.advance(off, n, first); err != nil {
		return err
	}
	end := off + int64(n)
	for i := first; i < len(f.chunks) && off < end; i++ {
		buf, err := f.repo.cache.get(ctx, f.chunks[i])
		if err != nil {
			return fmt.Errorf("read at %d: %w", off, err)
		}
		part := buf.Data[off-(f.ends[i]-int64(f.chunks[i].Size)):]
		part = part[:min(int64(len(part)), end-off)]
		off += int64(len(part))
		each(buf, part)
	}
	if off < end {
		return io.EOF
	}
	return nil
}

// chunkAt is the number of the chunk that holds offset off.
func (f *File) chunkAt(off int64) int {
	return sort.Search(len(f.ends), func(i int) bool { return f.ends[i] > off })
}

// Reads of one sequential reader may overtake each other by jitter bytes when
// the kernel issues several at once.
const jitter = 1 << 20

// advance notes a read and, in a sequential run, fetches ahead of it: four
// times what was read in the run, at most half of the cache.
func (f *File) advance(off int64, n, first int) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrClosed
	}
	end := off + int64(n)
	switch {
	case off > f.next+jitter || off < f.next-jitter-int64(n):
		f.next, f.run, f.asked = end, 0, 0
	case end > f.next:
		f.run += end - f.next
		f.next = end
	}
	var want []Chunk
	if f.run > int64(n) { // more than one read so far
		budget := min(4*f.run, f.repo.cache.max/2)
		i := max(f.chunkAt(f.next-1)+1, first+1)
		for ; i < len(f.chunks) && f.ends[i]-f.next <= budget; i++ {
			if i >= f.asked {
				want = append(want, f.chunks[i])
				f.asked = i + 1
			}
		}
	}
	f.mu.Unlock()
	for _, c := range want {
		f.repo.cache.prefetch(c)
	}
	return nil
}

// WriteTo writes the whole content to w, fetching ahead in parallel with
// bounded memory, past the cache.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	return f.WriteToContext(context.Background(), w)
}

// WriteToContext is WriteTo that gives up when ctx ends.
func (f *File) WriteToContext(ctx context.Context, w io.Writer) (n int64, err error) {
	if err := f.advance(0, 0, 0); err != nil {
		return 0, err
	}
	ahead := f.repo.newReadahead(ctx, fetcher{
		count:  len(f.chunks),
		weight: func(i int) int64 { return int64(f.chunks[i].Size) },
		fetch: func(ctx context.Context, i int) (*buffer.Buffer, error) {
			return f.repo.chunk(ctx, f.chunks[i])
		},
	})
	defer ahead.close()
	for range f.chunks {
		buf, err := ahead.get()
		if err != nil {
			return n, fmt.Errorf("read at %d: %w", n, err)
		}
		m, err := writeOut(w, buf)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// writeOut writes a buffer and releases it, even if w panics.
func writeOut(w io.Writer, buf *buffer.Buffer) (int, error) {
	defer buf.Release()
	return w.Write(buf.Data)
}
