package diff

import (
	"context"
	"iter"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// Trees knows the trees of snapshots, as an index does.
type Trees interface {
	Changes(ctx context.Context, a, b int64) iter.Seq2[index.Change, error]
	Content(ctx context.Context, version int64) ([]snapshot.Extent, error)
}

var _ Trees = (*index.Index)(nil)

// Moments yields how snapshot b differs from snapshot a, for the paths that
// keep accepts; nil accepts all. Between neighbours the work is proportional
// to what changed. An error ends it.
func Moments(ctx context.Context, trees Trees, a, b snapshot.Info, keep func(path string) bool) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for c, err := range trees.Changes(ctx, a.Num, b.Num) {
			if err != nil {
				yield(Change{}, err)
				return
			}
			if keep != nil && !keep(c.Path) {
				continue
			}
			out := Change{Path: c.Path, Old: c.Old, New: c.New}
			if out.What, err = between(ctx, trees, c, a.Source == b.Source); err != nil {
				yield(Change{}, err)
				return
			}
			if out.What != 0 && !yield(out, nil) {
				return
			}
		}
	}
}

func between(ctx context.Context, trees Trees, c index.Change, comparable bool) (What, error) {
	switch {
	case c.Old == nil:
		return Added, nil
	case c.New == nil:
		return Removed, nil
	}
	w := shape(c.Old, c.New)
	if w == Kind {
		return w, nil
	}
	w |= metadata(c.Old, c.New)
	if c.Old.Nlink != c.New.Nlink {
		w |= Links
	}
	if w&Content != 0 || !isRegular(c.New.Mode) || c.New.Size == 0 {
		return w, nil
	}
	if !comparable {
		if w&Time != 0 {
			w |= Content
		}
		return w, nil
	}
	old, err := trees.Content(ctx, c.Old.Version)
	if err != nil {
		return 0, err
	}
	now, err := trees.Content(ctx, c.New.Version)
	if err != nil {
		return 0, err
	}
	switch same, known := snapshot.SameContent(old, now); {
	case known && !same, !known && w&Time != 0:
		w |= Content
	case !known && w == 0 && c.Old.Ctime != c.New.Ctime:
		w |= Unsure
	}
	return w, nil
}
