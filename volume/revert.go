package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// SnapshotChanges is [Volume.Snapshot] unless nothing has changed since the
// newest btrfs snapshot; then it returns nil.
func (v *Volume) SnapshotChanges(ctx context.Context, message string) (*SnapshotResult, error) {
	held, err := v.store().List(ctx)
	if err != nil {
		return nil, err
	}
	if len(held) > 0 {
		if err := btrfsvol.Sync(v.Root); err != nil {
			return nil, err
		}
		if same, err := btrfsvol.Untouched(v.Root, v.store().Path(held[len(held)-1].Handle)); err != nil || same {
			return nil, err
		}
	}
	return v.Snapshot(ctx, message)
}

// HeldHere finds the snapshot that when means among the btrfs snapshots, and
// tells where its files are; "" means the newest. Errors: fs.ErrNotExist where
// there is none, or it is at a remote only.
func (v *Volume) HeldHere(ctx context.Context, when string) (s snapshot.Info, dir string, err error) {
	past, err := v.Past(ctx)
	if err != nil {
		return s, "", err
	}
	if err := past.refreshLocal(ctx); err != nil {
		return s, "", err
	}
	if when == "" {
		when = "latest"
	}
	if s, err = past.Resolve(ctx, when); err != nil {
		return s, "", err
	}
	held, err := v.store().List(ctx)
	if err != nil {
		return s, "", err
	}
	here, ok := newest(held, markOf(s).is)
	if !ok {
		return s, "", fmt.Errorf("snapshot %s is not on this host: %w", s.Dir, fs.ErrNotExist)
	}
	return s, v.store().Path(here.Handle), nil
}

// Revert puts one of the volume's btrfs snapshots in its place, in one step, and
// keeps what was there as another. It is for a volume that nobody uses and that
// is not the root of a mount. Errors: those of [Volume.HeldHere];
// snapshot.ErrRefused where it is in use.
func (v *Volume) Revert(ctx context.Context, when string) (to, before snapshot.Info, err error) {
	to, dir, err := v.HeldHere(ctx, when)
	if err != nil {
		return to, before, err
	}
	live, release, ok := v.exchangeable(ctx)
	if !ok {
		return to, before, hint.With(fmt.Errorf("%w: %s is in use", snapshot.ErrRefused, v.Shown), "end its mounts, and s4 replicate")
	}
	defer release()
	next := &stage{live: live, path: stageBeside(live)}
	if err := v.ClearStage(); err != nil {
		return to, before, err
	}
	// Made before what was there is kept, for which the rules may let this one go.
	if err := btrfsvol.Snapshot(dir, next.path, false); err != nil {
		return to, before, fmt.Errorf("make what is to come: %w", err)
	}
	kept, err := v.Snapshot(ctx, "before "+to.Dir+" was brought back")
	if err == nil {
		before = kept.Snapshot
		if err = v.acquire(ctx); err == nil {
			defer v.unlock()
			err = v.exchange(next)
		}
	}
	return to, before, errors.Join(err, next.drop())
}

// ClearStage clears away what a killed Revert or sync has left beside the
// volume, which was opened since.
func (v *Volume) ClearStage() error {
	s := &stage{path: stageBeside(Resolved(v.Shown))}
	if err := s.drop(); err != nil {
		return fmt.Errorf("clear away what was left beside the volume: %w", err)
	}
	return nil
}
