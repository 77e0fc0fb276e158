package dockerplugin

import (
	"context"
	"errors"
	"maps"
)

// recover takes up each volume where the last driver left it. Calls for a
// volume wait until that has been done, others do not.
func (d *Driver) recover() {
	for name, r := range maps.Clone(d.records) { // what is taken up changes there
		// Nobody else knows the lock yet.
		unlock, err := d.volumes.lock(d.ctx, name)
		if err != nil {
			return
		}
		d.background(func(ctx context.Context) {
			defer unlock()
			if err := d.takeUp(ctx, r); err != nil && !errors.Is(err, context.Canceled) {
				d.log.Error("a volume was not taken up as it was left", "volume", name, "err", err)
			}
		})
	}
}

func (d *Driver) takeUp(ctx context.Context, r *record) error {
	if r.State == creating {
		return d.undo(ctx, r)
	}
	if r.State == filling {
		d.startFill(r)
		return nil
	}
	if len(r.Mounts) > 0 && r.Boot != d.boot {
		// With the host all containers ended.
		r = r.unmounted()
		if err := d.save(r); err != nil {
			return err
		}
	}
	if len(r.Mounts) == 0 {
		return d.backend.Unmount(ctx, d.volume(r))
	}
	// Containers have it. That it is mounted still is made sure of.
	at, err := d.backend.Mount(ctx, d.volume(r))
	if err == nil && at != r.Mountpoint {
		err = d.save(r.with(r.Mounts[0], at, d.boot))
	}
	return err
}
