package borgio

import (
	"context"
	"runtime"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/serve"
)

// fetcher gives the i-th object of a stream, and what it is expected to weigh
// in bytes before it is there.
type fetcher struct {
	count  int
	weight func(i int) int64
	fetch  func(ctx context.Context, i int) (*buffer.Buffer, error)
}

// readahead gives a stream's objects in order, while it fetches the next ones
// in parallel. It belongs to one goroutine. The object that is waited for is
// fetched in any case; those after it only as far as the repository's budget
// for reading ahead goes, so that many streams together stay within it. An
// object that weighs more than was expected, and more than the budget has left,
// is dropped and fetched again when its turn comes.
type readahead struct {
	repo   *Repository
	source fetcher
	width  int // objects under way at most
	ctx    context.Context
	cancel context.CancelFunc
	detach func() bool // from the repository's end
	next   int         // to be started
	queue  []*future
}

type future struct {
	number int
	ready  chan struct{}
	buf    *buffer.Buffer
	err    error
	budget int64 // what to give back
	heavy  bool  // it was dropped
}

// newReadahead starts nothing yet; close must be called.
func (r *Repository) newReadahead(ctx context.Context, source fetcher) *readahead {
	a := &readahead{repo: r, source: source, width: max(2*runtime.GOMAXPROCS(0), 8)}
	if _, remote := r.store.(remoteStore); remote {
		a.width = serve.InFlight // hide the round trips
	}
	a.ctx, a.cancel = context.WithCancel(ctx)
	a.detach = context.AfterFunc(r.ctx, a.cancel)
	return a
}

// get gives the next object, nil at the end; the reference is the caller's.
func (a *readahead) get() (*buffer.Buffer, error) {
	a.fill()
	if len(a.queue) == 0 {
		return nil, nil
	}
	f := a.queue[0]
	a.queue = a.queue[1:]
	<-f.ready
	a.repo.ahead.Release(f.budget)
	a.fill() // with what that gave back, while the caller is busy with f
	if f.heavy {
		f.buf, f.err = a.source.fetch(a.ctx, f.number)
	}
	if f.err != nil && a.repo.ctx.Err() != nil {
		return nil, ErrClosed
	}
	return f.buf, f.err
}

func (a *readahead) fill() {
	for a.next < a.source.count && len(a.queue) < a.width {
		f := &future{number: a.next, ready: make(chan struct{})}
		first := len(a.queue) == 0
		if !first {
			f.budget = min(a.source.weight(a.next), aheadBytes)
			if !a.repo.ahead.TryAcquire(f.budget) {
				return
			}
		}
		a.next++
		a.queue = append(a.queue, f)
		run := func(context.Context) {
			defer close(f.ready)
			f.buf, f.err = a.source.fetch(a.ctx, f.number)
			if !first && f.buf != nil {
				a.weigh(f)
			}
		}
		if !a.repo.start(run) {
			f.err = ErrClosed
			close(f.ready)
		}
	}
}

// weigh makes an object that was fetched ahead count for what it is.
func (a *readahead) weigh(f *future) {
	more := int64(len(f.buf.Data)) - f.budget
	switch {
	case more <= 0:
		a.repo.ahead.Release(-more)
		f.budget += more
	case a.repo.ahead.TryAcquire(more):
		f.budget += more
	default:
		f.buf.Release()
		f.buf, f.heavy = nil, true
	}
}

// close waits for what is under way and gives it back.
func (a *readahead) close() {
	a.detach()
	a.cancel()
	for _, f := range a.queue {
		<-f.ready
		a.repo.ahead.Release(f.budget)
		if f.buf != nil {
			f.buf.Release()
		}
	}
	a.queue = nil
}
