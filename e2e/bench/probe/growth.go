package probe

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// Growth asks how the index grows. Its items are made up and go straight into
// the index: no repository is read.
type Growth struct {
	Dir       string `json:"dir"`       // for indexes, which are removed
	Files     []int  `json:"files"`     // of one snapshot each
	Of        int    `json:"of"`        // files in the history
	Snapshots int    `json:"snapshots"` // of the history, changed by 0.5 % each
}

// Point is one measured size.
type Point struct {
	X      int     `json:"x"`      // files, or snapshots
	Ingest float64 `json:"ingest"` // s for this snapshot
	CPU    float64 `json:"cpu"`    // s
	Bytes  int64   `json:"bytes"`  // of the index
	Find   float64 `json:"find"`   // s from a path to its metadata, warm
}

// GrowthAnswer has a point for each size.
type GrowthAnswer struct {
	Files     []Point `json:"files"`
	Snapshots []Point `json:"snapshots"`
}

// repeats is how often each size is measured, but for the largest.
const (
	repeats = 3
	once    = 500_000 // files from which one time is enough
)

func growth(ctx context.Context, q Growth) (a GrowthAnswer, err error) {
	db := filepath.Join(q.Dir, "growth.db")
	for _, n := range q.Files {
		points, err := growOften(ctx, db, n, 1)
		if err != nil {
			return a, err
		}
		points[0].X = n
		a.Files = append(a.Files, points[0])
	}
	if q.Snapshots > 0 {
		a.Snapshots, err = growOften(ctx, db, q.Of, q.Snapshots)
	}
	return a, err
}

// growOften gives the medians of several times.
func growOften(ctx context.Context, db string, files, snapshots int) ([]Point, error) {
	var all [][]Point
	for len(all) < repeats && (len(all) == 0 || files < once) {
		points, err := grow(ctx, db, files, snapshots)
		if err != nil {
			return nil, err
		}
		all = append(all, points)
	}
	points := all[0]
	for i := range points {
		middle := func(of func(Point) float64) float64 {
			var values []float64
			for _, one := range all {
				values = append(values, of(one[i]))
			}
			return Median(values)
		}
		p := points[i]
		p.Ingest = middle(func(p Point) float64 { return p.Ingest })
		p.CPU = middle(func(p Point) float64 { return p.CPU })
		p.Find = middle(func(p Point) float64 { return p.Find })
		points[i] = p
	}
	return points, nil
}

// grow indexes snapshots of so many files, each as the newest.
func grow(ctx context.Context, db string, files, snapshots int) (points []Point, err error) {
	defer func() { err = errors.Join(err, removeIndex(db)) }()
	if err := removeIndex(db); err != nil {
		return nil, err
	}
	madeUp := newMadeUp(files)
	var infos []snapshot.Info
	for n := range snapshots {
		infos = append(infos, snapshot.Info{
			ID: fmt.Sprint(n), Handle: fmt.Sprint(n), Name: fmt.Sprint(n), Series: "growth",
			Time: time.Date(2026, 1, 1+n, 0, 0, 0, 0, time.UTC),
		})
		if n > 0 {
			madeUp.change(n)
		}
		p, err := madeUp.add(ctx, db, infos)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

const growthSource = "growth"

// add opens the index, adds the newest snapshot and looks some paths up.
func (m *madeUp) add(ctx context.Context, db string, infos []snapshot.Info) (p Point, err error) {
	x, err := index.Open(ctx, db, nil)
	if err != nil {
		return p, err
	}
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, x.Close())
		}
	}()
	if err := x.Announce(ctx, growthSource, infos); err != nil {
		return p, err
	}
	known, err := x.Snapshots(ctx, growthSource)
	if err != nil {
		return p, err
	}
	num := known[len(known)-1].Num
	c := startClock()
	added, err := x.AddScan(ctx, num, m.scan)
	took := c.took()
	x.Relax(ctx)
	if err == nil && added.Items < int64(len(m.version)) {
		err = fmt.Errorf("%d items instead of at least %d", added.Items, len(m.version))
	}
	if err != nil {
		return p, err
	}
	r := rand.New(rand.NewPCG(1, uint64(len(m.version))))
	find, err := median(manyTimes, func(int) error {
		path := pathOf(r.IntN(len(m.version)))
		_, err := x.Find(ctx, num, path)
		return err
	})
	if err != nil {
		return p, err
	}
	closed = true
	if err := x.Close(); err != nil {
		return p, err
	}
	size, err := indexSize(db)
	return Point{X: len(infos), Ingest: took.Wall, CPU: took.CPU, Bytes: size, Find: find}, err
}

// madeUp is a tree that exists as items only.
type madeUp struct {
	version []int32 // of each file: the snapshot it was last changed in
	ids     []uint64
}

func newMadeUp(files int) *madeUp {
	m := &madeUp{version: make([]int32, files), ids: make([]uint64, files)}
	r := rand.New(rand.NewPCG(2, 3))
	for i := range m.ids {
		m.ids[i] = r.Uint64()
	}
	return m
}

// change rewrites 0.5 % of the files, scattered.
func (m *madeUp) change(n int) {
	r := rand.New(rand.NewPCG(4, uint64(n)))
	for range max(len(m.version)/200, 1) {
		m.version[r.IntN(len(m.version))] = int32(n)
	}
}

const madeUpWidth = 60 // files in a directory

func dirOf(i int) string {
	d := i / madeUpWidth
	return fmt.Sprintf("area%03d/topic%02d", d/40, d%40)
}

func pathOf(i int) string { return fmt.Sprintf("%s/note-%07d.txt", dirOf(i), i) }

const madeUpTime = 1_767_225_600_000_000_000 // 2026-01-01 in ns

// madeUpSection is the number of directories in a section: about as many files
// as borg puts into one.
const madeUpSection = 7

// scan walks through the items as through an archive's. It is made for every
// walk.
func (m *madeUp) scan(known []snapshot.Section) snapshot.Scanner {
	s := &madeUpScanner{m: m, at: -1, known: map[[32]byte]bool{}}
	for _, k := range known {
		s.known[k.Objects[0]] = true
	}
	return s
}

type madeUpScanner struct {
	m     *madeUp
	known map[[32]byte]bool
	at    int // the section
	id    [32]byte
	items []madeUpItem
	item  int
	raw   []byte
	out   snapshot.Item
}

// madeUpItem is a file, or the directory that lies in dir or is it.
type madeUpItem struct {
	file int // -1 for a directory
	dir  string
}

func (s *madeUpScanner) Objects() (all [][32]byte) {
	for twin := (&madeUpScanner{m: s.m, at: -1}); twin.Next(); {
		all = append(all, twin.id)
	}
	return all
}

func (s *madeUpScanner) Next() bool {
	s.at++
	s.items, s.item = s.items[:0], -1
	begin := s.at * madeUpSection * madeUpWidth
	if begin >= len(s.m.version) {
		return false
	}
	h := sha256.New()
	for i := begin; i < min(begin+madeUpSection*madeUpWidth, len(s.m.version)); i++ {
		if i%madeUpWidth == 0 {
			dir := dirOf(i)
			if up := filepath.Dir(dir); i == 0 || filepath.Dir(dirOf(i-1)) != up {
				s.items = append(s.items, madeUpItem{-1, up})
			}
			s.items = append(s.items, madeUpItem{-1, dir})
		}
		s.items = append(s.items, madeUpItem{file: i})
		s.raw = s.appendRaw(s.raw[:0], madeUpItem{file: i})
		h.Write(s.raw)
	}
	h.Sum(s.id[:0])
	return true
}

func (s *madeUpScanner) appendRaw(b []byte, it madeUpItem) []byte {
	if it.file < 0 {
		return append(b, it.dir...)
	}
	b = binary.AppendUvarint(b, uint64(it.file))
	return binary.LittleEndian.AppendUint64(b, s.m.ids[it.file]+uint64(s.m.version[it.file]))
}

func (s *madeUpScanner) Known() bool    { return s.known[s.id] }
func (s *madeUpScanner) NextItem() bool { s.item++; return s.item < len(s.items) }
func (s *madeUpScanner) Err() error     { return nil }
func (s *madeUpScanner) Close()         {}

func (s *madeUpScanner) Section() snapshot.Section {
	return snapshot.Section{Objects: [][32]byte{s.id}}
}

// Ahead makes every item be looked at by itself.
func (s *madeUpScanner) Ahead() []byte { return nil }
func (s *madeUpScanner) Leap(int)      {}

func (s *madeUpScanner) Raw() []byte {
	s.raw = s.appendRaw(s.raw[:0], s.items[s.item])
	return s.raw
}

func (s *madeUpScanner) Item() *snapshot.Item {
	it := &s.out
	*it = snapshot.Item{Entry: snapshot.Entry{UID: 1000, GID: 1000, User: "ann", Group: "users"}, Content: it.Content[:0]}
	i := s.items[s.item].file
	if i < 0 {
		it.Path = s.items[s.item].dir
		it.Mode, it.Mtime, it.Ctime = 0o040755, madeUpTime, madeUpTime
		return it
	}
	v := s.m.version[i]
	id := s.m.ids[i] + uint64(v)
	it.Path = pathOf(i)
	it.Mode, it.Size = 0o100644, int64(id%20_000+1)
	it.Mtime = madeUpTime + int64(id%1_000_000_007)*1_000_003 + int64(v)
	it.Ctime = it.Mtime + 1_003
	extent := snapshot.Extent{Size: uint32(it.Size)}
	r := rand.NewPCG(id, 5) // as little to be compressed as a hash
	for k := 0; k < len(extent.ID); k += 8 {
		binary.LittleEndian.PutUint64(extent.ID[k:], r.Uint64())
	}
	it.Content = append(it.Content, extent)
	return it
}
