package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

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
	memory   *memory
	timeout  time.Duration
	lockWait time.Duration
	keep     bool // a session stands by for the next writer

	ctx    context.Context // ends at close
	cancel context.CancelFunc
	work   sync.WaitGroup // of everything that owns a session

	mu        sync.Mutex // guards what follows
	id        [32]byte   // zero until the first renewal
	reader    *reader    // in use; nil: none
	leaving   *reader    // the one before, while calls are under way on it
	renewing  *renewal   // nil: none is under way
	held      *look      // whose guard is still there; nil: none
	standby   *session   // nil: none stands by
	preparing bool       // one is about to
	written   *session   // of the last writer, which may still have the lock; nil: none was
	outage    outage
	closed    bool
}

// InFlight is how many calls are under way on a session at most.
const InFlight = 64

const (
	readerIdle   = 30 * time.Second
	sessionTick  = 100 * time.Millisecond
	shutPatience = 5 * time.Second
	failPatience = time.Second

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
	Timeout    time.Duration // how long a remote that does not answer is put up with
	LockWait   time.Duration
	Keep       bool   // the client is used for long; see standBy
	ControlDir string // of the sockets of ssh connections that sessions share; "": each has its own
}

// Open connects once, to learn the repository's id. What is fetched lies in
// the pool's buffers.
func Open(ctx context.Context, o Options, pool *buffer.Pool) (*Client, error) {
	s, err := newClient(o, pool)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	r := s.startRenewal(openLinger)
	s.mu.Unlock()
	if err := r.wait(ctx); err != nil {
		s.Close() // the first error tells more
		return nil, err
	}
	return s, nil
}

// newClient makes a client that has not connected yet.
func newClient(o Options, pool *buffer.Pool) (*Client, error) {
	cmd, err := serveCommand(o)
	if err != nil {
		return nil, err
	}
	s := &Client{
		path: o.Path, name: o.Name, command: cmd, log: o.Logger, memory: newMemory(pool),
		timeout: o.Timeout, lockWait: o.LockWait, keep: o.Keep,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
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
		r, err := s.renew(ctx)
		if err != nil {
			return nil, err
		}
		if r.reader.acquire() {
			return r.reader, nil
		}
		if err := r.reader.ended(); err != nil {
			s.broke(r.reader, err)
			return nil, err
		} // else it is replaced already
	}
}

// call makes a call on the reader, and makes it anew on another one when the
// connection breaks, as long as again allows it. An exception counts only once
// it came from a reader that was opened after the first one: compaction may
// have removed what an older one looks for.
func (s *Client) call(ctx context.Context, method string, args ...arg) (reply, *buffer.Buffer, error) {
	var since time.Time   // when the first connection broke
	var doubted time.Time // when the first exception came
	for {
		rd, err := s.connect(ctx)
		if err == nil {
			var rep reply
			var frame *buffer.Buffer
			rep, frame, err = rd.call(ctx, method, args...)
			rd.release()
			_, exception := errors.AsType[*RemoteError](err)
			switch {
			case err == nil || exception:
				s.answered()
			case errors.Is(err, fault.ErrUnreachable):
				s.broke(rd, err)
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
		if err = s.again(ctx, err, &since); err != nil {
			return reply{}, nil, err
		}
	}
}

// Manifest gives the manifest as it is stored now; the reference is the
// caller's. What is got afterwards is at least as new.
func (s *Client) Manifest(ctx context.Context) (*buffer.Buffer, error) {
	var since time.Time // when the first connection broke
	for {
		data := s.heldManifest()
		if data == nil {
			r, err := s.renew(ctx)
			if err != nil {
				if err = s.again(ctx, err, &since); err != nil {
					return nil, err
				}
				continue
			}
			data = r.manifest
		}
		b := s.memory.pool.Get(len(data))
		copy(b.Data, data)
		return b, nil
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
// is the caller's. What the server says of the object is a [*RemoteError]; see
// [ErrNoObject] and [ErrBadObject].
func (s *Client) Get(ctx context.Context, id [32]byte) (*buffer.Buffer, error) {
	return objectOf(s.call(ctx, "get", idArg(id)))
}

// objectOf is the object that an answer holds, in the answer's frame.
func objectOf(rep reply, frame *buffer.Buffer, err error) (*buffer.Buffer, error) {
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
	s.command.end()
}
