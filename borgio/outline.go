package borgio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// Outline tells of which sections the item stream of an archive is made that
// this package wrote. With it a further archive is made at the cost of what
// differs: see [Transaction.UpdateArchive]. It holds nothing that could not be
// found out again by [Repository.Outline].
//
// # Where sections end
//
// Such a stream has its items in the order of [ComparePaths], and is cut between
// items: before each whose path has an XXH64 (seed 0) that is a multiple of 512,
// and before one with which the section would exceed 1 MiB. So the cuts near an
// item depend on it and its neighbours only, and what changes in one place
// leaves sections elsewhere the same objects. An item above 1 MiB is a section
// of its own; it alone is cut into several objects, by content.
type Outline struct {
	Archive  ID
	Sections []OutlineSection
}

// OutlineSection is one section of an Outline.
type OutlineSection struct {
	Objects   []ID   // one; several only for a single item that is too large
	First     string // path of the first item
	FirstSize int    // of the first item as it is packed, in bytes
	Items     int
	Bytes     int64 // of all items as they are packed

	sum totals
}

// Files is how many of the archive's items have content of their own; Size is
// the sum of their lengths in bytes.
func (o *Outline) Files() int64 { return o.total().files }

// Size is the length in bytes of all content that the archive lists.
func (o *Outline) Size() int64 { return o.total().size }

func (o *Outline) total() (sum totals) {
	for i := range o.Sections {
		sum.add(o.Sections[i].sum)
	}
	return sum
}

// Items is how many items the archive has.
func (o *Outline) Items() (n int) {
	for i := range o.Sections {
		n += o.Sections[i].Items
	}
	return n
}

const (
	// maxSection is the length in bytes that only a section of one item exceeds.
	maxSection = 1 << 20
	// cutMask has the bits that are zero where a section begins.
	cutMask = 512 - 1
)

// beginsSection reports whether a section is cut before an item of that path,
// whatever is around it.
func beginsSection(path string) bool { return xxhash.Sum64String(path)&cutMask == 0 }

// find gives the number of the section in whose range a path is: the last one
// that begins at it or before, and the first for what is before all.
func (o *Outline) find(path string) int {
	n := sort.Search(len(o.Sections), func(i int) bool { return ComparePaths(o.Sections[i].First, path) > 0 })
	return max(n-1, 0)
}

// objects lists the item stream.
func (o *Outline) objects() []ID {
	ids := make([]ID, 0, len(o.Sections))
	for i := range o.Sections {
		ids = append(ids, o.Sections[i].Objects...)
	}
	return ids
}

// ErrNoOutline says that an archive's item stream is cut otherwise than this
// package cuts them, or in another order, as stock borg does. The first archive
// after it must be written whole.
var ErrNoOutline = errors.New("archive was not cut into sections")

// Outline finds out of which sections an archive is made, by reading all of its
// items. Errors: [ErrNoOutline], and those of [Repository.Items].
func (r *Repository) Outline(ctx context.Context, a *Archive) (*Outline, error) {
	o := &Outline{Archive: a.ID}
	var open OutlineSection // what the section before ends with, as our own cuts have it
	last := ""
	s := r.Scan(ctx, a, nil)
	defer s.Close()
	for s.Next() {
		section := OutlineSection{}
		for s.NextItem() {
			it := s.Item()
			if it == nil && s.Err() == nil {
				return nil, fmt.Errorf("archive %s: %w: it has an item that none should have", a.Name, ErrNoOutline)
			} else if it == nil {
				break
			}
			size := len(s.Raw())
			if (len(o.Sections) > 0 || section.Items > 0) && ComparePaths(last, it.Path) >= 0 {
				return nil, fmt.Errorf("archive %s: %w: %q is behind %q", a.Name, ErrNoOutline, it.Path, last)
			}
			if first := section.Items == 0; first != open.endsBefore(it.Path, size) {
				return nil, fmt.Errorf("archive %s: %w: it is not cut before %q as it should", a.Name, ErrNoOutline, it.Path)
			}
			section.add(it.Path, size, totalsOf(it))
			open, last = section, it.Path
		}
		if section.Items > 0 { // none: an item that began before has ended with the object
			section.Objects = slices.Clone(s.Section().Objects)
			o.Sections = append(o.Sections, section)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if !slices.Equal(o.objects(), a.Items) {
		return nil, fmt.Errorf("archive %s: %w: items reach over its cuts", a.Name, ErrNoOutline)
	}
	return o, nil
}

// endsBefore reports whether a section is cut before a next item. An empty one
// always is: there the stream begins.
func (s *OutlineSection) endsBefore(path string, size int) bool {
	return s.Items == 0 || s.Bytes+int64(size) > maxSection || beginsSection(path)
}

// add counts an item.
func (s *OutlineSection) add(path string, size int, sum totals) {
	if s.Items == 0 {
		s.First, s.FirstSize = path, size
	}
	s.Items++
	s.Bytes += int64(size)
	s.sum.add(sum)
}

// An Outline is encoded as
//
//	"S4OUT\x01" · archive [32] · number of sections, then for each
//	  number of objects · their ids [32] · length that First has in common with
//	  the First before · length of the rest · the rest · FirstSize · Items ·
//	  Bytes · files · size · stored
//	XXH64 of all that u64
//
// with numbers as unsigned varints, the last one big-endian.
const outlineMagic = "S4OUT\x01"

// minEncodedSection is how many bytes a section takes at least.
const minEncodedSection = 1 + 32 + 8

// Append appends the outline's encoding to b, about 100 bytes for each section.
func (o *Outline) Append(b []byte) []byte {
	start := len(b)
	b = append(append(b, outlineMagic...), o.Archive[:]...)
	b = binary.AppendUvarint(b, uint64(len(o.Sections)))
	last := ""
	for i := range o.Sections {
		s := &o.Sections[i]
		b = binary.AppendUvarint(b, uint64(len(s.Objects)))
		for _, id := range s.Objects {
			b = append(b, id[:]...)
		}
		common := 0
		for common < min(len(last), len(s.First)) && last[common] == s.First[common] {
			common++
		}
		b = binary.AppendUvarint(b, uint64(common))
		b = binary.AppendUvarint(b, uint64(len(s.First)-common))
		b = append(b, s.First[common:]...)
		for _, n := range []int64{int64(s.FirstSize), int64(s.Items), s.Bytes, s.sum.files, s.sum.size, s.sum.stored} {
			b = binary.AppendUvarint(b, uint64(n))
		}
		last = s.First
	}
	return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b[start:]))
}

const (
	// maxOutlinePath bounds a path in bytes, and outlinePaths all paths: paths
	// with much in common must not take far more memory than the encoding.
	maxOutlinePath = 64 << 10
	outlinePaths   = 128 // times the encoding's length, and maxOutlinePath
)

var errOutline = errors.New("not an archive's outline, or a damaged one")

// ParseOutline reads what [Outline.Append] writes. For n bytes it takes at most
// 160 n + 128 KiB of memory.
func ParseOutline(b []byte) (*Outline, error) {
	if len(b) < len(outlineMagic)+32+8 || string(b[:len(outlineMagic)]) != outlineMagic {
		return nil, errOutline
	}
	b, sum := b[:len(b)-8], binary.BigEndian.Uint64(b[len(b)-8:])
	if xxhash.Sum64(b) != sum {
		return nil, errOutline
	}
	d := outlineDecoder{b: b[len(outlineMagic):]}
	o := &Outline{}
	copy(o.Archive[:], d.bytes(32))
	n := d.number(uint64(len(d.b) / minEncodedSection))
	o.Sections = make([]OutlineSection, 0, n)
	last, paths := "", outlinePaths*len(b)+maxOutlinePath
	for range n {
		var s OutlineSection
		objects := d.number(uint64(len(d.b) / 32))
		for range objects {
			s.Objects = append(s.Objects, ID(d.bytes(32)))
		}
		common := d.number(uint64(len(last)))
		rest := d.bytes(d.number(uint64(min(len(d.b), maxOutlinePath-common))))
		s.First = last[:common] + string(rest)
		s.FirstSize, s.Items = d.number(maxItemSize), d.number(maxItemSize)
		s.Bytes = int64(d.number(1 << 40))
		s.sum = totals{int64(d.number(1 << 40)), int64(d.number(1 << 62)), int64(d.number(1 << 62))}
		if paths -= len(s.First); d.bad || paths < 0 || objects == 0 || s.Items == 0 || len(o.Sections) > 0 && ComparePaths(last, s.First) >= 0 {
			return nil, errOutline
		}
		o.Sections = append(o.Sections, s)
		last = s.First
	}
	if d.bad || len(d.b) > 0 {
		return nil, errOutline
	}
	return o, nil
}

// outlineDecoder gives zeros once anything was wrong.
type outlineDecoder struct {
	b   []byte
	bad bool
}

func (d *outlineDecoder) number(most uint64) int {
	n, size := binary.Uvarint(d.b)
	if d.bad || size <= 0 || n > most {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[size:]
	return int(n)
}

func (d *outlineDecoder) bytes(n int) []byte {
	if n > len(d.b) || d.bad {
		d.bad, d.b = true, nil
		return make([]byte, n)
	}
	part := d.b[:n:n]
	d.b = d.b[n:]
	return bytes.Clone(part)
}
