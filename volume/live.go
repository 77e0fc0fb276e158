package volume

import (
	"context"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

var _ query.LiveTree = (*Volume)(nil)

// Base implements query.LiveTree.
func (v *Volume) Base(ctx context.Context) (snapshot.Info, error) {
	past, err := v.Past(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	base, ok, err := v.base(ctx, past)
	if err == nil && !ok {
		err = hint.With(fmt.Errorf("nothing is pushed yet, so there is nothing to compare with: %w", fs.ErrNotExist),
			"see what there is with: s4 status")
	}
	return base, err
}

// Against implements query.LiveTree.
func (v *Volume) Against(ctx context.Context, s snapshot.Info) (*query.Live, error) {
	past, err := v.Past(ctx)
	if err != nil {
		return nil, err
	}
	root, o, done, err := v.worktree(ctx)
	if err != nil {
		return nil, err
	}
	t := tree{past: past, s: s}
	if err := hideOwn(ctx, t, &o); err != nil {
		done()
		return nil, err
	}
	same := liveContent{root: root, tree: sync.OnceValues(func() (tree, error) { return past.withContent(ctx, s) }), volume: v}
	return &query.Live{Root: root, Options: o, Tree: t, Same: same.equal, Close: done}, nil
}

// Has tells whether there is something at path in the live tree.
func (v *Volume) Has(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(v.Root+"/"+path, &st) == nil
}

// liveContent compares live files with a snapshot's, whose repository is
// reached only when that is needed.
type liveContent struct {
	root   *worktree.Root
	tree   func() (tree, error)
	volume *Volume
}

func (l liveContent) equal(ctx context.Context, live *worktree.Live, e *snapshot.Entry) (same, ok bool) {
	t, err := l.tree()
	if err == nil {
		same, err = l.root.Holds(ctx, t, live, e)
	}
	if err != nil {
		l.volume.log.Info("compare content", "path", live.Path, "error", err)
	}
	return same, err == nil
}
