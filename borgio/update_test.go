package borgio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"
)

// written is a repository of this test alone, made here.
func written(t testing.TB, mode string) *Repository {
	t.Helper()
	base := t.TempDir()
	env := func(name string) (string, bool) {
		switch name {
		case "BORG_BASE_DIR":
			return base, true
		case "BORG_PASSPHRASE":
			return "s4-test", true
		}
		return "", false
	}
	dir := filepath.Join(t.TempDir(), "repo")
	opts := Options{Environ: env}
	id, err := CreateOnDisk(t.Context(), dir, mode, CreateOptions{Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), Location{Path: dir}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if r.ID() != id || r.Encryption() != mode {
		t.Errorf("repository %s of mode %s", r.ID(), r.Encryption())
	}
	return r
}

func begun(t testing.TB, r *Repository) (*Transaction, *diskTarget) {
	t.Helper()
	tx, target, err := r.beginOnDisk(t.Context(), WriteOptions{Compression: "none"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
	return tx, target
}

func committed(t testing.TB, tx *Transaction) {
	t.Helper()
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// madeItem is an item whose packed length is about size bytes.
func madeItem(path string, kind uint32, mtime int64, size int) *Item {
	it := &Item{Path: path, Mode: kind | 0o644, Mtime: mtime}
	for range size / 41 {
		c := Chunk{Size: 7, Stored: 5}
		copy(c.ID[:], path)
		if kind == unix.S_IFREG {
			it.Chunks = append(it.Chunks, c)
			it.Size += 7
		}
	}
	return it
}

// model is a tree as a map, and the archive that it would be.
type model map[string]*Item

func (m model) sorted() []*Item {
	return slices.SortedFunc(maps.Values(m), func(a, b *Item) int { return ComparePaths(a.Path, b.Path) })
}

func (m model) apply(c Change) {
	if c.Item == nil || c.Item.Mode&unix.S_IFMT != unix.S_IFDIR {
		for path := range m {
			if isUnder(path, c.Path) {
				delete(m, path)
			}
		}
	}
	if c.Item != nil {
		m[c.Path] = c.Item
	}
}

// whole writes an archive of all items.
func (m model) whole(t testing.TB, tx *Transaction, name string) *Outline {
	t.Helper()
	w := tx.NewArchive(ArchiveInfo{Name: name})
	for _, it := range m.sorted() {
		if err := w.Add(t.Context(), it); err != nil {
			t.Fatal(err)
		}
	}
	_, o, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// randomPath makes paths whose order is not that of bytes.
func randomPath(rnd *rand.Rand) string {
	parts := make([]string, 1+rnd.IntN(3))
	for i := range parts {
		parts[i] = fmt.Sprintf("%c%s%d", "ab-.\xff"[rnd.IntN(5)], []string{"", "x", "-", "0"}[rnd.IntN(4)], rnd.IntN(30))
	}
	return strings.Join(parts, "/")
}

func randomItem(rnd *rand.Rand, path string) *Item {
	size := rnd.IntN(300)
	switch rnd.IntN(100) {
	case 0:
		size = rnd.IntN(maxSection) // which forces cuts
	case 1:
		size = maxSection + rnd.IntN(maxSection) // and is cut itself
	}
	kind := uint32(unix.S_IFREG)
	if rnd.IntN(4) == 0 {
		kind = unix.S_IFDIR
	}
	return madeItem(path, kind, rnd.Int64(), size)
}

func changesOf(changes []Change) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for _, c := range changes {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func sameOutline(a, b *Outline) string {
	if len(a.Sections) != len(b.Sections) {
		return fmt.Sprintf("%d sections, want %d", len(a.Sections), len(b.Sections))
	}
	for i := range a.Sections {
		if x, y := fmt.Sprint(a.Sections[i]), fmt.Sprint(b.Sections[i]); x != y {
			return fmt.Sprintf("section %d is\n%.300s, want\n%.300s", i, x, y)
		}
	}
	return ""
}

// TestUpdateArchive: after any changes, among them of whole directories, of what
// sections begin with and of items that are sections, an archive that was updated
// is cut as one that was written whole, and holds the same.
func TestUpdateArchive(t *testing.T) {
	seeds, most := uint64(4), 1000
	if os.Getenv("S4_LONG") != "" {
		seeds, most = 12, 4000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 5))
			r := written(t, "none")
			tree := model{}
			for range most/4 + rnd.IntN(most) {
				p := randomPath(rnd)
				tree[p] = randomItem(rnd, p)
			}
			tx, _ := begun(t, r)
			base := tree.whole(t, tx, "base")
			committed(t, tx)
			for round := range 8 {
				changes := map[string]Change{}
				for range rnd.IntN(12) {
					p := randomPath(rnd)
					if len(base.Sections) > 0 && rnd.IntN(2) == 0 {
						p = base.Sections[rnd.IntN(len(base.Sections))].First
						if rnd.IntN(4) == 0 {
							p, _, _ = strings.Cut(p, "/")
						}
					}
					c := Change{Path: p}
					if rnd.IntN(2) == 0 {
						c.Item = randomItem(rnd, p)
					}
					changes[p] = c
				}
				if round == 7 {
					changes = map[string]Change{".": {Path: "."}, "z": {"z", randomItem(rnd, "z")}}
				}
				sorted := slices.SortedFunc(maps.Values(changes), func(a, b Change) int { return ComparePaths(a.Path, b.Path) })
				for _, c := range sorted {
					tree.apply(c)
				}
				tx, _ := begun(t, r)
				name := fmt.Sprint("round ", round)
				_, got, err := tx.UpdateArchive(t.Context(), base, changesOf(sorted), ArchiveInfo{Name: name})
				if err != nil {
					t.Fatal(err)
				}
				want := tree.whole(t, tx, "whole "+name)
				if diff := sameOutline(got, want); diff != "" {
					t.Fatalf("round %d: %s", round, diff)
				}
				committed(t, tx)
				a, err := r.Archive(t.Context(), got.Archive)
				if err != nil {
					t.Fatal(err)
				}
				if a.NFiles != got.Files() || a.Size != got.Size() {
					t.Errorf("the archive tells of %d files with %d bytes, the outline of %d with %d", a.NFiles, a.Size, got.Files(), got.Size())
				}
				i, all := 0, tree.sorted()
				for it, err := range r.Items(t.Context(), a) {
					if err != nil {
						t.Fatal(err)
					}
					if i >= len(all) || it.Path != all[i].Path || it.Mtime != all[i].Mtime || it.Size != all[i].Size {
						t.Fatalf("item %d is %s", i, it.Path)
					}
					i++
				}
				if i != len(all) || i != got.Items() {
					t.Fatalf("%d items, want %d", i, len(all))
				}
				found, err := r.Outline(t.Context(), a)
				if err != nil {
					t.Fatal(err)
				}
				if diff := sameOutline(found, want); diff != "" {
					t.Fatalf("found again: %s", diff)
				}
				parsed, err := ParseOutline(got.Append(nil))
				if err != nil || parsed.Archive != got.Archive {
					t.Fatal(err)
				}
				if diff := sameOutline(parsed, want); diff != "" {
					t.Fatalf("parsed: %s", diff)
				}
				base = got
			}
		})
	}
}

// TestUpdateCost: one change in many items costs one section and the archive, and
// reads one section.
func TestUpdateCost(t *testing.T) {
	r := written(t, "repokey")
	tree := model{}
	for i := range 30_000 {
		p := fmt.Sprintf("dir%03d/file%d", i/100, i)
		tree[p] = madeItem(p, unix.S_IFREG, int64(i), 41)
	}
	tx, _ := begun(t, r)
	base := tree.whole(t, tx, "base")
	committed(t, tx)
	if n := len(base.Sections); n < 30 || n > 120 {
		t.Errorf("%d sections", n)
	}
	tx, target := begun(t, r)
	target.gets = 0
	p := "dir150/file15050"
	it, err := tx.BaseItem(t.Context(), base, p)
	if err != nil || it.Mtime != 15050 || len(it.Chunks) != 1 {
		t.Fatal(it, err)
	}
	if _, err := tx.BaseItem(t.Context(), base, "dir150"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an item that is not there: %v", err)
	}
	it.Mtime = 7
	_, next, err := tx.UpdateArchive(t.Context(), base, changesOf([]Change{{p, it}}), ArchiveInfo{Name: "next"})
	if err != nil {
		t.Fatal(err)
	}
	if target.gets > 3 || target.puts != 2 {
		t.Errorf("%d objects read, %d written", target.gets, target.puts)
	}
	committed(t, tx)
	// What is not in the manifest may be gone.
	tx, _ = begun(t, r)
	next.Archive[0] ^= 1
	if _, _, err := tx.UpdateArchive(t.Context(), next, changesOf(nil), ArchiveInfo{Name: "x"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown base: %v", err)
	}
	next.Archive[0] ^= 1
	for name, c := range map[string][]Change{
		"order": {{"b", nil}, {"a", nil}}, "twice": {{"b", nil}, {"b", nil}}, "another path": {{"b", &Item{Path: "c"}}},
		"unsafe": {{"../b", &Item{Path: "../b"}}}, "size": {{"b", &Item{Path: "b", Mode: unix.S_IFREG, Size: 5}}},
	} {
		if _, _, err := tx.UpdateArchive(t.Context(), next, changesOf(c), ArchiveInfo{Name: name}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	oops := errors.New("oops")
	failing := func(yield func(Change, error) bool) { yield(Change{}, oops) }
	if _, _, err := tx.UpdateArchive(t.Context(), next, failing, ArchiveInfo{Name: "y"}); !errors.Is(err, oops) {
		t.Errorf("changes that fail: %v", err)
	}
	if _, _, err := tx.UpdateArchive(t.Context(), next, changesOf(nil), ArchiveInfo{Name: "next"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
}

// mutate changes, inserts or cuts off a few ranges, and tells which.
func mutate(rnd *rand.Rand, data []byte) ([]byte, []Extent) {
	data = bytes.Clone(data)
	var extents []Extent
	for range rnd.IntN(4) {
		if len(data) == 0 {
			break
		}
		at := rnd.IntN(len(data))
		n := min(1+rnd.IntN(1<<rnd.IntN(20)), len(data)-at)
		for i := range n {
			data[at+i] ^= byte(1 + rnd.IntN(255))
		}
		extents = append(extents, Extent{int64(at), int64(n)})
	}
	switch rnd.IntN(4) {
	case 0:
		data = data[:rnd.IntN(len(data)+1)]
	case 1:
		more := make([]byte, rnd.IntN(3<<20))
		for i := range more {
			more[i] = byte(rnd.Uint32())
		}
		data = append(data, more...)
	}
	rnd.Shuffle(len(extents), func(i, j int) { extents[i], extents[j] = extents[j], extents[i] })
	return data, extents
}

// countedReader tells how much was read.
type countedReader struct {
	io.ReaderAt
	n int64
}

func (r *countedReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	r.n += int64(n)
	return n, err
}

// TestUpdateFile: whatever changed, the chunks are those of the whole file.
func TestUpdateFile(t *testing.T) {
	r := written(t, "none")
	tx, target := begun(t, r)
	rnd := rand.New(rand.NewPCG(3, 3))
	rounds := 10
	if os.Getenv("S4_LONG") != "" {
		rounds = 100
	}
	data := make([]byte, 20<<20)
	rand.NewChaCha8([32]byte{5}).Read(data)
	clear(data[6<<20 : 17<<20]) // chunks of the greatest length, too
	old, err := tx.AddFile(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		next, extents := mutate(rnd, data)
		src := &countedReader{ReaderAt: bytes.NewReader(next)}
		got, err := tx.UpdateFile(t.Context(), old, src, int64(len(next)), extents)
		if err != nil {
			t.Fatal(err)
		}
		want, err := tx.AddFile(t.Context(), bytes.NewReader(next))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %d bytes, %v: %d chunks, want %d", round, len(next), extents, len(got), len(want))
		}
		data, old = next, got
		if len(data) < 8<<20 {
			data = append(data, bytes.Repeat([]byte("text"), 3<<20)...)
			if old, err = tx.AddFile(t.Context(), bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	big := make([]byte, 40<<20)
	rand.NewChaCha8([32]byte{6}).Read(big)
	if old, err = tx.AddFile(t.Context(), bytes.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	big[25<<20]++
	src, puts := &countedReader{ReaderAt: bytes.NewReader(big)}, target.puts
	if _, err := tx.UpdateFile(t.Context(), old, src, int64(len(big)), []Extent{{25 << 20, 1}}); err != nil {
		t.Fatal(err)
	}
	if src.n > 20<<20 || target.puts > puts+4 {
		t.Errorf("a changed byte: %d bytes read, %d objects written", src.n, target.puts-puts)
	}
	if _, err := tx.UpdateFile(t.Context(), old, bytes.NewReader(big[:1<<20]), int64(len(big)), []Extent{{0, 1}}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a shorter file: %v", err)
	}
	// A chunk that the repository lost meanwhile is stored again.
	delete(target.ids, old[0].ID)
	if _, err := tx.UpdateFile(t.Context(), old, bytes.NewReader(big), int64(len(big)), []Extent{{25 << 20, 1}}); err != nil || target.ids[old[0].ID] == 0 {
		t.Errorf("a lost chunk: %v", err)
	}
}

// TestAddFileConcurrent: files that share content, added by many at once, are
// stored once, and can be read.
func TestAddFileConcurrent(t *testing.T) {
	r := written(t, "repokey-blake2")
	tx, target := begun(t, r)
	target.shy = true // like a remote
	big := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{8}).Read(big)
	var wg sync.WaitGroup
	files := make([][]Chunk, 64)
	content := func(i int) []byte {
		if i%8 == 0 {
			return big
		}
		return bytes.Repeat([]byte{byte(i % 20)}, i*500)
	}
	for i := range files {
		wg.Go(func() {
			var err error
			if files[i], err = tx.AddFile(t.Context(), bytes.NewReader(content(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids, puts := map[ID]bool{}, target.puts
	w := tx.NewArchive(ArchiveInfo{Name: "a"})
	for i, chunks := range files {
		it := &Item{Path: fmt.Sprintf("%03d", i), Mode: unix.S_IFREG, Chunks: chunks, Size: int64(len(content(i)))}
		for _, c := range chunks {
			ids[c.ID] = true
		}
		if err := w.Add(t.Context(), it); err != nil {
			t.Fatal(err)
		}
	}
	if puts != len(ids) {
		t.Errorf("%d objects put for %d chunks", puts, len(ids))
	}
	if _, _, err := w.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if _, err := tx.AddFile(t.Context(), strings.NewReader(fmt.Sprint("small ", i))); err != nil {
			t.Fatal(err)
		}
	}
	if target.loads != 1 {
		t.Errorf("the list of objects was asked for %d times", target.loads)
	}
	committed(t, tx)
	for i, chunks := range files {
		var got bytes.Buffer
		if _, err := r.OpenFile(chunks).WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), content(i)) {
			t.Fatalf("file %d: %d bytes, %v", i, got.Len(), err)
		}
	}
}

// TestFailures: a source that cannot be read harms nothing but itself; what could
// not be stored fails the commit; what was rolled back is not there.
func TestFailures(t *testing.T) {
	r := written(t, "repokey")
	before, err := r.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	oops := errors.New("oops")
	tx, target := begun(t, r)
	long := io.MultiReader(bytes.NewReader(make([]byte, 20<<20)), iotest.ErrReader(oops))
	if _, err := tx.AddFile(t.Context(), long); !errors.Is(err, oops) {
		t.Errorf("a source that fails: %v", err)
	}
	if _, err := tx.AddFile(t.Context(), strings.NewReader("fine")); err != nil {
		t.Errorf("after it: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tx.AddFile(ctx, bytes.NewReader(make([]byte, 20<<20))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	target.broken = oops
	if _, err := tx.AddFile(t.Context(), strings.NewReader("lost")); !errors.Is(err, oops) {
		t.Errorf("a repository that fails: %v", err)
	}
	target.broken = nil
	if err := tx.Commit(t.Context()); !errors.Is(err, oops) {
		t.Errorf("commit after it: %v", err)
	}
	if _, err := tx.AddFile(t.Context(), strings.NewReader("late")); err == nil {
		t.Error("something was added after the end")
	}
	if err := tx.Rollback(); err != nil {
		t.Errorf("rollback after commit: %v", err)
	}
	after, err := r.Manifest(t.Context())
	if err != nil || !after.Timestamp.Equal(before.Timestamp) {
		t.Errorf("manifest of %v, was of %v, %v", after.Timestamp, before.Timestamp, err)
	}
	for _, spec := range []string{"zstd,99", "gzip"} {
		if _, err := r.BeginOnDisk(t.Context(), WriteOptions{Compression: spec}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("compression %s: %v", spec, err)
		}
	}
	if _, err := r.Begin(t.Context(), WriteOptions{Compression: "zstd,99"}); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

// TestManifestKept: the timestamp always grows, and what another version of borg
// put into the manifest stays, byte for byte.
func TestManifestKept(t *testing.T) {
	r := written(t, "authenticated")
	tx, _ := begun(t, r)
	future := time.Now().Add(1000 * time.Hour).UTC().Truncate(time.Microsecond)
	tx.draft.Timestamp = future
	tx.draft.fields = append(tx.draft.fields, rawField{"zz_unknown", []byte("\x93\x01\xa3abc\xc0")})
	tx.draft.config = append(tx.draft.config, rawField{"more", []byte("\xcd\x00\x05")})
	committed(t, tx)
	tx, target := begun(t, r)
	model{"a": madeItem("a", unix.S_IFREG, 1, 0)}.whole(t, tx, "one")
	committed(t, tx)
	m, err := r.Manifest(t.Context())
	if err != nil || len(m.Archives) != 1 || !m.Timestamp.After(future.Add(time.Microsecond)) {
		t.Errorf("%+v, %v", m, err)
	}
	stored, err := target.stored(t.Context(), manifestID)
	if err != nil || !bytes.Contains(stored, []byte("\xaazz_unknown\x93\x01\xa3abc\xc0")) || !bytes.Contains(stored, []byte("\xa4more\xcd\x00\x05")) {
		t.Errorf("lost: %q, %v", stored, err)
	}
	tx, _ = begun(t, r)
	tx.draft.config = append(tx.draft.config, rawField{"feature_flags", []byte("\x81\xa5write\x81\xa9mandatory\x91\xa3new")})
	committed(t, tx)
	if _, err := r.BeginOnDisk(t.Context(), WriteOptions{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "new") {
		t.Errorf("a feature needed for writing: %v", err)
	}
	if _, err := r.Manifest(t.Context()); err != nil {
		t.Errorf("but not for reading: %v", err)
	}
}

// TestKeySwapped: a repository that this machine knows by another key mode is not
// written to.
func TestKeySwapped(t *testing.T) {
	r := written(t, "none")
	path, err := r.env("BORG_BASE_DIR")
	if !err {
		t.Fatal("no base directory")
	}
	note := filepath.Join(path, ".config/borg/security", r.ID().String(), "key-type")
	if err := os.WriteFile(note, []byte("3"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.BeginOnDisk(t.Context(), WriteOptions{}); !errors.Is(err, ErrKeyMismatch) {
		t.Error(err)
	}
}
