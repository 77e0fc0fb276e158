package index

import (
	"context"

	"github.com/s4-storage/s4/snapshot"
)

// merger compares two trees by walking both side by side. It holds one page of
// each for every level.
type merger struct {
	x         *Index
	a, b      int64
	oneSource bool // the two are of one source, which tells the same of equal entries
	yield     func(Change) bool
}

func (m *merger) run(ctx context.Context) error {
	old, err := m.x.Root(ctx, m.a)
	if err != nil {
		return err
	}
	now, err := m.x.Root(ctx, m.b)
	if err != nil {
		return err
	}
	return m.pair(ctx, "", &old, &now)
}

// pair compares what stands at one path, and what lies below it.
func (m *merger) pair(ctx context.Context, path string, old, now *snapshot.Entry) error {
	differ := old == nil || now == nil
	if !differ && old.Version != now.Version {
		equal, err := m.equal(ctx, old, now)
		if err != nil {
			return err
		}
		differ = !equal
	}
	if differ && !m.yield(Change{path, old, now}) {
		return errStopped
	}
	var left, right lister
	if old != nil && old.Dir != 0 {
		left = lister{x: m.x, num: m.a, dir: old.Dir}
	} else {
		left.ended = true
	}
	if now != nil && now.Dir != 0 {
		right = lister{x: m.x, num: m.b, dir: now.Dir}
	} else {
		right.ended = true
	}
	if left.ended && right.ended {
		return nil
	}
	return m.children(ctx, path, &left, &right)
}

func (m *merger) children(ctx context.Context, path string, left, right *lister) error {
	l, haveL, err := left.next(ctx)
	if err != nil {
		return err
	}
	r, haveR, err := right.next(ctx)
	if err != nil {
		return err
	}
	for haveL || haveR {
		old, now := l, r // pair may hand out pointers to them
		onlyL := haveL && (!haveR || l.Name < r.Name)
		onlyR := haveR && (!haveL || r.Name < l.Name)
		switch {
		case onlyL:
			err = m.pair(ctx, joinPath(path, l.Name), &old, nil)
		case onlyR:
			err = m.pair(ctx, joinPath(path, r.Name), nil, &now)
		default:
			err = m.pair(ctx, joinPath(path, l.Name), &old, &now)
		}
		if err != nil {
			return err
		}
		if !onlyR {
			if l, haveL, err = left.next(ctx); err != nil {
				return err
			}
		}
		if !onlyL {
			if r, haveR, err = right.next(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *merger) equal(ctx context.Context, old, now *snapshot.Entry) (equal bool, err error) {
	err = m.x.reading(ctx, func(c *conn) error {
		a, err := m.x.rowOf(c, old.Version)
		if err != nil {
			return err
		}
		b, err := m.x.rowOf(c, now.Version)
		if err != nil {
			return err
		}
		if a != nil && b != nil {
			equal = m.oneSource && a.equal(b) || !m.oneSource && snapshot.Alike(&a.entry, &b.entry)
		}
		return nil
	})
	return equal, err
}
