package dockervol

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// Fill clones the volume from its remote, where an interrupted clone is carried
// on, or copies it from another on this host.
func (b *Backend) Fill(ctx context.Context, v dockerplugin.Volume, report func(dockerplugin.Progress)) error {
	if err := b.attach(ctx, v, liveDir(v)); err != nil {
		return err
	}
	if v.Source != "" {
		return b.growing(ctx, v, b.copyFrom)
	}
	return b.growing(ctx, v, func(ctx context.Context, v dockerplugin.Volume) error { return b.fill(ctx, v, report) })
}

// growing does something with a volume that is mounted for nobody yet, while it
// grows as it needs to.
func (b *Backend) growing(ctx context.Context, v dockerplugin.Volume, do func(context.Context, dockerplugin.Volume) error) error {
	aside, cancel := context.WithCancel(ctx)
	var growing sync.WaitGroup
	growing.Go(func() { b.grow(aside, v, lookForRoomToFill, func(string) {}) })
	defer growing.Wait()
	defer cancel()
	return do(ctx, v)
}

func (b *Backend) fill(ctx context.Context, v dockerplugin.Volume, report func(dockerplugin.Progress)) error {
	done, err := b.filled(v)
	if err != nil || done {
		return err
	}
	from, err := b.repository(ctx, v)
	if err != nil {
		return err
	}
	err = b.clone(ctx, v, from, report)
	if errors.Is(err, snapshot.ErrRefused) {
		// It was interrupted before it had said what it brings, so nothing
		// of it is here.
		if done, errHere := b.filled(v); errHere != nil || done {
			return errors.Join(err, errHere)
		}
		if err := b.anew(ctx, v); err != nil {
			return err
		}
		err = b.clone(ctx, v, from, report)
	}
	return err
}

// filled tells whether a clone has ended well, and completes what comes after.
func (b *Backend) filled(v dockerplugin.Volume) (bool, error) {
	none, err := empty(liveDir(v))
	if none || err != nil {
		return false, err
	}
	own, err := volume.Open(liveDir(v), b.access)
	if err != nil {
		return false, err
	}
	defer own.Close()
	if !own.Arrived() {
		return false, nil
	}
	return true, b.settle(v)
}

func (b *Backend) clone(ctx context.Context, v dockerplugin.Volume, from borgio.Location, report func(dockerplugin.Progress)) error {
	r := b.reporter(v)
	r.Progress = func(p volume.Progress) { report(dockerplugin.Progress{Done: p.Bytes, Total: p.TotalBytes}) }
	result, err := volume.Clone(ctx, volume.CloneOptions{URL: from.String(), Dir: liveDir(v), Name: nameOf(v),
		At: v.Options.From, Onward: true, Report: r}, b.access)
	if result != nil && errors.Is(err, snapshot.ErrDamaged) {
		// What is lost at the remote does not come by trying again.
		if done, errHere := b.filled(v); done && errHere == nil {
			b.log.Error("the volume is filled but for what is damaged at the remote", "volume", v.Name, "err", err)
			return nil
		}
	}
	return err
}

// anew makes the volume's image anew, for want of anything in it.
func (b *Backend) anew(ctx context.Context, v dockerplugin.Volume) error {
	if err := b.unmount(ctx, v); err != nil {
		return err
	}
	if err := os.Remove(imagePath(v)); err != nil {
		return fmt.Errorf("begin anew: %w", err)
	}
	if err := b.makeImage(ctx, v); err != nil {
		return err
	}
	return b.attach(ctx, v, liveDir(v))
}
