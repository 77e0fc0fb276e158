package diff

import (
	"context"
	"iter"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// Same tells whether the live file at path has the content of the snapshot's
// entry. ok is false where that cannot be found out.
type Same func(ctx context.Context, live *worktree.Live, e *snapshot.Entry) (same, ok bool)

// Live yields how the live tree differs from a snapshot's. Same is asked only
// where nothing else tells. What cannot be read is yielded as an error with
// Change.Path set, and the comparison goes on.
func Live(ctx context.Context, root *worktree.Root, tree worktree.Tree, o worktree.Options, same Same) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for c, err := range root.Compare(ctx, tree, o) {
			out := Change{Path: c.Path, Old: c.Old}
			if err == nil && c.Kind != worktree.DirTime {
				err = liveChange(ctx, root, &c, same, &out)
			}
			if err != nil && !yield(Change{Path: c.Path}, err) {
				return
			}
			if err == nil && out.What != 0 && !yield(out, nil) {
				return
			}
		}
	}
}

func liveChange(ctx context.Context, root *worktree.Root, c *worktree.Change, same Same, out *Change) error {
	if c.New == nil {
		out.What = Removed
		return nil
	}
	now := c.New.Entry
	out.New = &now
	if c.Old == nil {
		out.What = Added
		return nil
	}
	if out.What = shape(c.Old, &now); out.What == Kind {
		return nil
	}
	var err error
	if now.Xattrs, err = root.Xattrs(c.Path); err != nil {
		return err
	}
	out.What |= metadata(worktree.AsOnDisk(c.New, c.Old), &now)
	touched := c.Kind == worktree.Touched || out.What&Time != 0
	if out.What&Content != 0 || !isRegular(now.Mode) || !touched {
		return nil
	}
	switch equal, ok := same(ctx, c.New, c.Old); {
	case !ok:
		out.What |= Unsure
	case !equal:
		out.What |= Content
	}
	return ctx.Err()
}
