package snapshot

import "iter"

// Section is a run of items that a source stores under names which stand for
// their content: where two snapshots of one source have equal sections, they
// hold the same items there.
type Section struct {
	Objects    [][32]byte // empty for a section that cannot be known again
	Start, End int        // where in the first and in the last object it begins and ends
}

// Scanner walks through a snapshot's items, section by section, for one
// goroutine. Use it as
//
//	defer s.Close()
//	for s.Next() {
//		if s.Known() {
//			continue
//		}
//		for s.NextItem() {
//			… s.Raw() … s.Item() …
//		}
//	}
//	err := s.Err()
type Scanner interface {
	// Objects are all that the stream is stored in, in order, as its sections
	// will name them; nil where that is not known before it is read.
	Objects() [][32]byte
	// Next goes to the next section.
	Next() bool
	// Known reports whether the section is one that the source was told of.
	// It has no items here.
	Known() bool
	// Section is the present section, complete once NextItem has returned false.
	Section() Section
	// NextItem goes to the section's next item.
	NextItem() bool
	// Ahead is the present item and those behind it as they are stored, as
	// far as they are at hand, valid until the next step. It is asked for
	// before Raw and Item.
	Ahead() []byte
	// Leap steps behind the items that are the first n bytes of Ahead, which
	// are counted on to be whole ones. There is no Raw and no Item then.
	Leap(n int)
	// Raw is the item as it is stored, valid until the next step: items with
	// equal bytes are equal. It is nil where there is no such form.
	Raw() []byte
	// Item is the item decoded, valid until the next step; nil for what is
	// to be left out. Called before Raw it saves finding the item's end twice.
	Item() *Item
	// Err tells why the walk ended, nil at the snapshot's end.
	Err() error
	Close()
}

// ScanItems makes a scanner of items that come without sections, for sources
// that have none.
func ScanItems(items iter.Seq2[*Item, error]) Scanner {
	next, stop := iter.Pull2(items)
	return &plainScanner{next: next, stop: stop}
}

// plainScanner has all items in one section without a name.
type plainScanner struct {
	next  func() (*Item, error, bool)
	stop  func()
	begun bool
	item  *Item
	err   error
}

func (s *plainScanner) Objects() [][32]byte { return nil }

func (s *plainScanner) Next() bool {
	first := !s.begun
	s.begun = true
	return first
}

func (s *plainScanner) NextItem() bool {
	var more bool
	s.item, s.err, more = s.next()
	return more && s.err == nil
}

func (s *plainScanner) Known() bool      { return false }
func (s *plainScanner) Section() Section { return Section{} }
func (s *plainScanner) Ahead() []byte    { return nil }
func (s *plainScanner) Leap(int)         {}
func (s *plainScanner) Raw() []byte      { return nil }
func (s *plainScanner) Item() *Item      { return s.item }
func (s *plainScanner) Err() error       { return s.err }
func (s *plainScanner) Close()           { s.stop() }
