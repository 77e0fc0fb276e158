package history

import (
	"fmt"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/snapshot"
)

// borgScanner walks through an archive's items as the index wants them.
type borgScanner struct {
	*borgio.Scanner       // nil when the archive could not be read
	failed          error // why
	archive         string
	objects         []borgio.ID
	convert         converter
}

func (s *borgScanner) Objects() [][32]byte { return arrays(s.objects) }

func (s *borgScanner) Next() bool { return s.Scanner != nil && s.Scanner.Next() }

func (s *borgScanner) Section() snapshot.Section {
	is := s.Scanner.Section()
	return snapshot.Section{Objects: arrays(is.Objects), Start: is.Start, End: is.End}
}

func arrays(ids []borgio.ID) [][32]byte {
	out := make([][32]byte, len(ids))
	for i, id := range ids {
		out[i] = id
	}
	return out
}

func (s *borgScanner) Item() *snapshot.Item {
	it := s.Scanner.Item()
	if it == nil {
		return nil
	}
	return s.convert.item(it)
}

func (s *borgScanner) Err() error {
	err := s.failed
	if s.Scanner != nil {
		err = s.Scanner.Err()
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("read archive %s: %w", s.archive, classify(err))
}

func (s *borgScanner) Close() {
	if s.Scanner != nil {
		s.Scanner.Close()
	}
}

func borgSections(sections []snapshot.Section) map[borgio.ID]borgio.Section {
	known := make(map[borgio.ID]borgio.Section, len(sections))
	for _, s := range sections {
		objects := make([]borgio.ID, len(s.Objects))
		for i, id := range s.Objects {
			objects[i] = id
		}
		known[objects[0]] = borgio.Section{Objects: objects, Start: s.Start, End: s.End}
	}
	return known
}
