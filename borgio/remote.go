package borgio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// remoteStore gets objects from "borg serve". The server holds a shared lock
// as long as a session is open, which keeps every writer out; a session
// without the lock is no way out, since the server may then write a stale
// index without it. So a session ends when it was idle for a moment, and in
// any case after a while, so that a waiting writer gets in; the next call
// makes a new one. Under the lock nothing changes: a session is always fresh.
type remoteStore struct {
	loc      Location
	command  command
	log      *slog.Logger
	pool     *bufferPool
	timeout  time.Duration
	lockWait time.Duration
	id       ID

	slots *semaphore.Weighted // calls under way, see remoteInFlight

	ctx    context.Context // ends at close
	cancel context.CancelFunc
	work   sync.WaitGroup // of everything that owns a session

	mu      sync.Mutex // guards what follows
	dialing *dial      // the session in use, or being made; nil: none
	alive   time.Time  // when a session answered last
	retryAt time.Time  // no connection is tried before this
	backoff time.Duration
	failure error // of the last try
	closed  bool
}

// dial is one session from its making to its end.
type dial struct {
	ready   chan struct{} // closed once session or err is set
	session *session
	id      ID
	err     error
}

const (
	remoteInFlight = 64 // calls under way at once
	sessionIdle    = time.Second
	sessionHold    = 10 * time.Second
	sessionTick    = 100 * time.Millisecond
	shutPatience   = 5 * time.Second
	minBackoff     = 200 * time.Millisecond
	maxBackoff     = 5 * time.Second
)

// openRemote connects once, to learn the repository's id.
func openRemote(ctx context.Context, loc Location, opts Options, pool *bufferPool) (*remoteStore, error) {
	cmd, err := serveCommand(loc, opts.Environ)
	if err != nil {
		return nil, err
	}
	s := &remoteStore{
		loc: loc, command: cmd, log: opts.Logger, pool: pool,
		timeout: opts.Timeout, lockWait: opts.LockWait,
		slots: semaphore.NewWeighted(remoteInFlight),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	d, err := s.connect(ctx)
	if err != nil {
		_ = s.close() // the first error tells more
		return nil, err
	}
	d.session.release()
	s.id = d.id
	return s, nil
}

// connect gives the present session, or makes one; several callers share it.
// The caller holds the session until it releases it.
func (s *remoteStore) connect(ctx context.Context) (*dial, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, ErrClosed
		}
		if s.dialing == nil {
			if time.Now().Before(s.retryAt) {
				defer s.mu.Unlock()
				return nil, s.failure
			}
			d := &dial{ready: make(chan struct{})}
			s.dialing = d
			s.work.Go(func() { s.own(d) })
		}
		d := s.dialing
		s.mu.Unlock()
		select {
		case <-d.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if d.err != nil {
			return nil, d.err
		}
		if d.session.acquire() {
			return d, nil
		}
		// It is on its way out. A fresh one follows once its lock is free.
		select {
		case <-d.session.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		s.forget(d)
	}
}

func (s *remoteStore) forget(d *dial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dialing == d {
		s.dialing = nil
	}
}

// own makes a session, watches over it and ends it.
func (s *remoteStore) own(d *dial) {
	defer s.forget(d)
	d.session, d.id, d.err = s.dial()
	s.mu.Lock()
	if d.err != nil {
		s.backoff = min(max(2*s.backoff, minBackoff), maxBackoff)
		s.retryAt, s.failure = time.Now().Add(s.backoff), d.err
		if s.dialing == d {
			s.dialing = nil
		}
	} else {
		s.backoff, s.alive = 0, time.Now()
	}
	s.mu.Unlock()
	close(d.ready)
	if d.err != nil {
		return
	}
	tick := time.NewTicker(sessionTick)
	defer tick.Stop()
	for {
		select {
		case <-d.session.done:
			return
		case <-s.ctx.Done():
			d.session.shut(sessionIdle)
			return
		case <-tick.C:
		}
		if d.session.silence() > s.timeout {
			d.session.end(fmt.Errorf("%w: no answer for %v", ErrUnreachable, s.timeout))
			d.session.kill()
		} else if d.session.retire(sessionIdle, sessionHold) {
			d.session.shut(shutPatience)
		}
	}
}

// dial starts the program and opens the repository.
func (s *remoteStore) dial() (*session, ID, error) {
	sess, err := startSession(s.command.argv, childEnvironment(), s.command.detached, s.pool, s.log)
	if err != nil {
		return nil, ID{}, err
	}
	limit := s.timeout / 2
	if s.command.interactive {
		limit = max(limit, 2*time.Minute) // somebody may be typing a password
	}
	err = s.within(limit, sess, func(ctx context.Context) error { return negotiate(ctx, sess) })
	var id ID
	if err == nil {
		err = s.within(s.timeout+s.lockWait, sess, func(ctx context.Context) (err error) {
			id, err = openOnServer(ctx, sess, s.loc.Path, s.lockWait)
			return err
		})
	}
	if err == nil && s.id != (ID{}) && id != s.id {
		err = fmt.Errorf("%w: %s was replaced by another repository", ErrNotRepository, s.loc)
	}
	if err != nil {
		sess.shut(sessionIdle)
		return nil, id, err
	}
	return sess, id, nil
}

// within runs fn with a time limit, whose passing means that the remote is
// out of reach.
func (s *remoteStore) within(limit time.Duration, sess *session, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	err := fn(ctx)
	switch {
	case s.ctx.Err() != nil && err != nil:
		return ErrClosed
	case errors.Is(err, context.DeadlineExceeded):
		said := oneLine(sess.stderr.String())
		if said != "" {
			said = ": " + said
		}
		return fmt.Errorf("%w: no answer for %v%s", ErrUnreachable, limit, said)
	}
	return err
}

// negotiate agrees on the protocol of Borg 1.1 and later.
func negotiate(ctx context.Context, sess *session) error {
	data := msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "client_version")
	data = msgpack.AppendArray(data, 4)
	for _, v := range []int64{1, 2, 4, -1} {
		data = msgpack.AppendInt(data, v)
	}
	rep, frame, err := sess.call(ctx, "negotiate", arg{"client_data", data})
	if err != nil {
		return err
	}
	defer frame.release()
	major, minor, err := serverVersion(rep.result)
	if err != nil {
		return err
	}
	if major != 1 || minor < 1 {
		return fmt.Errorf("%w: the server runs borg %d.%d", ErrUnsupported, major, minor)
	}
	return nil
}

func serverVersion(result []byte) (major, minor int64, err error) {
	r := msgpack.NewReader(result)
	if r.Peek() == msgpack.Int { // what borg 1.0 answers
		return 1, 0, nil
	}
	err = r.Fields(func(field []byte) error {
		if string(field) != "server_version" {
			return r.Skip()
		}
		n, err := r.Array()
		if err != nil {
			return err
		}
		for i := range n {
			v, err := r.Int()
			if err != nil {
				return err
			}
			switch i {
			case 0:
				major = v
			case 1:
				minor = v
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("%w: the server's version makes no sense: %w", ErrUnsupported, err)
	}
	return major, minor, nil
}

// openOnServer opens the repository under a shared lock.
func openOnServer(ctx context.Context, sess *session, path string, lockWait time.Duration) (id ID, err error) {
	wait := msgpack.AppendInt(nil, int64(max(lockWait.Round(time.Second)/time.Second, 1)))
	rep, frame, err := sess.call(ctx, "open",
		arg{"path", msgpack.AppendBytes(nil, path)},
		arg{"create", msgpack.AppendBool(nil, false)},
		arg{"lock_wait", wait},
		arg{"lock", msgpack.AppendBool(nil, true)},
		arg{"exclusive", msgpack.AppendBool(nil, false)},
		arg{"append_only", msgpack.AppendBool(nil, false)},
		arg{"make_parent_dirs", msgpack.AppendBool(nil, false)},
	)
	if err != nil {
		return id, err
	}
	defer frame.release()
	if err := readID(msgpack.NewReader(rep.result), &id); err != nil {
		return id, fmt.Errorf("%w: the server's answer makes no sense: %w", ErrUnsupported, err)
	}
	return id, nil
}

// call makes a call on the present session, and makes it anew on another one
// when the connection breaks, until nothing was heard for the time limit.
func (s *remoteStore) call(ctx context.Context, method string, args ...arg) (reply, *buffer, error) {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return reply{}, nil, err
	}
	defer s.slots.Release(1)
	for {
		d, err := s.connect(ctx)
		if err == nil {
			var rep reply
			var frame *buffer
			rep, frame, err = d.session.call(ctx, method, args...)
			d.session.release()
			if _, answered := errors.AsType[*remoteError](err); err == nil || answered {
				s.mu.Lock()
				s.alive = time.Now()
				s.mu.Unlock()
				return rep, frame, err
			}
		}
		if ctx.Err() != nil || !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrHostKey) {
			return reply{}, nil, err
		}
		s.mu.Lock()
		lost, wait := time.Since(s.alive) > s.timeout, time.Until(s.retryAt)
		s.mu.Unlock()
		if lost {
			return reply{}, nil, err
		}
		s.log.Debug("connection is lost, trying again", "error", err)
		t := time.NewTimer(max(wait, 0) + minBackoff/10)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return reply{}, nil, ctx.Err()
		case <-s.ctx.Done():
			t.Stop()
			return reply{}, nil, ErrClosed
		}
	}
}

func (s *remoteStore) get(ctx context.Context, id ID, _ int) (*buffer, error) {
	rep, frame, err := s.call(ctx, "get", arg{"id", msgpack.AppendBytes(nil, id[:])})
	if re, ok := errors.AsType[*remoteError](err); ok {
		switch re.class {
		case "ObjectNotFound", "Repository.ObjectNotFound":
			return nil, damaged(id, "lookup", "no such object: %w", fs.ErrNotExist)
		case "IntegrityError":
			return nil, &IntegrityError{Object: id, What: "segment entry", Err: err}
		}
	}
	if err != nil {
		return nil, err
	}
	data, err := msgpack.NewReader(rep.result).Bytes()
	if err != nil {
		frame.release()
		return nil, &IntegrityError{Object: id, What: "answer", Err: err}
	}
	frame.data = data
	return frame, nil
}

// refresh has nothing to do: a session sees all that was committed before it,
// and nothing is committed during it.
func (s *remoteStore) refresh(context.Context) (uint64, error) { return 0, nil }

func (s *remoteStore) loadKey(ctx context.Context) (string, error) {
	rep, frame, err := s.call(ctx, "load_key")
	if err != nil {
		return "", err
	}
	defer frame.release()
	r := msgpack.NewReader(rep.result)
	return optionalString(r)
}

func (s *remoteStore) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	return nil
}
