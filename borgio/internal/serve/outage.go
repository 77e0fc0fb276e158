package serve

import (
	"context"
	"errors"
	"time"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

const (
	minBackoff = 200 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// outage is what is known of a remote that cannot be reached, or that breaks
// every connection. The zero value is a remote that is well.
type outage struct {
	since   time.Time // when it began, zero once a renewal succeeded
	retryAt time.Time // no connection is tried before this
	backoff time.Duration
	failure error // the last one
}

// failed notes that a connection could not be made or broke, and when it had
// last been well. The first time, another one may be made at once.
func (o *outage) failed(err error, well time.Time) {
	if o.since.IsZero() || well.Before(o.since) {
		o.since = well
	}
	o.failure, o.retryAt = err, time.Now().Add(o.backoff)
	o.backoff = min(max(2*o.backoff, minBackoff), maxBackoff)
}

// broke notes once that a reader came to an end while it was needed.
func (s *Client) broke(rd *reader, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rd.over {
		return
	}
	rd.over = true
	if s.reader == rd {
		s.reader = nil
	}
	s.outage.failed(err, rd.lastHeard())
}

// answered notes that a reader did what it is for. A renewal alone proves
// little: the server may die of every call that follows.
func (s *Client) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = outage{}
}

// again waits until it makes sense to try again after err; it gives the error
// to report when it does not: when the remote has been out of reach, or the
// caller's own tries have failed, for the time limit. since is when the first
// of these failed; it is again's to set.
func (s *Client) again(ctx context.Context, err error, since *time.Time) error {
	if ctx.Err() != nil || !errors.Is(err, fault.ErrUnreachable) || errors.Is(err, fault.ErrHostKey) {
		return err
	}
	s.mu.Lock()
	begun, wait := s.outage.since, time.Until(s.outage.retryAt)
	s.mu.Unlock()
	if begun.IsZero() {
		begun = time.Now()
	}
	if since.IsZero() || begun.Before(*since) {
		*since = begun
	}
	if time.Since(*since) > s.timeout {
		return err
	}
	s.log.Debug("connection is lost, trying again", "error", err)
	t := time.NewTimer(max(wait, 0) + minBackoff/10)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return fault.ErrClosed
	}
}
