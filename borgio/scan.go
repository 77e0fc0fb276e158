package borgio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Section is a piece of an item stream: the items that begin in one metadata
// object, or in what the section before left of it. Where two archives of a
// repository have equal sections, they hold the same items there, byte for
// byte, since an object's id stands for its content.
type Section struct {
	Objects []ID // the object, and those behind it that the last item reaches into
	Start   int  // of the first item: bytes into Objects[0]'s plaintext
	End     int  // of the last item: bytes into the plaintext of the last of Objects
}

// at reports whether the section stands at the beginning of that stream.
func (s *Section) at(stream []ID, start int) bool {
	n := len(s.Objects)
	return n > 0 && n <= len(stream) && s.Start == start && slices.Equal(s.Objects, stream[:n])
}

// Scanner walks through an archive's items, section by section. It belongs to
// one goroutine. Use it as
//
//	for s.Next() {
//		if s.Known() {
//			continue
//		}
//		for s.NextItem() {
//			… s.Raw() … s.Item() …
//		}
//	}
//	err := s.Err()
type Scanner struct {
	name   string // of the archive
	stream []ID
	known  map[ID]Section
	pieces pieces
	warn   func(path string) // of an item with an unsafe path

	next   int            // the object that the next section begins in,
	offset int            // where in it,
	buf    *buffer.Buffer // and its plaintext, if it is here

	section Section
	skipped bool // it is known, and was not fetched
	inside  bool // it was fetched, and has not ended

	reader msgpack.Reader // of buf
	began  int            // where the item begins in buf
	raw    []byte         // the item, once its end was found
	joined []byte         // memory for an item that lies in several objects
	parser itemParser

	err error
}

// pieces gives the plaintexts of a stream's objects, asked for in ascending
// order; some may never be asked for.
type pieces interface {
	get(i int) (*buffer.Buffer, error)
	close()
}

// maxItemSize bounds one packed item: a file of 6 TB in usual chunks.
const maxItemSize = 128 << 20

// Scan begins to walk through an archive's items. Sections that are known,
// by the id of their first object, are not fetched where the archive has them.
// It starts nothing yet; Close must be called.
func (r *Repository) Scan(ctx context.Context, a *Archive, known map[ID]Section) *Scanner {
	plan := planScan(a.Items, known)
	return &Scanner{
		name: a.Name, stream: a.Items, known: known,
		warn: func(path string) {
			r.log.Warn("item with an unsafe path is left out", "archive", a.Name, "path", path)
		},
		pieces: &plannedPieces{plan: plan, readahead: r.newReadahead(ctx, fetcher{
			count:  len(plan),
			weight: func(int) int64 { return guessedSize },
			fetch: func(ctx context.Context, i int) (*buffer.Buffer, error) {
				return r.object(ctx, a.Items[plan[i]], compress.UnknownSize, maxObjectSize)
			},
		}), direct: func(i int) (*buffer.Buffer, error) {
			return r.object(ctx, a.Items[i], compress.UnknownSize, maxObjectSize)
		}},
	}
}

// planScan tells which objects of a stream are going to be needed. Where its
// sections begin is known only as far as sections are, so it is a guess.
func planScan(stream []ID, known map[ID]Section) []int {
	var plan []int
	reached := false // an item before may reach into the object
	for i := 0; i < len(stream); {
		s, ok := known[stream[i]]
		if ok = ok && s.at(stream[i:], s.Start); !ok || reached && s.Start > 0 {
			plan = append(plan, i)
		}
		reached = !ok
		if ok && len(s.Objects) > 1 {
			i += len(s.Objects) - 1
		} else {
			i++
		}
	}
	return plan
}

// plannedPieces fetches ahead what is in the plan.
type plannedPieces struct {
	*readahead
	plan   []int
	direct func(i int) (*buffer.Buffer, error)
}

func (p *plannedPieces) get(i int) (*buffer.Buffer, error) {
	for len(p.plan) > 0 && p.plan[0] <= i {
		number := p.plan[0]
		p.plan = p.plan[1:]
		buf, err := p.readahead.get()
		if number == i {
			return buf, err
		}
		if buf != nil { // not needed after all
			buf.Release()
		}
	}
	return p.direct(i)
}

// Close ends the walk.
func (s *Scanner) Close() {
	s.drop()
	s.inside = false
	s.next = len(s.stream)
	s.pieces.close()
}

// Err tells why the walk ended, nil at the stream's end. Damage is an
// [*IntegrityError].
func (s *Scanner) Err() error {
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("read items of archive %s: %w", s.name, s.err)
}

// Next goes to the next section.
func (s *Scanner) Next() bool {
	for s.NextItem() { //nolint:revive // to this one's end
	}
	if s.err != nil || s.next == len(s.stream) {
		return false
	}
	if k, ok := s.known[s.stream[s.next]]; ok && k.at(s.stream[s.next:], s.offset) {
		s.section, s.skipped = k, true
		s.drop()
		if n := len(k.Objects); n > 1 {
			s.next, s.offset = s.next+n-1, k.End
		} else {
			s.next, s.offset = s.next+1, 0
		}
		return true
	}
	if s.buf == nil {
		if s.buf, s.err = s.pieces.get(s.next); s.err != nil {
			return false
		}
	}
	if s.offset > len(s.buf.Data) {
		s.err = errors.New("a section that was said to be known is not there")
		return false
	}
	s.section = Section{Objects: s.stream[s.next : s.next+1], Start: s.offset}
	s.skipped, s.inside = false, true
	s.reader.Reset(s.buf.Data)
	s.reader.Seek(s.offset)
	s.raw = s.buf.Data[:0] // there is no item before the first
	return true
}

// Known reports whether the section is one that was known before. It then has
// no items here.
func (s *Scanner) Known() bool { return s.skipped }

// Section is the present section, complete once NextItem has returned false.
func (s *Scanner) Section() Section { return s.section }

// NextItem goes to the section's next item.
func (s *Scanner) NextItem() bool {
	if !s.inside || s.Raw() == nil { // which steps over the one before
		return false
	}
	switch {
	case len(s.section.Objects) > 1: // the one before reached into this object
		s.inside = false
		s.next, s.offset = s.next+len(s.section.Objects)-1, s.section.End
		return false
	case s.reader.Len() == 0:
		s.inside = false
		s.section.End = len(s.buf.Data)
		s.next, s.offset = s.next+1, 0
		s.drop()
		return false
	case s.reader.Peek() != msgpack.Map:
		s.damaged(errors.New("something that is no item"))
		return false
	}
	s.began, s.raw = s.reader.Pos(), nil
	return true
}

// Ahead is the present item and those behind it as they are packed, as far as
// the present object goes; the last of them may be cut. It is valid until the
// next step, and nil where the item has been looked at already.
func (s *Scanner) Ahead() []byte {
	if !s.inside || s.raw != nil || s.err != nil {
		return nil
	}
	return s.buf.Data[s.began:]
}

// Leap steps behind the items that are the first n bytes of [Scanner.Ahead],
// which whoever knows them may do instead of looking for their ends. What it is
// told must be right; then only NextItem may follow.
func (s *Scanner) Leap(n int) {
	s.raw = s.buf.Data[s.began : s.began+n]
	s.reader.Seek(s.began + n)
}

// Raw is the item as it is packed in the archive: items with equal bytes are
// equal. It is valid until the next step; nil when the stream is damaged.
func (s *Scanner) Raw() []byte {
	if s.raw != nil || s.err != nil {
		return s.raw
	}
	switch err := s.reader.Skip(); {
	case err == nil:
		s.raw = s.buf.Data[s.began:s.reader.Pos()]
	case errors.Is(err, io.ErrUnexpectedEOF):
		s.raw = s.join(s.buf.Data[s.began:])
	default:
		s.damaged(err)
	}
	return s.raw
}

// Item is the item decoded. It and its slices are overwritten by the next step;
// its strings, and the values of xattrs and ACLs, may be kept. It is nil for
// what is to be left out: a piece of a file which the archive also has whole,
// an item with an unsafe path (a warning in the log tells so), and a damaged one.
func (s *Scanner) Item() *Item {
	if !s.inside || s.err != nil {
		return nil
	}
	err := io.ErrUnexpectedEOF
	if s.raw == nil { // its end is found on the way
		if err = s.parser.parse(&s.reader); err == nil {
			s.raw = s.buf.Data[s.began:s.reader.Pos()]
		} else {
			s.reader.Seek(s.began)
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if s.Raw() == nil {
			return nil
		}
		err = s.parser.parse(msgpack.NewReader(s.raw))
	}
	if err != nil {
		s.damaged(err)
		return nil
	}
	it := &s.parser.item
	switch {
	case s.parser.part:
		return nil
	case !safePath(it.Path):
		s.warn(it.Path)
		return nil
	}
	return it
}

// join puts an item together that begins at the end of the present object. The
// last object that it reaches into becomes the present one.
func (s *Scanner) join(beginning []byte) []byte {
	s.joined = append(s.joined[:0], beginning...)
	var r msgpack.Reader
	var skip msgpack.Skipper
	last, taken := s.next, len(s.buf.Data) // of the last object
	for {
		r.Extend(s.joined)
		err := skip.Skip(&r)
		switch {
		case err == nil:
			s.section.Objects = s.stream[s.next : last+1]
			s.section.End = taken - r.Len()
			return s.joined[:r.Pos()]
		case !errors.Is(err, io.ErrUnexpectedEOF):
			s.damaged(err)
			return nil
		case len(s.joined) > maxItemSize:
			s.damaged(errors.New("an item has no end"))
			return nil
		}
		for taken == len(s.buf.Data) { // an object may be empty
			if last++; last == len(s.stream) {
				s.damaged(errors.New("the stream ends inside an item"))
				return nil
			}
			buf, err := s.pieces.get(last)
			if err != nil {
				s.err = err
				return nil
			}
			s.buf.Release()
			s.buf, taken = buf, 0
		}
		// A little first, as most items are small.
		more := min(max(len(s.joined), 4096), len(s.buf.Data)-taken)
		s.joined = append(s.joined, s.buf.Data[taken:taken+more]...)
		taken += more
	}
}

// damaged ends the walk.
func (s *Scanner) damaged(err error) {
	s.raw, s.err = nil, &IntegrityError{Object: s.stream[s.next], What: "items", Err: err}
}

func (s *Scanner) drop() {
	if s.buf != nil {
		s.buf.Release()
		s.buf = nil
	}
}
