package dockerplugin

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A fill that failed is tried again by itself after retryFirst, then after
// twice as long each time up to retryMost, and at once when somebody mounts.
const (
	retryFirst = 5 * time.Second
	retryMost  = 5 * time.Minute
)

// fill is one that goes on in the background.
type fill struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when it goes on no more: done, or cancelled
	retry  chan struct{} // asks for the next attempt at once

	mu       sync.Mutex
	progress Progress
	err      error         // why the last attempt failed
	failed   chan struct{} // closed when this attempt fails
}

// startFill begins or carries on with a fill.
func (d *Driver) startFill(r *record) {
	ctx, cancel := context.WithCancel(d.ctx)
	f := &fill{cancel: cancel, ended: make(chan struct{}), retry: make(chan struct{}, 1), failed: make(chan struct{})}
	d.mu.Lock()
	d.fills[r.Name] = f
	d.mu.Unlock()
	d.tasks.Go(func() {
		defer close(f.ended)
		defer cancel()
		d.fill(ctx, r, f)
	})
}

// stopFill ends a volume's fill, if it has one, and waits until it has ended.
func (d *Driver) stopFill(name string) {
	d.mu.Lock()
	f := d.fills[name]
	delete(d.fills, name)
	d.mu.Unlock()
	if f != nil {
		f.cancel()
		<-f.ended
	}
}

func (d *Driver) fill(ctx context.Context, r *record, f *fill) {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		start := time.Now()
		err := d.backend.Fill(ctx, d.volume(r), f.report)
		if err == nil {
			err = d.filled(ctx, r.Name)
		}
		if err == nil {
			d.log.Info("volume filled", "volume", r.Name, "took", time.Since(start))
			return
		}
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("volume not filled yet", "volume", r.Name, "err", err, "again_in", pause)
		f.fail(err)
		select {
		case <-time.After(pause):
		case <-f.retry:
		case <-ctx.Done():
			return
		}
	}
}

// filled makes a volume one for use.
func (d *Driver) filled(ctx context.Context, name string) error {
	r, unlock, err := d.take(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.backend.Unmount(ctx, d.volume(r)); err != nil {
		return err
	}
	if err := d.save(r.in(ready)); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.fills, name)
	d.mu.Unlock()
	return nil
}

func (f *fill) report(p Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress = p
}

func (f *fill) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	close(f.failed)
	f.failed = make(chan struct{})
}

// waitFilled waits until a volume has its content. It fails when bringing it
// does, and when that takes too long.
func (d *Driver) waitFilled(ctx context.Context, name string) error {
	d.mu.Lock()
	f := d.fills[name]
	d.mu.Unlock()
	if f == nil {
		return nil
	}
	f.mu.Lock()
	failed := f.failed
	f.mu.Unlock()
	select {
	case f.retry <- struct{}{}:
	default:
	}
	enough := time.NewTimer(d.wait)
	defer enough.Stop()
	select {
	case <-f.ended:
		return d.ctx.Err()
	case <-failed:
		f.mu.Lock()
		defer f.mu.Unlock()
		return fmt.Errorf("volume %s is not filled yet (%s): %w", name, f.progress, f.err)
	case <-enough.C:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Errorf("volume %s is being filled from its remote (%s); that goes on, so try again later", name, f.progress)
}

// stateText is a volume's state, and how far a fill is.
func (d *Driver) stateText(r *record) string {
	d.mu.Lock()
	f := d.fills[r.Name]
	d.mu.Unlock()
	if r.State != filling || f == nil {
		return string(r.State)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	text := fmt.Sprintf("%s (%s)", filling, f.progress)
	if f.err != nil {
		text += ", last failed: " + oneLine(f.err)
	}
	return text
}
