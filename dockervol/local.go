package dockervol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/image"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// A volume without a remote has its past on this host alone: btrfs snapshots in
// its image, which a push makes elsewhere.

// snapshotEvery is how often one is taken where the volume changes, unless told
// otherwise.
const snapshotEvery = time.Hour

// snapshots takes them until ctx ends.
func (k *keeper) snapshots(ctx context.Context) error {
	every := k.v.Options.Interval
	if every == 0 {
		every = snapshotEvery
	}
	for {
		if err := k.b.snapshot(ctx, k.v); err != nil {
			return err
		}
		if !wait(ctx, every) {
			return nil
		}
	}
}

// snapshot takes one if the volume has changed since the last.
func (b *Backend) snapshot(ctx context.Context, v dockerplugin.Volume) error {
	if err := b.settle(v); err != nil {
		return err
	}
	own, err := volume.Open(liveDir(v), b.access)
	if err != nil {
		return err
	}
	defer own.Close()
	_, err = own.SnapshotChanges(ctx, "")
	return err
}

// restoringPath is a file that is there while a volume is brought back.
func restoringPath(v dockerplugin.Volume) string { return filepath.Join(v.Dir, "restoring") }

// Restore has a snapshot in the image change places with the live tree.
func (b *Backend) Restore(ctx context.Context, v dockerplugin.Volume, when string) (r dockerplugin.Restored, err error) {
	if err := b.endRestore(ctx, v); err != nil {
		return r, err
	}
	if err := atomicfile.Write(restoringPath(v), nil, 0o600); err != nil {
		return r, err
	}
	err = b.apart(ctx, v, func(own *volume.Volume) error {
		to, before, err := own.Revert(ctx, when)
		r = dockerplugin.Restored{To: to.Dir, Before: before.Dir}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = hint.With(err, "docker volume inspect "+v.Name+" tells how many snapshots there are")
	}
	return r, errors.Join(err, b.endRestore(context.WithoutCancel(ctx), v))
}

// endRestore finishes a restore that was killed, or is as good as over.
func (b *Backend) endRestore(ctx context.Context, v dockerplugin.Volume) error {
	if _, err := os.Lstat(restoringPath(v)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// To open it is to complete it.
	if err := b.apart(ctx, v, (*volume.Volume).ClearStage); err != nil {
		return err
	}
	return os.Remove(restoringPath(v))
}

// apart opens the live tree where it is no mount of its own.
func (b *Backend) apart(ctx context.Context, v dockerplugin.Volume, do func(*volume.Volume) error) error {
	return record(v, liveDir(v)).WithTop(ctx, b.log, func(top string) error {
		own, err := volume.Open(filepath.Join(top, image.Subvolume), b.access)
		if err != nil {
			return err
		}
		defer own.Close()
		return do(own)
	})
}

// sourceDir is where the volume is mounted once more that another is filled from.
func sourceDir(v dockerplugin.Volume) string { return filepath.Join(v.Dir, "source") }

// copyFrom fills a volume from a snapshot of another one on this host. What an
// interrupted copy has left is thrown away.
func (b *Backend) copyFrom(ctx context.Context, v dockerplugin.Volume) (err error) {
	if none, err := empty(liveDir(v)); err != nil {
		return err
	} else if !none {
		if err := b.anew(ctx, v); err != nil {
			return err
		}
	}
	at := sourceDir(v)
	if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	source := record(dockerplugin.Volume{Dir: v.Source}, at)
	err = source.Attach(ctx, b.log)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no docker volume %s any more to fill %s from: %w", v.Options.Volume, v.Name, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Unmount(context.WithoutCancel(ctx), at)) }()
	own, err := volume.Open(at, b.access)
	if err != nil {
		return err
	}
	defer own.Close()
	_, from, err := own.HeldHere(ctx, v.Options.From)
	if err != nil {
		return err
	}
	if err := image.CopyTree(ctx, from, liveDir(v)); err != nil {
		return err
	}
	// It is a volume of its own, without the other's identity.
	if err := os.RemoveAll(filepath.Join(liveDir(v), volume.Dir)); err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.Chtimes(liveDir(v), time.Time{}, info.ModTime())
}

// Resize changes the size of the volume's image while it is used.
func (b *Backend) Resize(ctx context.Context, v dockerplugin.Volume, size string) error {
	to, err := loop.ParseTarget(size)
	if err != nil {
		return fmt.Errorf("%w: %w", snapshot.ErrUsage, err)
	}
	if err := b.attach(ctx, v, liveDir(v)); err != nil {
		return err
	}
	_, err = loop.Resize(ctx, liveDir(v), to, loop.ResizeOptions{Log: b.log})
	if _, ok := errors.AsType[*loop.TooSmallError](err); ok {
		return hint.With(fmt.Errorf("%w: %w", snapshot.ErrRefused, err), "the smallest that is safe: s4 docker resize "+v.Name+" min")
	}
	if _, ok := errors.AsType[*loop.HostFullError](err); ok {
		return hint.With(fmt.Errorf("%w: %w", snapshot.ErrRefused, err), "the largest there is room for: s4 docker resize "+v.Name+" max")
	}
	return err
}
