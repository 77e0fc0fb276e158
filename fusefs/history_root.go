package fusefs

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// mountRoot says what a repository mount shows at its root. The history
// beside a live tree has none.
type mountRoot struct {
	follow bool          // the newest snapshot, whichever that is
	fixed  snapshot.Info // else this one
}

func newMountRoot(ctx context.Context, o *Options, l *line) (mountRoot, error) {
	r := mountRoot{follow: o.Follow}
	switch {
	case o.Snapshot != nil:
		r.follow, r.fixed = false, *o.Snapshot
	case !o.Follow:
		m, err := l.get(ctx)
		if err != nil {
			return r, err
		}
		newest, ok := m.newestIndexed()
		if !ok {
			return r, fmt.Errorf("no snapshot to mount: %w", fs.ErrNotExist)
		}
		r.fixed = newest
	}
	return r, nil
}

// current gives the snapshot at the root; its Num is 0 while there is none.
func (r *mountRoot) current(ctx context.Context, l *line) (snapshot.Info, error) {
	if !r.follow {
		return r.fixed, nil
	}
	m, err := l.get(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	newest, _ := m.newestIndexed()
	return newest, nil
}

// keep is how long what the root directory says holds.
func (r *mountRoot) keep() time.Duration {
	if r.follow {
		return briefly
	}
	return forever
}
