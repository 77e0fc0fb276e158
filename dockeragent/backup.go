package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Backup stores a docker volume at its remote, as the s4 volume of the same
// name.
type Backup interface {
	Push(ctx context.Context, volume Volume) (Result, error)
}

// Prober is a [Backup] that can tell beforehand that a push would fail, such
// as with a remote out of reach. It is asked before any service is held.
type Prober interface {
	Probe(ctx context.Context, volume Volume) error
}

// Pruner is a [Backup] that can remove from the remote what the volume's Keep lets
// go. It is asked once a day at most, after a good backup, when nothing is held.
type Pruner interface {
	Prune(ctx context.Context, volume Volume) (Pruned, error)
}

// Pruned is what pruning did.
type Pruned struct {
	Snapshots int   // that were removed
	Freed     int64 // bytes, as far as known
}

// Result is what a push did.
type Result struct {
	Snapshot string `json:"snapshot"` // its name
	Files    int64  `json:"files"`
	Size     int64  `json:"size"`  // bytes in the volume's files
	Added    int64  `json:"added"` // bytes added to the repository
}

// ErrHeldTooLong ends a backup that would have kept services down longer than
// is allowed.
var ErrHeldTooLong = errors.New("services would be down for too long")

// panicError is a panic of a Backup.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("the backup panicked: %v", e.value) }

// backUp makes one backup of a volume; held tells whether services were paused
// or stopped for it. However it ends, they run again when it does.
func (a *Agent) backUp(ctx context.Context, v Volume) (r Result, wasHeld bool, err error) {
	empty, err := isEmpty(ctx, v.Path, v.Exclude)
	switch {
	case err != nil:
		return r, false, err
	case empty:
		return r, false, ErrEmpty
	}
	if p, ok := a.backup.(Prober); ok {
		if err := p.Probe(ctx, v); err != nil {
			return r, false, err
		}
	}
	if err := dump(ctx, a.holder.engine, v); err != nil {
		return r, false, err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tooLong := fmt.Errorf("%w: more than %v", ErrHeldTooLong, a.maxHold)
	holdCtx, stop := context.WithTimeoutCause(ctx, a.maxHold, tooLong)
	limit := time.Now().Add(a.maxHold)
	h, err := a.holder.hold(holdCtx, v)
	stop()
	if err != nil {
		return r, true, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
		err = errors.Join(err, h.release(ctx))
	}()
	v.Captured = func() {}
	if wasHeld = len(h.list) > 0; wasHeld {
		timer := time.AfterFunc(time.Until(limit), func() {
			cancel(tooLong)
			_ = h.release(ctx) // the one above gives the error
		})
		defer timer.Stop()
		v.Captured = func() {
			timer.Stop()
			_ = h.release(ctx)
		}
	}
	r, err = a.backup.Push(ctx, v)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrHeldTooLong) {
		err = cause
	}
	return r, wasHeld, err
}

// prune has old snapshots of a volume removed.
func (a *Agent) prune(ctx context.Context, v Volume) (r Pruned, err error) {
	p, ok := a.backup.(Pruner)
	if !ok {
		return r, fmt.Errorf("%s: %w here", LabelKeep, errors.ErrUnsupported)
	}
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	return p.Prune(ctx, v)
}
