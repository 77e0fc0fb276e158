package borgio

import (
	"context"
	"iter"
)

// Items streams an archive's items in the archive's order. The yielded Item
// and its slices are overwritten by the next step; its strings, and the values
// of xattrs and ACLs, may be kept. Hard links name an earlier item as their
// source.
//
// Items that are pieces of a file which the archive also has whole are left
// out. An item with an unsafe path is left out too, with a warning in the
// log. An error ends the stream.
func (r *Repository) Items(ctx context.Context, a *Archive) iter.Seq2[*Item, error] {
	return func(yield func(*Item, error) bool) {
		s := r.Scan(ctx, a, nil)
		defer s.Close()
		for s.Next() {
			for s.NextItem() {
				if it := s.Item(); it != nil && !yield(it, nil) {
					return
				}
			}
		}
		if err := s.Err(); err != nil {
			yield(nil, err)
		}
	}
}
