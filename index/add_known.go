package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/s4-storage/s4/snapshot"
)

// errUnexpected says that a partial inventory was not enough: a section that was
// expected did not come, or what lies in one of them came otherwise, too. Everything
// is to be done again with a whole one.
var errUnexpected = errors.New("the stream is not as expected")

// useBase makes every version of the neighbour whose inventory is known a
// candidate: those that are not seen get cut off. Where that inventory is partial,
// those in sections that are expected in the stream are none: all of them are going
// to be seen.
func (a *adder) useBase(s snapshot.Scanner) error {
	if a.base == nil {
		return nil
	}
	if a.base.partial {
		objects := s.Objects()
		at := make(map[[32]byte]int, len(objects))
		for i, o := range slices.Backward(objects) {
			at[o] = i
		}
		a.expected = map[[32]byte]bool{}
		ok, err := a.base.load(a.c, a.chain, func(s *inventorySection) bool {
			i, there := at[s.Objects[0]]
			there = there && s.whole && !a.expected[s.Objects[0]] && len(s.Objects) <= len(objects)-i && slices.Equal(s.Objects, objects[i:i+len(s.Objects)])
			if there {
				a.expected[s.Objects[0]] = true
			}
			return there
		})
		if err != nil {
			return err
		}
		if !ok {
			return errUnexpected
		}
	}
	a.base.prepareItems()
	for _, id := range a.base.items.versions {
		if id != 0 {
			a.candidate.set(int64(id))
		}
	}
	for _, id := range a.base.others {
		a.candidate.set(int64(id))
	}
	a.counting = a.filesSaid == 0 || a.sizeSaid == 0
	if a.before == 0 || a.after == 0 {
		return nil
	}
	ends := "SELECT id FROM version WHERE until = ? AND until > 0"
	if a.base.key == a.after {
		ends = "SELECT id FROM version WHERE since = ? AND since > 0"
	}
	return a.c.query(ends, []driver.Value{a.base.key}, func(row []driver.Value) error {
		a.closed.set(row[0].(int64))
		return nil
	})
}

// has tells whether a version of the neighbour is in the snapshot so far; until is
// where it ends. What is in a section that is expected is an error: either it comes
// twice, or it cannot be told yet whether it does.
func (a *adder) has(id, until int64) (bool, error) {
	if a.implied(id, until) {
		return false, errUnexpected
	}
	return a.seen.has(id), nil
}

// implied tells whether a version is in a section that is expected.
func (a *adder) implied(id, until int64) bool {
	return a.base != nil && a.base.partial && id <= a.firstVersion && until == 0 && !a.candidate.has(id)
}

// leap takes in the items that stand where the neighbour has equal ones, from
// the present one on, and tells whether there are any. How long they must be is
// known, so nothing but their checksums is looked at.
func (a *adder) leap(s snapshot.Scanner) (bool, error) {
	if a.base == nil || a.counting {
		return false, nil
	}
	ahead, n := s.Ahead(), 0
	for {
		it := a.base.expected()
		end := n + int(it.size)
		if it.version == 0 || it.size == 0 || end > len(ahead) ||
			a.seen.has(int64(it.version)) || a.summer.sum(ahead[n:end]) != it.sum {
			break
		}
		a.base.likely++
		a.note(it)
		if err := a.see(int64(it.version)); err != nil {
			return false, err
		}
		n = end
	}
	if n > 0 {
		s.Leap(n)
	}
	return n > 0, nil
}

// scanned takes in the scanner's item.
func (a *adder) scanned(s snapshot.Scanner) error {
	var it *snapshot.Item
	if a.base == nil || a.counting {
		it = s.Item()
	}
	var sum uint64
	raw := s.Raw()
	if raw != nil {
		sum = a.summer.sum(raw)
		if id := a.baseVersion(sum); id != 0 {
			if it != nil {
				a.count(it)
			}
			a.noteItem(raw, sum, id)
			return a.see(id)
		}
	}
	if it == nil && a.base != nil && !a.counting {
		it = s.Item()
	}
	var version int64
	if it != nil {
		var err error
		if version, err = a.item(it); err != nil {
			return fmt.Errorf("%q: %w", it.Path, err)
		}
	}
	if raw != nil {
		a.noteItem(raw, sum, version)
	}
	return nil
}

// baseVersion gives the version of an equal item of the neighbour, if it was
// not seen yet.
func (a *adder) baseVersion(sum uint64) int64 {
	if a.base == nil {
		return 0
	}
	if id := a.base.version(sum); !a.seen.has(id) {
		return id
	}
	return 0
}

// see takes a version of the neighbour with the known inventory into the
// snapshot.
func (a *adder) see(id int64) error {
	a.seen.set(id)
	a.added.Items++
	if !a.closed.has(id) {
		return nil
	}
	column := "until"
	if a.base.key == a.after {
		column = "since"
	}
	_, err := a.c.exec("UPDATE version SET "+column+" = ? WHERE id = ?", a.key, id)
	return err
}

// knownSection takes in all items of a section that was not read.
func (a *adder) knownSection(is snapshot.Section) error {
	s := a.base.sections[a.base.byObject[is.Objects[0]]]
	if !s.loaded {
		return a.expectedSection(s)
	}
	s.stored = s.stored && a.after == 0 // else it is stored for another snapshot
	for n := s.first; n < s.end; n++ {
		it := a.base.items.at(n)
		id := int64(it.version)
		if a.seen.has(id) {
			path, err := a.pathOf(id)
			if err != nil {
				return err
			}
			a.skip(path, "twice in the archive")
			it.version = 0
			a.note(it)
			s.stored = false
			continue
		}
		a.note(it)
		if err := a.see(id); err != nil {
			return err
		}
	}
	a.base.likely = s.end
	a.files += s.files
	a.size += s.size
	a.endSection(s)
	return nil
}

// expectedSection takes in a section whose items are not at hand.
func (a *adder) expectedSection(s inventorySection) error {
	if !a.expected[s.Objects[0]] {
		return errUnexpected // it came before
	}
	delete(a.expected, s.Objects[0])
	a.added.Items += int64(s.count)
	a.files += s.files
	a.size += s.size
	if a.next != nil {
		s.first, s.end = a.next.items.len(), a.next.items.len()
		a.next.sections = append(a.next.sections, s)
	}
	return nil
}

func (a *adder) pathOf(version int64) (path string, err error) {
	var dir int64
	var name string
	err = a.c.query("SELECT dir, name FROM version WHERE id = ?", []driver.Value{version}, func(row []driver.Value) error {
		dir, name = row[0].(int64), text(row[1])
		return nil
	})
	if err != nil || dir <= 0 {
		return "", err
	}
	path, err = dirPath(a.c, dir)
	if path != "" {
		name = path + "/" + name
	}
	return name, err
}

// note enters an item of the stream in the new inventory.
func (a *adder) note(it inventoryItem) {
	switch {
	case a.next == nil:
	case a.next.items.len() == maxInventory:
		a.next = nil
	default:
		a.next.items.add(it)
	}
}

func (a *adder) noteItem(raw []byte, sum uint64, version int64) {
	if version > math.MaxUint32 {
		a.next = nil
		return
	}
	it := inventoryItem{sum: sum, version: uint32(version)}
	if len(raw) <= math.MaxUint16 {
		it.size = uint16(len(raw))
	}
	a.note(it)
}

// other enters a version that no item stands for alone.
func (a *adder) other(version int64) {
	switch {
	case a.next == nil || version == 0:
	case version > math.MaxUint32:
		a.next = nil
	default:
		a.next.others = append(a.next.others, uint32(version))
	}
}

// revoke notes that a version is not in the snapshot after all.
func (a *adder) revoke(version int64) {
	if a.next != nil {
		a.revoked[uint32(version)] = true
	}
}

func (a *adder) endSection(s inventorySection) {
	switch {
	case a.next == nil:
	case len(s.Objects) == 0:
		a.next = nil
	default:
		a.next.end(s)
	}
}

// recordInventory completes the new inventory, and stores it where it is the
// chain's newest.
func (a *adder) recordInventory() error {
	if a.next != nil {
		a.next.finish(a.revoked)
	}
	if a.after != 0 {
		return nil
	}
	return storeInventory(a.c, a.chain, a.next)
}

// orphans finds directories that the neighbour has and the snapshot has no
// item for, while something still lies in them. Where everything passes by
// [adder.dirOf] they are known.
func (a *adder) orphans(context.Context) error {
	if a.base == nil {
		return nil
	}
	for id := range a.candidate.without(&a.seen) {
		r, err := a.row(id)
		if err != nil {
			return err
		}
		a.keep(r)
		if r.child == 0 || a.present.has(r.child) {
			continue
		}
		inUse, err := a.anyInSnapshot("SELECT id, until FROM version WHERE dir = ?", r.child)
		if err != nil {
			return err
		}
		if inUse {
			a.needed.set(r.child)
		}
	}
	return nil
}

// hasRow reports whether the directory is in the snapshot.
func (a *adder) hasRow(dir int64) (bool, error) {
	if a.base == nil {
		return false, nil
	}
	return a.anyInSnapshot("SELECT v.id, v.until FROM dir d JOIN version v ON v.dir = d.parent AND v.name = d.name WHERE d.id = ? AND v.child > 0", dir)
}

// anyInSnapshot reports whether one of the versions is in the snapshot.
func (a *adder) anyInSnapshot(query string, dir int64) (bool, error) {
	err := a.c.query(query, []driver.Value{dir}, func(row []driver.Value) error {
		if id := row[0].(int64); id > a.firstVersion || a.seen.has(id) || a.implied(id, row[1].(int64)) {
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

var errFound = errors.New("found")
