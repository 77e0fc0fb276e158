package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/s4-storage/s4/snapshot"
)

// What the engine has no call for, and s4 itself asks for (see [Client]).

// atRest is a volume that nobody uses, locked until unlock is called. Errors:
// snapshot.ErrRefused where it is in use or filling; fs.ErrNotExist.
func (d *Driver) atRest(ctx context.Context, name string) (v Volume, unlock func(), err error) {
	r, unlock, err := d.take(ctx, name)
	if err != nil {
		return Volume{}, nil, err
	}
	switch {
	case r.State != ready:
		err = fmt.Errorf("%w: volume %s is being filled", snapshot.ErrRefused, name)
	case len(r.Mounts) > 0:
		err = fmt.Errorf("%w: volume %s is in use", snapshot.ErrRefused, name)
	default:
		err = d.backend.Unmount(ctx, d.volume(r)) // it may be mounted without need
	}
	if err != nil {
		unlock()
		return Volume{}, nil, err
	}
	return d.volume(r), unlock, nil
}

// Exchange lets two volumes change their contents; their names, options and
// who refers to them stay. One that is in use or filling is refused
// (snapshot.ErrRefused). Errors: fs.ErrNotExist, and the backend's.
func (d *Driver) Exchange(ctx context.Context, one, two string) error {
	if one == two {
		return fmt.Errorf("%w: volume %s with itself", snapshot.ErrUsage, one)
	}
	names := []string{one, two}
	slices.Sort(names) // two of these never wait for each other
	var volumes []Volume
	for _, name := range names {
		v, unlock, err := d.atRest(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
		volumes = append(volumes, v)
	}
	return d.backend.Exchange(ctx, volumes[0], volumes[1])
}

// Restore brings a volume back to a snapshot that it has on this host, and tells
// which that is and under which its state before is kept. One that is in use or
// filling is refused (snapshot.ErrRefused). Errors: fs.ErrNotExist, and the
// backend's.
func (d *Driver) Restore(ctx context.Context, name, when string) (Restored, error) {
	v, unlock, err := d.atRest(ctx, name)
	if err != nil {
		return Restored{}, err
	}
	defer unlock()
	return d.backend.Restore(ctx, v, when)
}

// Resize changes a volume's size while it is used: to 20G, or as the backend
// reads it. Errors: fs.ErrNotExist; snapshot.ErrRefused while it is filling; the
// backend's.
func (d *Driver) Resize(ctx context.Context, name, size string) error {
	r, unlock, err := d.take(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if r.State != ready {
		return fmt.Errorf("%w: volume %s is being filled", snapshot.ErrRefused, name)
	}
	err = d.backend.Resize(ctx, d.volume(r), size)
	if len(r.Mounts) == 0 {
		err = errors.Join(err, d.backend.Unmount(context.WithoutCancel(ctx), d.volume(r)))
	}
	return err
}
