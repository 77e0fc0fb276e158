package fusefs

import (
	"context"
	"sync"
	"time"
)

// limited is a context that ends with errTooSlow at a deadline, too. A timer and
// a goroutine that watch for the end are there once somebody asks for it: most
// reads never wait for anything, and these cost more than the rest of a read.
type limited struct {
	context.Context // the caller's
	deadline        time.Time

	watched sync.Once
	inner   context.Context
	cancel  context.CancelFunc
}

func (l *limited) watch() context.Context {
	l.watched.Do(func() {
		l.inner, l.cancel = context.WithDeadlineCause(l.Context, l.deadline, errTooSlow)
	})
	return l.inner
}

func (l *limited) Deadline() (time.Time, bool) { return l.deadline, true }
func (l *limited) Done() <-chan struct{}       { return l.watch().Done() }
func (l *limited) Err() error                  { return l.watch().Err() }

// Value serves context.Cause, too.
func (l *limited) Value(key any) any { return l.watch().Value(key) }

// stop ends the context, for those as well who ask for its end only then.
func (l *limited) stop() {
	l.watched.Do(func() { l.inner, l.cancel = context.WithCancel(context.Background()) })
	l.cancel()
}
