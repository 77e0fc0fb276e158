package serve

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// reader is a session without a lock, which knows the repository as it was
// when the session was opened.
type reader struct {
	*session
	manifest []byte    // as it is stored
	opened   time.Time // all that was committed before this is known
	over     bool      // nobody is to use it any more; guarded by Client.mu
}

// renewal is one look at the repository under a guard's lock, from its start
// until the lock is given back. Whoever joins meanwhile learns the present.
type renewal struct {
	ready    chan struct{} // closed once what follows is set
	manifest []byte
	reader   *reader // that knows the manifest
	err      error
}

// renew has the manifest read anew, and the reader replaced where it does not
// fit. It joins a renewal that is under way.
func (s *Client) renew(ctx context.Context) (*renewal, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fault.ErrClosed
	}
	r := s.renewing
	if r == nil {
		if time.Now().Before(s.outage.retryAt) {
			defer s.mu.Unlock()
			return nil, s.outage.failure
		}
		r = s.startRenewal(0)
	}
	s.mu.Unlock()
	return r, r.wait(ctx)
}

func (r *renewal) wait(ctx context.Context) error {
	select {
	case <-r.ready:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startRenewal needs s.mu. The guard stays for linger.
func (s *Client) startRenewal(linger time.Duration) *renewal {
	r := &renewal{ready: make(chan struct{})}
	s.renewing = r
	s.work.Go(func() { s.run(r, linger) })
	return r
}

// run owns a renewal.
func (s *Client) run(r *renewal, linger time.Duration) {
	begun := time.Now()
	l, err := s.settle()
	s.mu.Lock()
	s.renewing = nil
	if err != nil {
		r.err = err
		s.outage.failed(err, begun)
	} else {
		r.manifest, r.reader = l.manifest, l.reader
		s.id, s.outage.since = l.id, time.Time{}
		if linger > 0 {
			s.held = l
		}
	}
	s.mu.Unlock()
	close(r.ready)
	if err != nil {
		return
	}
	if linger > 0 {
		t := time.NewTimer(linger)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
		}
		s.mu.Lock()
		s.held = nil
		s.mu.Unlock()
	}
	l.guard.shut(shutPatience)
}

// endGuard ends the guard that Open left, if it is still there: a writer of ours
// would wait for its lock.
func (s *Client) endGuard() {
	s.mu.Lock()
	l := s.held
	s.held = nil
	s.mu.Unlock()
	if l != nil {
		l.guard.shut(shutPatience)
	}
}

// settle looks at the repository and sees to a reader that knows the manifest.
func (s *Client) settle() (*look, error) {
	for {
		s.mu.Lock()
		old := s.reader
		s.mu.Unlock()
		l, err := s.look(old == nil)
		switch {
		case err != nil:
			return nil, err
		case l.reader != nil:
			s.mu.Lock()
			s.reader = l.reader
			s.mu.Unlock()
			s.work.Go(func() { s.watch(l.reader) })
			return l, nil
		case bytes.Equal(l.manifest, old.manifest):
			l.reader = old
			return l, nil
		}
		// The guard is not kept waiting while another session logs in.
		l.guard.shut(shutPatience)
		s.retire(old)
	}
}

// retire takes a reader out of use. Calls under way on it may still succeed;
// those on the one before it are over, so that no more than two are ever left.
func (s *Client) retire(rd *reader) {
	s.mu.Lock()
	var over *reader
	rd.over = true
	if s.reader == rd {
		s.reader, s.leaving, over = nil, rd, s.leaving
	}
	s.mu.Unlock()
	rd.leave()
	if over != nil {
		over.end(fmt.Errorf("%w: session was replaced", fault.ErrUnreachable))
	}
}

// watch ends a reader when it is silent, or when nobody has used it for long.
func (s *Client) watch(rd *reader) {
	tick := time.NewTicker(sessionTick)
	defer tick.Stop()
	for {
		select {
		case <-rd.done:
			s.forget(rd)
			return
		case <-s.ctx.Done():
			rd.shut(failPatience)
			return
		case <-tick.C:
		}
		if rd.isClaimed() {
			return
		}
		// Half of the limit is left to make the connection anew.
		if limit := s.timeout / 2; rd.silence() > limit {
			rd.end(fmt.Errorf("%w: no answer for %v", fault.ErrUnreachable, limit))
			rd.kill()
		} else if rd.retire(readerIdle) {
			s.forget(rd)
			rd.shut(shutPatience)
		}
	}
}

func (s *Client) forget(rd *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == rd {
		s.reader = nil
	}
	if s.leaving == rd {
		s.leaving = nil
	}
}
