package diff

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"iter"
	"strings"

	"github.com/s4-storage/s4/snapshot"
)

// maxRenames is the number of changes up to which renames are looked for: all
// are held in memory meanwhile.
const maxRenames = 20_000

// Alike gives what files of equal content have in common; ok is false for
// those that are not to be taken for renamed.
type Alike func(ctx context.Context, e *snapshot.Entry) (key uint64, ok bool, err error)

// ByExtents takes files of equal extents for equal, or by time where these have
// no names; for two snapshots of one source.
func ByExtents(trees Trees) Alike {
	seed := maphash.MakeSeed()
	return func(ctx context.Context, e *snapshot.Entry) (uint64, bool, error) {
		extents, err := trees.Content(ctx, e.Version)
		if err == nil && len(extents) == 0 {
			return ByTime(ctx, e)
		}
		var h maphash.Hash
		h.SetSeed(seed)
		for _, x := range extents {
			_, _ = h.Write(x.ID[:]) // never fails
		}
		return h.Sum64(), !e.Damaged, err
	}
}

// ByTime takes files of equal size and mtime for equal, to the nanosecond.
func ByTime(_ context.Context, e *snapshot.Entry) (uint64, bool, error) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(e.Size))
	binary.LittleEndian.PutUint64(b[8:], uint64(e.Mtime))
	return maphash.Bytes(timeSeed, b[:]), true, nil
}

var timeSeed = maphash.MakeSeed()

// Renames joins a removed and an added regular file of equal content to one
// change at the new path, those of one name first. Beyond 20,000 changes it
// looks for none.
func Renames(ctx context.Context, changes iter.Seq2[Change, error], alike Alike) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		var held []result
		pass := false
		for c, err := range changes {
			if !pass {
				if held = append(held, result{c, err}); len(held) <= maxRenames {
					continue
				}
				pass = true
				for _, r := range held {
					if !yield(r.Change, r.err) {
						return
					}
				}
				held = nil
				continue
			}
			if !yield(c, err) {
				return
			}
		}
		if err := join(ctx, held, alike); err != nil {
			yield(Change{}, err)
			return
		}
		for _, r := range held {
			if (r.What != 0 || r.err != nil) && !yield(r.Change, r.err) {
				return
			}
		}
	}
}

type result struct {
	Change
	err error
}

// join finds the pairs; the removed one of a pair is left without What.
func join(ctx context.Context, all []result, alike Alike) error {
	removed, added := 0, 0
	for i := range all {
		switch {
		case candidate(all[i].Old) && all[i].What == Removed:
			removed++
		case candidate(all[i].New) && all[i].What == Added:
			added++
		}
	}
	if removed == 0 || added == 0 {
		return nil
	}
	gone := map[uint64][]*Change{}
	for i := range all {
		if c := &all[i].Change; c.What == Removed && candidate(c.Old) {
			key, ok, err := alike(ctx, c.Old)
			if err != nil {
				return err
			}
			if ok {
				gone[key] = append(gone[key], c)
			}
		}
	}
	var rest []*Change
	keys := map[*Change]uint64{}
	for i := range all {
		c := &all[i].Change
		if c.What != Added || !candidate(c.New) {
			continue
		}
		key, ok, err := alike(ctx, c.New)
		if err != nil {
			return err
		}
		if !ok || pair(c, gone[key], base(c.Path)) {
			continue
		}
		keys[c] = key
		rest = append(rest, c)
	}
	for _, c := range rest {
		pair(c, gone[keys[c]], "")
	}
	return nil
}

// pair makes c a rename of the first that is left and, if name is not "",
// called so.
func pair(c *Change, gone []*Change, name string) bool {
	for _, g := range gone {
		if g.What == 0 || g.Old.Size != c.New.Size || name != "" && base(g.Path) != name {
			continue
		}
		c.From, c.Old = g.Path, g.Old
		c.What = Renamed | metadata(g.Old, c.New)
		g.What = 0
		return true
	}
	return false
}

func candidate(e *snapshot.Entry) bool { return e != nil && isRegular(e.Mode) && e.Size > 0 }

func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
