package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Client gets objects from "borg serve". The server holds a shared lock
// as long as a session is open, which keeps every writer out; a session
// without the lock is no way out, since the server may then write a stale
// index without it. So a session ends when it was idle for a moment, and in
// any case after a while, so that a waiting writer gets in; the next call
// makes a new one. Under the lock nothing changes: a session is always fresh.
type Client struct {
	path     string // of the repository, there
	name     string // of the repository, for messages
	command  command
	log      *slog.Logger
	pool     *buffer.Pool
	timeout  time.Duration
	lockWait time.Duration
	id       [32]byte

	slots *semaphore.Weighted // calls under way, see InFlight

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
	id      [32]byte
	err     error
}

// InFlight is how many calls are under way at once at most.
const InFlight = 64

const (
	sessionIdle  = time.Second
	sessionHold  = 10 * time.Second
	sessionTick  = 100 * time.Millisecond
	shutPatience = 5 * time.Second
	minBackoff   = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// Options say where a repository is and how long to wait for it.
type Options struct {
	User, Host string
	Port       int    // 0: ssh's own
	Path       string // as the server resolves it
	Name       string // for messages
	Environ    func(string) (string, bool)
	Logger     *slog.Logger
	Timeout    time.Duration // longest silence while an answer is due
	LockWait   time.Duration
}

// Open connects once, to learn the repository's id. What is fetched lies in
// the pool's buffers.
func Open(ctx context.Context, o Options, pool *buffer.Pool) (*Client, error) {
	cmd, err := serveCommand(o)
	if err != nil {
		return nil, err
	}
	s := &Client{
		path: o.Path, name: o.Name, command: cmd, log: o.Logger, pool: pool,
		timeout: o.Timeout, lockWait: o.LockWait,
		slots: semaphore.NewWeighted(InFlight),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	d, err := s.connect(ctx)
	if err != nil {
		s.Close() // the first error tells more
		return nil, err
	}
	d.session.release()
	s.id = d.id
	return s, nil
}

// ID is the repository's id.
func (s *Client) ID() [32]byte { return s.id }

// connect gives the present session, or makes one; several callers share it.
// The caller holds the session until it releases it.
func (s *Client) connect(ctx context.Context) (*dial, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, fault.ErrClosed
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

func (s *Client) forget(d *dial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dialing == d {
		s.dialing = nil
	}
}

// own makes a session, watches over it and ends it.
func (s *Client) own(d *dial) {
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
			d.session.end(fmt.Errorf("%w: no answer for %v", fault.ErrUnreachable, s.timeout))
			d.session.kill()
		} else if d.session.retire(sessionIdle, sessionHold) {
			d.session.shut(shutPatience)
		}
	}
}

// dial starts the program and opens the repository.
func (s *Client) dial() (*session, [32]byte, error) {
	sess, err := startSession(s.command.argv, childEnvironment(), s.command.detached, s.pool, s.log)
	if err != nil {
		return nil, [32]byte{}, err
	}
	limit := s.timeout / 2
	if s.command.interactive {
		limit = max(limit, 2*time.Minute) // somebody may be typing a password
	}
	err = s.within(limit, sess, func(ctx context.Context) error { return negotiate(ctx, sess) })
	var id [32]byte
	if err == nil {
		err = s.within(s.timeout+s.lockWait, sess, func(ctx context.Context) (err error) {
			id, err = openOnServer(ctx, sess, s.path, s.lockWait)
			return err
		})
	}
	if err == nil && s.id != ([32]byte{}) && id != s.id {
		err = fmt.Errorf("%w: %s was replaced by another repository", fault.ErrNotRepository, s.name)
	}
	if err != nil {
		sess.shut(sessionIdle)
		return nil, id, err
	}
	return sess, id, nil
}

// within runs fn with a time limit, whose passing means that the remote is
// out of reach.
func (s *Client) within(limit time.Duration, sess *session, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	err := fn(ctx)
	switch {
	case s.ctx.Err() != nil && err != nil:
		return fault.ErrClosed
	case errors.Is(err, context.DeadlineExceeded):
		said := fault.OneLine(sess.stderr.String())
		if said != "" {
			said = ": " + said
		}
		return fmt.Errorf("%w: no answer for %v%s", fault.ErrUnreachable, limit, said)
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
	defer frame.Release()
	major, minor, err := serverVersion(rep.result)
	if err != nil {
		return err
	}
	if major != 1 || minor < 1 {
		return fmt.Errorf("%w: the server runs borg %d.%d", fault.ErrUnsupported, major, minor)
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
		return 0, 0, fmt.Errorf("%w: the server's version makes no sense: %w", fault.ErrUnsupported, err)
	}
	return major, minor, nil
}

// openOnServer opens the repository under a shared lock.
func openOnServer(ctx context.Context, sess *session, path string, lockWait time.Duration) (id [32]byte, err error) {
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
	defer frame.Release()
	if err := msgpack.NewReader(rep.result).Bytes32(&id); err != nil {
		return id, fmt.Errorf("%w: the server's answer makes no sense: %w", fault.ErrUnsupported, err)
	}
	return id, nil
}

// call makes a call on the present session, and makes it anew on another one
// when the connection breaks, until nothing was heard for the time limit.
func (s *Client) call(ctx context.Context, method string, args ...arg) (reply, *buffer.Buffer, error) {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return reply{}, nil, err
	}
	defer s.slots.Release(1)
	for {
		d, err := s.connect(ctx)
		if err == nil {
			var rep reply
			var frame *buffer.Buffer
			rep, frame, err = d.session.call(ctx, method, args...)
			d.session.release()
			if _, answered := errors.AsType[*RemoteError](err); err == nil || answered {
				s.mu.Lock()
				s.alive = time.Now()
				s.mu.Unlock()
				return rep, frame, err
			}
		}
		if ctx.Err() != nil || !errors.Is(err, fault.ErrUnreachable) || errors.Is(err, fault.ErrHostKey) {
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
			return reply{}, nil, fault.ErrClosed
		}
	}
}

// Get gives an object as it is stored; the reference is the caller's. What the
// server says of the object is a [*RemoteError]; see [ErrNoObject] and
// [ErrBadObject].
func (s *Client) Get(ctx context.Context, id [32]byte) (*buffer.Buffer, error) {
	rep, frame, err := s.call(ctx, "get", arg{"id", msgpack.AppendBytes(nil, id[:])})
	if err != nil {
		return nil, err
	}
	data, err := msgpack.NewReader(rep.result).Bytes()
	if err != nil {
		frame.Release()
		return nil, fmt.Errorf("%w: answer: %w", ErrBadObject, err)
	}
	frame.Data = data
	return frame, nil
}

// LoadKey gives the key's text that the repository keeps, "" if none.
func (s *Client) LoadKey(ctx context.Context) (string, error) {
	rep, frame, err := s.call(ctx, "load_key")
	if err != nil {
		return "", err
	}
	defer frame.Release()
	r := msgpack.NewReader(rep.result)
	if r.Nil() {
		return "", nil
	}
	return r.String()
}

// Close ends the session.
func (s *Client) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
}
