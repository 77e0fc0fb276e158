package archive

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/worktree"
)

// Retry adds to what btrfs tells the paths that could not be read when the base was
// made, with all below them: the base has them as they were at some time before, if
// at all, so that to know what has changed since is not enough. What can still not be
// looked at is reported to left.
func Retry(ctx context.Context, root *worktree.Root, changed iter.Seq2[Changed, error], unread []string,
	exclude func(string, bool) bool, left func(path string, err error),
) iter.Seq2[Changed, error] {
	if len(unread) == 0 {
		return changed
	}
	return func(yield func(Changed, error) bool) {
		found := map[string]Changed{}
		o := worktree.Options{Paths: unread, Exclude: exclude, Attributes: func() bool { return true }}
		for l, err := range root.Walk(ctx, o) {
			switch {
			case ctx.Err() != nil:
				yield(Changed{}, ctx.Err())
				return
			case err != nil:
				left(l.Path, err)
			case !isSocket(l.Mode):
				found[l.Path] = Changed{Path: itemPath(l.Path), Live: &l}
			}
		}
		for c, err := range changed {
			if err != nil {
				yield(c, err)
				return
			}
			if c.From != "" && isOrBelow(c.From, unread) {
				c.From, c.Extents = "", nil
			}
			found[livePath(c.Path)] = c
		}
		all := make([]Changed, 0, len(found))
		for _, c := range found {
			all = append(all, c)
		}
		slices.SortFunc(all, func(x, y Changed) int { return borgio.ComparePaths(x.Path, y.Path) })
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func isOrBelow(path string, any []string) bool {
	return slices.ContainsFunc(any, func(u string) bool { return path == u || strings.HasPrefix(path, u+"/") })
}
