package index

import (
	"crypto/sha256"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

// sectioned is a stream of items in sections, as a repository keeps it.
type sectioned struct {
	sections []snapshot.Section
	items    [][]snapshot.Item
	raws     [][]string

	known    map[[32]byte]snapshot.Section
	at, item int
	read     int // sections

	more [][32]byte // objects that it falsely says to have
}

func (s *sectioned) Objects() (all [][32]byte) {
	for _, is := range s.sections {
		all = append(all, is.Objects...)
	}
	return append(all, s.more...)
}

// newSectioned cuts a stream where its content says so. The raw form of an
// item begins with its noise, which its meaning does not depend on.
func newSectioned(all []snapshot.Item, noise map[string]int) *sectioned {
	s := &sectioned{}
	var items []snapshot.Item
	var raws []string
	cut := func() {
		if len(items) > 0 {
			s.sections = append(s.sections, snapshot.Section{Objects: [][32]byte{sha256.Sum256([]byte(strings.Join(raws, "\n")))}, End: len(raws)})
			s.items, s.raws = append(s.items, items), append(s.raws, raws)
			items, raws = nil, nil
		}
	}
	for _, it := range all {
		packed := appendContent(appendMeta([]byte{byte(noise[it.Path])}, &it.Entry, 0), it.Content)
		raw := fmt.Sprintf("%s\x00%s\x00%s%s", it.Path, it.LinkTo, it.User, packed)
		items, raws = append(items, it), append(raws, raw)
		// Short sections for few items, longer ones for many.
		if sum := sha256.Sum256([]byte(raw)); int(sum[0])%min(256, 4+len(all)/200) == 0 {
			cut()
		}
	}
	cut()
	return s
}

func (s *sectioned) scan(known []snapshot.Section) snapshot.Scanner {
	s.known, s.at, s.read = map[[32]byte]snapshot.Section{}, -1, 0
	for _, k := range known {
		s.known[k.Objects[0]] = k
	}
	return s
}

func (s *sectioned) Next() bool {
	s.at, s.item = s.at+1, -1
	if s.at < len(s.sections) && !s.Known() {
		s.read++
	}
	return s.at < len(s.sections)
}

func (s *sectioned) Known() bool {
	k, ok := s.known[s.sections[s.at].Objects[0]]
	return ok && reflect.DeepEqual(k, s.sections[s.at])
}
func (s *sectioned) Section() snapshot.Section { return s.sections[s.at] }
func (s *sectioned) NextItem() bool            { s.item++; return s.item < len(s.items[s.at]) }
func (s *sectioned) Ahead() []byte {
	return []byte(strings.Join(s.raws[s.at][s.item:], ""))
}

func (s *sectioned) Leap(n int) {
	for n -= len(s.raws[s.at][s.item]); n > 0; n -= len(s.raws[s.at][s.item]) {
		s.item++
	}
	if n < 0 {
		panic("not at an item's end")
	}
}
func (s *sectioned) Raw() []byte { return []byte(s.raws[s.at][s.item]) }
func (s *sectioned) Item() *snapshot.Item {
	it := s.items[s.at][s.item]
	return &it
}
func (s *sectioned) Err() error { return nil }
func (s *sectioned) Close()     {}

// strangeItem makes an item of any kind, at one of few paths.
func strangeItem(r *rand.Rand) snapshot.Item {
	var elems []string
	for range 1 + r.IntN(3) {
		elems = append(elems, string(rune('a'+r.IntN(4))))
	}
	path := strings.Join(elems, "/")
	switch n := byte(r.IntN(3)); r.IntN(12) {
	case 0, 1, 2:
		d := dir(path)
		d.Mtime += int64(n)
		return d
	case 3, 4:
		return linked(path, fmt.Sprintf("%c", 'a'+rune(r.IntN(4))), n)
	case 5:
		return linked(path, path, n)
	case 6:
		return snapshot.Item{Path: path + "//x", Entry: dir("").Entry}
	default:
		return file(path, n)
	}
}

// strangeEdit changes a stream a little.
func strangeEdit(r *rand.Rand, items []snapshot.Item) []snapshot.Item {
	items = slices.Clone(items)
	for range r.IntN(5) {
		at := 0
		if len(items) > 0 {
			at = r.IntN(len(items))
		}
		switch kind := r.IntN(4); {
		case kind == 0 || len(items) == 0:
			items = slices.Insert(items, at, strangeItem(r))
		case kind == 1:
			items = slices.Delete(items, at, at+1)
		case kind == 2:
			items[at] = strangeItem(r)
		default:
			items[at].Mode ^= 0o011
		}
	}
	if r.IntN(6) == 0 {
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	}
	return items
}

// TestKnownSectionsChangeNothing adds and removes snapshots of strange streams
// in any order and sees that an index that is told of sections holds what one
// holds that reads everything.
func TestKnownSectionsChangeNothing(t *testing.T) {
	skipped := 0
	for seed := range uint64(120) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { skipped += checkKnownSections(t, seed) })
	}
	if skipped < 500 {
		t.Errorf("only %d sections were known", skipped)
	}
}

func checkKnownSections(t *testing.T, seed uint64) (skipped int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 8))
	var infos []snapshot.Info
	streams := map[string]*sectioned{}
	plain := map[string][]snapshot.Item{}
	for _, series := range []string{"one", "two"} {
		var items []snapshot.Item
		for range 30 {
			items = append(items, strangeItem(r))
		}
		noise := map[string]int{}
		for i := range 2 + r.IntN(5) {
			handle := fmt.Sprintf("%s%d", series, i)
			infos = append(infos, info(handle, series, int64(1000+i)))
			streams[handle], plain[handle] = newSectioned(items, noise), items
			items = strangeEdit(r, items)
			if len(items) > 0 {
				noise[items[r.IntN(len(items))].Path]++
			}
		}
	}
	path := filepath.Join(t.TempDir(), "known.db")
	x, y := openAt(t, path, nil), open(t)
	announce(t, x, infos...)
	nums := announce(t, y, infos...)
	for range 3 * len(infos) {
		if r.IntN(5) == 0 { // another process, or a later one
			x = openAt(t, path, nil)
		}
		handle := infos[r.IntN(len(infos))].Handle
		if r.IntN(4) == 0 {
			gone := slices.DeleteFunc(slices.Clone(infos), func(i snapshot.Info) bool { return i.Handle == handle })
			announce(t, y, gone...)
			announce(t, x, gone...)
			announce(t, x, infos...)
			nums = announce(t, y, infos...)
			continue
		}
		s := streams[handle]
		s.at, s.more = -2, nil
		if r.IntN(8) == 0 {
			s.more = streams[infos[r.IntN(len(infos))].Handle].Objects()
		}
		added, err := x.AddScan(t.Context(), nums[handle], s.scan)
		if err != nil {
			t.Fatal(err)
		}
		want := add(t, y, nums[handle], plain[handle]...)
		skipped += len(s.sections) - s.read
		slices.Sort(added.Skipped)
		slices.Sort(want.Skipped)
		if !reflect.DeepEqual(added, want) {
			t.Fatalf("seed %d: added %+v\nwant  %+v", seed, added, want)
		}
		checkNoOverlap(t, x)
		if got, want := rows(t, x), rows(t, y); !slices.Equal(got, want) {
			t.Fatalf("seed %d, %s: rows\n%s\nwant\n%s", seed, handle, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	return skipped
}

// rows gives all that an index holds of trees, but the numbers it gave.
func rows(t *testing.T, x *Index) (all []string) {
	t.Helper()
	err := x.reading(t.Context(), func(c *conn) error {
		err := c.query("SELECT dir, name, since, until, child > 0, meta, content FROM version", nil, func(row []driver.Value) error {
			dir := row[0].(int64)
			path := fmt.Sprint("chain ", -dir)
			if dir > 0 {
				var err error
				if path, err = dirPath(c, dir); err != nil {
					return err
				}
			}
			all = append(all, fmt.Sprintf("%s/%s %d-%d %d %x %x", path, row[1], row[2], row[3], row[4], row[5], row[6]))
			return nil
		})
		if err != nil {
			return err
		}
		return c.query("SELECT handle, indexed, files, size FROM snapshot", nil, func(row []driver.Value) error {
			all = append(all, fmt.Sprint(row))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// checkNoOverlap sees that every path is one thing at a time.
func checkNoOverlap(t *testing.T, x *Index) {
	t.Helper()
	err := x.reading(t.Context(), func(c *conn) error {
		return c.query(`SELECT a.id, a.name, a.since, a.until, b.id, b.since, b.until FROM version a JOIN version b
			ON a.dir = b.dir AND a.name = b.name AND a.id < b.id
			WHERE (a.since <= b.until OR b.until = 0) AND (b.since <= a.until OR a.until = 0)`, nil, func(row []driver.Value) error {
			return fmt.Errorf("two rows at once: %v", row)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSectionsDamaged: sections in a form that makes no sense, without lengths of
// items, are as if they were not there, as soon as one of them is wanted.
func TestSectionsDamaged(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("0", "s", 1), info("1", "s", 2), info("2", "s", 3))
	items := []snapshot.Item{dir("a"), file("a/b", 1), file("a/c", 1)}
	s := newSectioned(items, nil)
	if _, err := x.AddScan(t.Context(), nums["0"], s.scan); err != nil {
		t.Fatal(err)
	}
	err := x.writing(t.Context(), func(c *conn) error {
		v := x.last
		for i := range v.sections {
			// Each length here takes one byte.
			b := v.appendItems(nil, &v.sections[i])
			b = b[:len(b)-(v.sections[i].end-v.sections[i].first)]
			if _, err := c.exec("UPDATE section SET items = ? WHERE object = ?", b, v.sections[i].Objects[0][:]); err != nil {
				return err
			}
		}
		x.last = nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.AddScan(t.Context(), nums["1"], s.scan); err != nil || s.read != 0 {
		t.Errorf("with nothing changed, %d sections were read, %v", s.read, err)
	}
	items[1].Mtime++
	s = newSectioned(items, nil)
	if _, err := x.AddScan(t.Context(), nums["2"], s.scan); err != nil {
		t.Fatal(err)
	}
	if s.read != len(s.sections) {
		t.Errorf("%d of %d sections were read", s.read, len(s.sections))
	}
	if got := paths(t, x, nums["2"], ""); !slices.Equal(got, paths(t, x, nums["0"], "")) {
		t.Errorf("paths %q", got)
	}
}

// FuzzInventory sees that stored sections survive, and that other bytes do no
// harm.
func FuzzInventory(f *testing.F) {
	v := &inventory{}
	v.items.add(inventoryItem{1, 5, 100})
	v.items.add(inventoryItem{1 << 63, 4, 1 << 15})
	v.end(inventorySection{Section: snapshot.Section{Objects: [][32]byte{{1}, {2}}, Start: 3, End: 4}, files: 1, size: 1 << 40})
	v.finish(nil)
	f.Add(v.sections[0].appendHead(nil), v.appendItems(nil, &v.sections[0]))
	f.Add([]byte{1, 0, 0, 0, 0, 200, 1, 1}, []byte{0})
	f.Fuzz(func(t *testing.T, head, items []byte) {
		object := make([]byte, 32)
		s, ok := parseHead(object, head)
		var v, again inventory
		if !ok || !v.parseItems(&s, items) {
			return
		}
		twin, ok := parseHead(object, s.appendHead(nil))
		if !ok || !again.parseItems(&twin, v.appendItems(nil, &s)) || !reflect.DeepEqual(v, again) || !reflect.DeepEqual(s, twin) {
			t.Fatalf("%+v %+v\n%+v %+v", v, s, again, twin)
		}
	})
}
