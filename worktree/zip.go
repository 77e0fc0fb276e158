package worktree

import (
	"context"
	"errors"
	"io/fs"
	"iter"

	"github.com/s4-storage/s4/snapshot"
)

// Tree is a snapshot's tree. Two that are used together number the Versions of
// their entries together, as those of one index do.
type Tree interface {
	// Walk yields the entry at path and everything below it, in the order
	// of [ComparePaths]. Entries come whole, Xattrs included. A missing path
	// is an error that wraps [fs.ErrNotExist], or yields nothing. An error
	// ends the walk.
	Walk(ctx context.Context, path string) iter.Seq2[snapshot.Node, error]
}

// row is what all sides say of one path.
type row struct {
	path   string
	live   *Live
	err    error // why the live tree could not be read here
	target *snapshot.Entry
	base   *snapshot.Entry
	stamp  *Stamp
}

// zip walks the live tree and up to two snapshots together. The stream ends
// with the error of a snapshot's side; the live tree's are in the rows.
func (r *Root) zip(ctx context.Context, o Options, target, base Tree) iter.Seq2[row, error] {
	return func(yield func(row, error) bool) {
		for _, path := range scope(o.Paths) {
			if !r.zipPath(ctx, o, path, target, base, yield) {
				return
			}
		}
	}
}

func (r *Root) zipPath(ctx context.Context, o Options, path string, target, base Tree, yield func(row, error) bool) bool {
	part := o
	part.Paths = []string{path}
	live := pull(r.walk(ctx, part))
	defer live.stop()
	targets := pull(nodes(ctx, target, path, o.Exclude))
	defer targets.stop()
	bases := pull(nodes(ctx, base, path, o.Exclude))
	defer bases.stop()
	stamps := pull(o.stamps(ctx, path))
	defer stamps.stop()
	for {
		if err := errors.Join(targets.err, bases.err, stamps.err, ctx.Err()); err != nil {
			return yield(row{}, err) && false
		}
		at, ok := "", false
		for _, c := range [...]struct {
			path string
			ok   bool
		}{{live.cur.Path, live.ok}, {targets.cur.Path, targets.ok}, {bases.cur.Path, bases.ok}} {
			if c.ok && (!ok || ComparePaths(c.path, at) < 0) {
				at, ok = c.path, true
			}
		}
		if !ok {
			return true
		}
		w := row{path: at}
		if live.ok && live.cur.Path == at {
			if w.err = live.err; w.err == nil {
				l := live.cur
				w.live = &l
			}
			live.step()
		}
		if targets.ok && targets.cur.Path == at {
			e := targets.cur.Entry
			w.target = &e
			targets.step()
		}
		if bases.ok && bases.cur.Path == at {
			e := bases.cur.Entry
			w.base = &e
			bases.step()
		}
		for stamps.ok && stamps.err == nil && ComparePaths(stamps.cur.Path, at) < 0 {
			stamps.step()
		}
		if stamps.ok && stamps.err == nil && stamps.cur.Path == at {
			t := stamps.cur
			w.stamp = &t
		}
		if !yield(w, nil) {
			return false
		}
	}
}

func (o Options) stamps(ctx context.Context, path string) iter.Seq2[Stamp, error] {
	if o.Stamps == nil {
		return func(func(Stamp, error) bool) {}
	}
	return o.Stamps.All(ctx, path)
}

// nodes walks tree at path without what is excluded; a nil tree and a missing
// path are empty.
func nodes(ctx context.Context, tree Tree, path string, exclude func(string, bool) bool) iter.Seq2[snapshot.Node, error] {
	return func(yield func(snapshot.Node, error) bool) {
		if tree == nil {
			return
		}
		hidden := excluder(exclude)
		for n, err := range tree.Walk(ctx, path) {
			if errors.Is(err, fs.ErrNotExist) {
				return
			}
			if err == nil && hidden(n.Path, isDir(n.Mode)) {
				continue
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

// cursor is a sequence taken one by one.
type cursor[T any] struct {
	next func() (T, error, bool)
	stop func()
	cur  T
	err  error
	ok   bool
}

func pull[T any](seq iter.Seq2[T, error]) *cursor[T] {
	c := &cursor[T]{}
	c.next, c.stop = iter.Pull2(seq)
	c.step()
	return c
}

func (c *cursor[T]) step() { c.cur, c.err, c.ok = c.next() }
