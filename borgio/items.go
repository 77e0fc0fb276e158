package borgio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// maxItemSize bounds one packed item: a file of 6 TB in usual chunks.
const maxItemSize = 128 << 20

// Items streams an archive's items in the archive's order. The yielded Item
// and its slices are overwritten by the next step; its strings, and the values
// of xattrs and ACLs, may be kept. Hard links name an earlier item as their
// source.
//
// Items that are pieces of a file which the archive also has whole are left
// out. An item with an unsafe path is left out too, with a warning in the
// log. An error ends the stream.
func (r *Repository) Items(ctx context.Context, a *Archive) iter.Seq2[*Item, error] {
	return func(yield func(*Item, error) bool) {
		if err := r.items(ctx, a, yield); err != nil {
			yield(nil, fmt.Errorf("read items of archive %s: %w", a.Name, err))
		}
	}
}

func (r *Repository) items(ctx context.Context, a *Archive, yield func(*Item, error) bool) error {
	ahead := r.newReadahead(ctx, fetcher{
		count:  len(a.Items),
		weight: func(int) int64 { return guessedSize },
		fetch: func(ctx context.Context, i int) (*buffer.Buffer, error) {
			return r.object(ctx, a.Items[i], compress.UnknownSize, maxObjectSize)
		},
	})
	defer ahead.close()
	s := itemStream{warn: func(path string) {
		r.log.Warn("item with an unsafe path is left out", "archive", a.Name, "path", path)
	}}
	for i := range a.Items {
		buf, err := ahead.get()
		if err != nil {
			return err
		}
		more, err := s.feedBuffer(buf, yield)
		if err != nil {
			return &IntegrityError{Object: a.Items[i], What: "items", Err: err}
		}
		if !more {
			return nil
		}
	}
	if len(s.rest) > 0 {
		return damaged(a.ID, "items", "the stream ends inside an item")
	}
	return nil
}

// itemStream decodes a stream of items that arrives in pieces.
type itemStream struct {
	parser itemParser
	reader msgpack.Reader
	rest   []byte // the beginning of an item whose end is not here yet
	warn   func(path string)
}

// feedBuffer feeds a buffer and releases it, even if yield does not return.
func (s *itemStream) feedBuffer(buf *buffer.Buffer, yield func(*Item, error) bool) (more bool, err error) {
	defer buf.Release()
	return s.feed(buf.Data, yield)
}

// feed decodes what a further piece completes. It reports false when yield
// wants no more. The piece may be reused afterwards.
func (s *itemStream) feed(piece []byte, yield func(*Item, error) bool) (more bool, err error) {
	data := piece
	if len(s.rest) > 0 {
		s.rest = append(s.rest, piece...)
		data = s.rest
	}
	s.reader.Reset(data)
	for s.reader.Len() > 0 {
		start := s.reader.Pos()
		err := s.parser.parse(&s.reader)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			if len(data)-start > maxItemSize {
				return false, errors.New("an item has no end")
			}
			// Within its own memory this moves the bytes to the front.
			s.rest = append(s.rest[:0], data[start:]...)
			return true, nil
		}
		if err != nil {
			return false, err
		}
		it := &s.parser.item
		switch {
		case s.parser.part:
		case !safePath(it.Path):
			s.warn(it.Path)
		case !yield(it, nil):
			return false, nil
		}
	}
	s.rest = s.rest[:0]
	return true, nil
}
