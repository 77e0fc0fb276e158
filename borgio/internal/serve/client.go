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

// Client gets objects from "borg serve"; see the package comment for how it
// keeps out of every writer's way.
type Client struct {
	path     string // of the repository, there
	name     string // of the repository, for messages
	command  command
	log      *slog.Logger
	pool     *buffer.Pool
	timeout  time.Duration
	lockWait time.Duration

	slots *semaphore.Weighted // calls under way, see InFlight

	ctx    context.Context // ends at close
	cancel context.CancelFunc
	work   sync.WaitGroup // of everything that owns a session

	mu       sync.Mutex // guards what follows
	id       [32]byte   // zero until the first renewal
	reader   *reader    // in use; nil: none
	leaving  *reader    // the one before, while calls are under way on it
	renewing *renewal   // nil: none is under way
	held     *look      // whose guard is still there; nil: none
	alive    time.Time  // when a session answered last
	retryAt  time.Time  // no connection is tried before this
	backoff  time.Duration
	failure  error // of the last try
	closed   bool
}

// InFlight is how many calls are under way at once at most.
const InFlight = 64

const (
	readerIdle   = 30 * time.Second
	sessionTick  = 100 * time.Millisecond
	shutPatience = 5 * time.Second
	failPatience = time.Second
	minBackoff   = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second

	// openLinger is how long the guard of Open stays, which spares the first
	// look at the manifest another login. It is well below the second that
	// borg waits for a lock.
	openLinger = 300 * time.Millisecond
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
	s.mu.Lock()
	r := s.startRenewal(openLinger)
	s.mu.Unlock()
	if _, err := r.wait(ctx); err != nil {
		s.Close() // the first error tells more
		return nil, err
	}
	return s, nil
}

// ID is the repository's id.
func (s *Client) ID() [32]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// connect gives the reader, or makes one. The caller holds it until it
// releases it.
func (s *Client) connect(ctx context.Context) (*reader, error) {
	for {
		s.mu.Lock()
		rd, closed := s.reader, s.closed
		s.mu.Unlock()
		switch {
		case closed:
			return nil, fault.ErrClosed
		case rd != nil && rd.acquire():
			return rd, nil
		case rd != nil:
			s.retire(rd) // it is on its way out
		}
		if _, err := s.renew(ctx); err != nil {
			return nil, err
		}
	}
}

// call makes a call on the reader, and makes it anew on another one when the
// connection breaks, until nothing was heard for the time limit. An exception
// counts only once it came from a reader that was opened after the first one:
// compaction may have removed what an older one looks for.
func (s *Client) call(ctx context.Context, method string, args ...arg) (reply, *buffer.Buffer, error) {
	if err := s.slots.Acquire(ctx, 1); err != nil {
		return reply{}, nil, err
	}
	defer s.slots.Release(1)
	var doubted time.Time // when the first exception came
	for {
		rd, err := s.connect(ctx)
		if err == nil {
			var rep reply
			var frame *buffer.Buffer
			rep, frame, err = rd.call(ctx, method, args...)
			rd.release()
			_, exception := errors.AsType[*RemoteError](err)
			if err == nil || exception {
				s.mu.Lock()
				s.alive = time.Now()
				s.mu.Unlock()
			}
			if err == nil || exception && !doubted.IsZero() && rd.opened.After(doubted) {
				return rep, frame, err
			}
			if exception {
				if doubted.IsZero() {
					doubted = time.Now()
				}
				s.log.Debug("remote does not have it, looking anew", "error", err)
				s.retire(rd)
				continue
			}
		}
		if err = s.again(ctx, err); err != nil {
			return reply{}, nil, err
		}
	}
}

// again waits until it makes sense to try again after err; it gives the error
// to report when it does not.
func (s *Client) again(ctx context.Context, err error) error {
	if ctx.Err() != nil || !errors.Is(err, fault.ErrUnreachable) || errors.Is(err, fault.ErrHostKey) {
		return err
	}
	s.mu.Lock()
	lost, wait := time.Since(s.alive) > s.timeout, time.Until(s.retryAt)
	s.mu.Unlock()
	if lost {
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

// Manifest gives the manifest as it is stored now; the reference is the
// caller's. What is got afterwards is at least as new.
func (s *Client) Manifest(ctx context.Context) (*buffer.Buffer, error) {
	for {
		data := s.heldManifest()
		var err error
		if data == nil {
			data, err = s.renew(ctx)
		}
		if err == nil {
			b := s.pool.Get(len(data))
			copy(b.Data, data)
			return b, nil
		}
		if err = s.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// heldManifest is the manifest if a guard is still there, nil otherwise.
func (s *Client) heldManifest() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.held == nil || s.held.guard.ended() != nil {
		return nil
	}
	return s.held.manifest
}

// Get gives an object other than the manifest as it is stored; the reference
// is the caller's. What the
// server says of the object is a [*RemoteError]; see [ErrNoObject] and
// [ErrBadObject].
func (s *Client) Get(ctx context.Context, id [32]byte) (*buffer.Buffer, error) {
	rep, frame, err := s.call(ctx, "get", getArg(id))
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

// Close ends all sessions.
func (s *Client) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
}
