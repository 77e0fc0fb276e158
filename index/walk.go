package index

import (
	"context"
	"iter"

	"github.com/s4-storage/s4/snapshot"
)

// walkPage is how many entries a walk reads at once. A walk holds one page for
// every level of the tree, and no connection between two steps.
const walkPage = 256

// Walk gives the entry at path and all below it: depth first, parents before
// their children, names bytewise. An error ends it.
func (x *Index) Walk(ctx context.Context, num int64, path string) iter.Seq2[snapshot.Node, error] {
	return func(yield func(snapshot.Node, error) bool) {
		e, err := x.Find(ctx, num, path)
		if err != nil {
			yield(snapshot.Node{}, err)
			return
		}
		if !yield(snapshot.Node{Path: path, Entry: e}, nil) || e.Dir == 0 {
			return
		}
		stack := []*lister{{x: x, num: num, dir: e.Dir, path: path}}
		for len(stack) > 0 {
			top := stack[len(stack)-1]
			e, ok, err := top.next(ctx)
			if err != nil {
				yield(snapshot.Node{}, err)
				return
			}
			if !ok {
				stack = stack[:len(stack)-1]
				continue
			}
			at := joinPath(top.path, e.Name)
			if !yield(snapshot.Node{Path: at, Entry: e}, nil) {
				return
			}
			if e.Dir != 0 {
				stack = append(stack, &lister{x: x, num: num, dir: e.Dir, path: at})
			}
		}
	}
}

// lister goes through one directory, page by page.
type lister struct {
	x        *Index
	num, dir int64
	path     string

	page  []snapshot.Entry
	after string
	ended bool
}

// next gives the next entry; ok is false after the last.
func (l *lister) next(ctx context.Context) (e snapshot.Entry, ok bool, err error) {
	if len(l.page) == 0 && !l.ended {
		l.page, err = l.x.List(ctx, l.num, l.dir, l.after, walkPage)
		if err != nil {
			return e, false, err
		}
		if l.ended = len(l.page) < walkPage; len(l.page) > 0 {
			l.after = l.page[len(l.page)-1].Name
		}
	}
	if len(l.page) == 0 {
		return e, false, nil
	}
	e, l.page = l.page[0], l.page[1:]
	return e, true, nil
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
