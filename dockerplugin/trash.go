package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// trashTime begins the name of a directory in the trash. It has no more than
// seconds; the name of one more in the same second goes on with a number.
const trashTime = "2006-01-02T15-04-05Z"

// toTrash moves a volume's directory, as removed at that time.
func (d *Driver) toTrash(r *record, at time.Time) error {
	stamp := at.UTC().Format(trashTime)
	for n := 1; ; n++ {
		name := stamp + "." + r.Name
		if n > 1 {
			name = fmt.Sprintf("%s_%d.%s", stamp, n, r.Name)
		}
		// A directory with something in it is not replaced.
		err := os.Rename(d.dirOf(r.Name), filepath.Join(d.trashDir(), name))
		if err == nil {
			select {
			case d.removed <- struct{}{}:
			default:
			}
		}
		if !errors.Is(err, fs.ErrExist) || n == 100 {
			return err
		}
	}
}

// emptyTrash deletes what was removed long ago: now, once a day, and whenever
// something comes to it.
func (d *Driver) emptyTrash(ctx context.Context) {
	for {
		if err := d.purge(ctx, time.Now()); err != nil && ctx.Err() == nil {
			d.log.Error("the trash was not emptied", "err", err)
		}
		select {
		case <-time.After(24 * time.Hour):
		case <-d.removed:
		case <-ctx.Done():
			return
		}
	}
}

// purge deletes what was removed before the time to keep it.
func (d *Driver) purge(ctx context.Context, now time.Time) error {
	entries, err := os.ReadDir(d.trashDir())
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if len(e.Name()) < len(trashTime) {
			continue // not ours
		}
		removed, err := time.Parse(trashTime, e.Name()[:len(trashTime)])
		if err != nil || now.Sub(removed) < d.keep {
			continue
		}
		v := Volume{Dir: filepath.Join(d.trashDir(), e.Name())}
		if r, err := readRecord(v.Dir); err == nil {
			v.Name, v.Options = r.Name, r.options
		}
		if err := d.destroy(ctx, v); err != nil {
			failed = append(failed, err)
			continue
		}
		d.log.Info("deleted a removed volume for good", "dir", v.Dir)
	}
	return errors.Join(failed...)
}

// destroy deletes a volume for good.
func (d *Driver) destroy(ctx context.Context, v Volume) error {
	if err := d.backend.Delete(ctx, v); err != nil {
		return err
	}
	// What is mounted there may be anything.
	at, err := mountedBelow(v.Dir)
	if err != nil {
		return err
	}
	if at != "" {
		return fmt.Errorf("delete %s: still mounted: %s", v.Dir, at)
	}
	return os.RemoveAll(v.Dir)
}
