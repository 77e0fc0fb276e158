package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/s4-storage/s4/e2e/bench/report"
)

// params say what data is made.
type params = report.Parameters

func defaultParams() params {
	return params{Files: 100_000, Snapshots: 30, Big: 2_000_000_000, Seed: 2026}
}

// How the corpus looks. Sizes are log-normal: half of the files are smaller
// than 3.4 KB, the mean is 12 KB.
const (
	filesPerDir  = 60
	sizeMu       = 8.13
	sizeSigma    = 1.6
	sizeMax      = 64 << 20
	tinyLeast    = 16 // enough that no two tiny files are equal
	tinyMore     = 100
	changedShare = 0.005 // of the files, from one snapshot to the next
	// Of 25 changed files one is new, one deleted, one renamed, the others
	// are written anew.
	changeKinds = 25
)

// file is one file of the corpus at some moment.
type file struct {
	id      uint64 // stays when it is renamed
	version uint64 // counts how often it was written anew
	path    string // below the corpus
	size    int64
}

// change is what happens to one file: from is nil for a new one, to for a
// deleted one.
type change struct{ from, to *file }

// tree is the corpus as a list; it makes no files.
type tree struct {
	seed  uint64
	tiny  bool // no file has more than a few bytes
	files []file
	next  uint64 // id
}

func newTree(p params) *tree {
	t := &tree{seed: p.Seed}
	for range p.Files {
		t.files = append(t.files, t.newFile())
	}
	return t
}

// treeAt is the corpus as snapshot number n holds it.
func treeAt(p params, n int) *tree {
	t := newTree(p)
	for i := range n {
		t.advance(i)
	}
	return t
}

func (t *tree) newFile() file {
	f := file{id: t.next}
	t.next++
	f.path = filepath.Join(dirOf(f.id/filesPerDir), name(f.id))
	f.size = t.sizeOf(f)
	return f
}

// dirOf nests directories two deep, every third one three.
func dirOf(n uint64) string {
	if n%3 == 2 {
		return filepath.Join(dirOf(n-1), "more")
	}
	return fmt.Sprintf("area%03d/topic%02d", n/40, n%40)
}

func name(id uint64) string {
	if isText(id) {
		return fmt.Sprintf("note-%07d.txt", id)
	}
	return fmt.Sprintf("photo-%07d.dat", id)
}

func isText(id uint64) bool { return id%2 == 0 }

func (t *tree) rand(stream, a, b uint64) *rand.Rand {
	return rand.New(rand.NewPCG(t.seed+stream<<32, a<<24+b))
}

// Streams of random numbers that know nothing of each other.
const (
	streamSize = iota
	streamContent
	streamChange
	streamBig
	streamPick
)

func (t *tree) sizeOf(f file) int64 {
	if t.tiny {
		return tinyLeast + int64((f.id*31+f.version*7)%tinyMore)
	}
	x := math.Exp(sizeMu + sizeSigma*t.rand(streamSize, f.id, f.version).NormFloat64())
	return int64(min(x, sizeMax))
}

// advance makes the changes that follow snapshot n.
func (t *tree) advance(n int) []change {
	r := t.rand(streamChange, uint64(n), 0)
	count := max(int(float64(len(t.files))*changedShare), 4)
	changes := make([]change, 0, count)
	seen := map[uint64]bool{}
	for i := 0; i < count; i++ {
		at := r.IntN(len(t.files))
		old := t.files[at]
		kind := i % changeKinds
		if kind > 0 && seen[old.id] {
			i--
			continue
		}
		now := old
		switch kind {
		case 0:
			now = t.newFile()
			t.files = append(t.files, now)
			changes = append(changes, change{to: &now})
		case 1:
			t.files[at] = t.files[len(t.files)-1]
			t.files = t.files[:len(t.files)-1]
			changes = append(changes, change{from: &old})
		case 2:
			now.path = filepath.Join(filepath.Dir(old.path), fmt.Sprintf("renamed%02d-%s", n, name(old.id)))
			t.files[at] = now
			changes = append(changes, change{&old, &now})
		default:
			now.version++
			now.size = t.sizeOf(now)
			t.files[at] = now
			changes = append(changes, change{&old, &now})
		}
		seen[old.id], seen[now.id] = true, true
	}
	return changes
}

// bytes is the size of all files.
func (t *tree) bytes() (sum int64) {
	for _, f := range t.files {
		sum += f.size
	}
	return sum
}

// entries is the number of files and directories, the root among them: what
// find prints lines for.
func (t *tree) entries() int {
	dirs := map[string]bool{}
	for _, f := range t.files {
		for d := filepath.Dir(f.path); !dirs[d]; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	return len(t.files) + len(dirs)
}

// pick gives n different files, at random, with a size between those.
func (t *tree) pick(n int, least, most int64) []file {
	r := t.rand(streamPick, uint64(n), 0)
	var all []file
	for _, i := range r.Perm(len(t.files)) {
		if f := t.files[i]; f.size >= least && f.size <= most {
			if all = append(all, f); len(all) == n {
				break
			}
		}
	}
	return all
}

// content is what is in a file.
func (t *tree) content(f file) []byte {
	b := make([]byte, f.size)
	fill(b, t.rand(streamContent, f.id, f.version), isText(f.id))
	return b
}

// fill writes random bytes, or text that lz4 halves.
func fill(b []byte, r *rand.Rand, text bool) {
	if !text {
		for len(b) >= 8 {
			binary.LittleEndian.PutUint64(b, r.Uint64())
			b = b[8:]
		}
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return
	}
	for len(b) > 0 {
		for x := r.Uint64(); x != 0 && len(b) > 0; x >>= 8 {
			b = b[copy(b, vocabulary[x&0xff]):]
		}
	}
}

// vocabulary is 256 words to make text of.
var vocabulary = makeVocabulary()

func makeVocabulary() (all [256]string) {
	syllables := [16]string{"ar", "be", "con", "dis", "er", "for", "in", "le", "mo", "ni", "ple", "re", "si", "ta", "ver", "wo"}
	for i := range all {
		end := " "
		if i%17 == 0 {
			end = ".\n"
		}
		all[i] = syllables[i&15] + syllables[i>>4] + syllables[(i+i>>4)&15] + end
	}
	return all
}

// write makes all files below dir, which must not have them yet.
func (t *tree) write(dir string) error {
	for _, f := range t.files {
		if err := t.writeFile(dir, f); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) writeFile(dir string, f file) error {
	path := filepath.Join(dir, f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, t.content(f), 0o644)
}

// apply makes changes to the files below dir.
func (t *tree) apply(dir string, changes []change) error {
	for _, c := range changes {
		var err error
		switch {
		case c.to == nil:
			err = os.Remove(filepath.Join(dir, c.from.path))
		case c.from != nil && c.from.version == c.to.version:
			err = os.Rename(filepath.Join(dir, c.from.path), filepath.Join(dir, c.to.path))
		default:
			err = t.writeFile(dir, *c.to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	bigName    = "big.dat"
	bigStretch = 4 << 20 // of text, then of random bytes, and so on
	block      = 1 << 20 // what is read at once
	sampled    = 4 << 10 // of each block is looked at when it comes back
)

// writeBig makes the big file and gives its checksum as [drain] does.
func (t *tree) writeBig(path string, size int64) (uint32, error) {
	out, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	w := bufio.NewWriterSize(out, block)
	read, write := io.Pipe()
	type drained struct {
		sum uint32
		err error
	}
	done := make(chan drained)
	go func() {
		_, sum, err := drain(read)
		done <- drained{sum, err}
	}()
	both := io.MultiWriter(w, write)
	buf := make([]byte, bigStretch)
	r := t.rand(streamBig, 0, 0)
	for left, text := size, true; left > 0 && err == nil; text = !text {
		b := buf[:min(left, bigStretch)]
		fill(b, r, text)
		_, err = both.Write(b)
		left -= int64(len(b))
	}
	write.CloseWithError(err) // nil is the end
	d := <-done
	return d.sum, errors.Join(err, d.err, w.Flush(), out.Close())
}

// drain reads to the end. To cost the tools' cores nothing, the checksum is of
// a small part of each block.
func drain(r io.Reader) (n int64, sum uint32, err error) {
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, block)
	for {
		k, err := io.ReadFull(r, buf)
		n += int64(k)
		sum = crc32.Update(sum, table, buf[:min(k, sampled)])
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return n, sum, nil
		case err != nil:
			return n, sum, err
		}
	}
}
