package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

const (
	// putBytes is how much may be on its way to the server and not acknowledged:
	// it must not come near the 60 MiB that a server takes in before it is done
	// with what came first. A call may be 20 MiB.
	putBytes = 20 << 20
	// listLimit is how many ids are asked for at once; see maxFrameValues.
	listLimit = 50_000
	// writerPatience is how many time limits a writer's server may be silent: it
	// syncs whole segments, and reads those that its index knows nothing of.
	writerPatience = 5
	// compactPatience is how long a server may be silent that compacts: it may have
	// to copy all it has.
	compactPatience = 24 * time.Hour
)

// CreateOptions say what a new repository is like.
type CreateOptions struct {
	AppendOnly  bool
	MakeParents bool
}

// Writer is a transaction on the repository, in a session of its own under the
// exclusive lock. It is used by one goroutine at a time. It is never carried on in
// another session: what was put is gone with the one it was put in.
type Writer struct {
	client  *Client
	own     bool // the client serves nobody else
	session *session
	id      [32]byte

	puts     []put // not acknowledged, oldest first
	inFlight int   // bytes of these
	dirty    bool  // something was put
	created  bool  // the repository is this session's making, and not committed to
	noted    uint64
	hasNoted noted
	err      error // why nothing can be put or committed any more
	done     bool
}

// put is a call that the server has not answered yet.
type put struct {
	call    *pendingCall
	size    int
	deletes bool // what may be gone already
}

// noted says what the server told of its next free nonce.
type noted uint8

const (
	notAsked noted = iota
	none
	some
)

// Begin opens a session under the exclusive lock, for which it waits for so long.
//
// Errors: [fault.ErrLocked], [fault.ErrUnreachable] and its kinds.
func (s *Client) Begin(ctx context.Context, wait time.Duration) (*Writer, error) {
	return s.begin(ctx, wait, nil)
}

// Create makes a repository on the server and begins the first transaction on it.
// Rolled back, it is removed again. One that is there, and was begun and never
// finished, is gone on with; that one stays.
//
// Errors: [fault.ErrExists], [fault.ErrLocked] when somebody else is making one there, [fs.ErrNotExist] when there is no directory for it to
// be in, [fs.ErrPermission], [fault.ErrUnreachable] and its kinds.
func Create(ctx context.Context, o Options, co CreateOptions, pool *buffer.Pool) (*Writer, error) {
	c, err := newClient(o, pool)
	if err != nil {
		return nil, err
	}
	w, err := c.begin(ctx, o.LockWait, &co)
	if err != nil {
		c.Close()
		return nil, err
	}
	w.own = true
	return w, nil
}

func (s *Client) begin(ctx context.Context, wait time.Duration, create *CreateOptions) (*Writer, error) {
	type outcome struct {
		w   *Writer
		err error
	}
	result, gone := make(chan outcome), make(chan struct{})
	defer close(gone)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fault.ErrClosed
	}
	s.work.Go(func() { // logging in heeds the client's end only
		w, err := s.openWriter(wait, create)
		select {
		case result <- outcome{w, err}:
			if err == nil {
				s.watchWriter(w.session)
			}
		case <-gone:
			if err == nil {
				_ = w.Rollback()
			}
		}
	})
	s.mu.Unlock()
	select {
	case o := <-result:
		return o.w, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Client) openWriter(wait time.Duration, create *CreateOptions) (*Writer, error) {
	s.endGuard()
	sess, err := s.writerSession()
	if err != nil {
		return nil, err
	}
	w := &Writer{client: s, session: sess, created: create != nil}
	err = s.within(writerPatience*s.timeout+wait, sess, func(ctx context.Context) (err error) {
		w.id, err = openOnServer(ctx, sess, s.path, opening{lock: true, exclusive: true, lockWait: wait, create: create})
		return err
	})
	if errors.Is(err, fault.ErrExists) && create != nil {
		return s.takeOver(sess, wait, err)
	}
	if id := s.ID(); err == nil && create == nil && w.id != id {
		err = fmt.Errorf("%w: %s was replaced by another repository", fault.ErrNotRepository, s.name)
	}
	if err != nil {
		sess.shut(failPatience)
		return nil, err
	}
	return w, nil
}

// watchWriter ends a session whose server is silent, and waits for its end.
func (s *Client) watchWriter(sess *session) {
	tick := time.NewTicker(sessionTick)
	defer tick.Stop()
	for {
		select {
		case <-sess.done:
			return
		case <-s.ctx.Done():
			sess.shut(failPatience)
			return
		case <-tick.C:
		}
		if limit := max(writerPatience*s.timeout, time.Duration(sess.patience.Load())); sess.silence() > limit {
			sess.end(fmt.Errorf("%w: no answer for %v", fault.ErrUnreachable, limit))
			sess.kill()
		}
	}
}

// ID is the repository's id.
func (w *Writer) ID() [32]byte { return w.id }

// call makes a call and waits for its answer.
func (w *Writer) call(ctx context.Context, method string, args ...arg) (reply, *buffer.Buffer, error) {
	if w.done {
		return reply{}, nil, fault.ErrClosed
	}
	return w.session.call(ctx, method, args...)
}

// do makes a call whose answer does not matter.
func (w *Writer) do(ctx context.Context, method string, args ...arg) error {
	_, frame, err := w.call(ctx, method, args...)
	if err == nil {
		frame.Release()
	}
	return err
}

// Get gives an object as it is stored; see [Client.Get].
func (w *Writer) Get(ctx context.Context, id [32]byte) (*buffer.Buffer, error) {
	return objectOf(w.call(ctx, "get", idArg(id)))
}

// List calls fn with each id that the repository holds.
func (w *Writer) List(ctx context.Context, fn func(id [32]byte)) error {
	marker := msgpack.AppendNil(nil)
	for {
		if w.done {
			return fault.ErrClosed
		}
		n, last, err := list(ctx, w.session, listLimit, marker, fn)
		if err != nil || n == 0 {
			return err
		}
		marker = msgpack.AppendBytes(nil, last[:])
	}
}

// list calls fn with the ids after a marker, up to a number of them.
func list(ctx context.Context, sess *session, limit int64, marker []byte, fn func(id [32]byte)) (n int, last [32]byte, err error) {
	rep, frame, err := sess.call(ctx, "list", arg{"limit", msgpack.AppendInt(nil, limit)}, arg{"marker", marker})
	if err != nil {
		return 0, last, err
	}
	defer frame.Release()
	r := msgpack.NewReader(rep.result)
	n, err = r.Array()
	for i := 0; i < n && err == nil; i++ {
		if err = r.Bytes32(&last); err == nil {
			fn(last)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: list of ids: %w", fault.ErrUnsupported, err)
	}
	return n, last, err
}

// Put sends an object; data is the caller's again when it returns. The error of
// an earlier put may come out of it. After an error the transaction is lost.
//
// Errors: [fault.ErrQuota], [fault.ErrNoSpace], [fault.ErrUnreachable].
func (w *Writer) Put(ctx context.Context, id [32]byte, data []byte) error {
	if err := w.makeRoom(ctx, len(data)); err != nil {
		return err
	}
	head := msgpack.AppendRawHeader(make([]byte, 0, 8), len(data))
	return w.pipeline(ctx, put{size: len(data)}, data, "put", idArg(id), arg{"data", head})
}

// Delete removes an object, if it is there; otherwise it is like Put.
func (w *Writer) Delete(ctx context.Context, id [32]byte) error {
	if err := w.makeRoom(ctx, 0); err != nil {
		return err
	}
	return w.pipeline(ctx, put{deletes: true}, nil, "delete", idArg(id))
}

// makeRoom waits until a call with so many bytes can be on its way with the others.
func (w *Writer) makeRoom(ctx context.Context, size int) error {
	if w.err == nil && w.done {
		w.err = fault.ErrClosed
	}
	for w.err == nil && len(w.puts) > 0 && (len(w.puts) >= InFlight || w.inFlight+size > putBytes || w.puts[0].call.answered()) {
		w.reap(ctx)
	}
	return w.err
}

// pipeline sends a call whose answer is looked at later.
func (w *Writer) pipeline(ctx context.Context, p put, tail []byte, method string, args ...arg) error {
	w.dirty = true
	// A server that takes nothing more would keep us for ever.
	stop := context.AfterFunc(ctx, func() { w.session.stdin.Close() })
	call, err := w.session.send(ctx, tail, method, args...)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if call != nil {
		p.call = call
		w.puts = append(w.puts, p)
		w.inFlight += p.size
	}
	w.err = err
	return err
}

// reap waits for the answer to the oldest put.
func (w *Writer) reap(ctx context.Context) {
	p := w.puts[0]
	w.puts = w.puts[1:]
	w.inFlight -= p.size
	_, frame, err := w.session.answer(ctx, p.call)
	switch {
	case err == nil:
		frame.Release()
	case p.deletes && errors.Is(err, ErrNoObject): // which changes nothing
	default:
		w.err = err
	}
}

// answered reports whether the answer is there.
func (c *pendingCall) answered() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// Flush waits until the server has acknowledged all puts.
func (w *Writer) Flush(ctx context.Context) error {
	for w.err == nil && len(w.puts) > 0 {
		w.reap(ctx)
	}
	return w.err
}

// FreeNonce gives the next free counter block as the server has noted it; not ok:
// it has noted none.
func (w *Writer) FreeNonce(ctx context.Context) (next uint64, ok bool, err error) {
	rep, frame, err := w.call(ctx, "get_free_nonce")
	if err != nil {
		return 0, false, err
	}
	defer frame.Release()
	r := msgpack.NewReader(rep.result)
	if r.Nil() {
		w.hasNoted = none
		return 0, false, nil
	}
	n, err := r.Int()
	if err == nil && n < 0 {
		err = fmt.Errorf("%d", n)
	}
	if err != nil {
		return 0, false, fmt.Errorf("%w: free nonce: %w", fault.ErrUnsupported, err)
	}
	w.noted, w.hasNoted = uint64(n), some
	return w.noted, true, nil
}

// ReserveNonces notes durably on the server that the blocks from start up to next
// are used. It never lowers what is noted.
func (w *Writer) ReserveNonces(ctx context.Context, next, start uint64) error {
	if w.hasNoted == notAsked {
		if _, _, err := w.FreeNonce(ctx); err != nil {
			return err
		}
	}
	before := msgpack.AppendNil(nil)
	if w.hasNoted == some {
		before = msgpack.AppendInt(nil, int64(w.noted))
	}
	if w.hasNoted == some && start < w.noted || next < start || int64(next) < 0 {
		return fmt.Errorf("reserve nonces from %d to %d: %d is the next free one", start, next, w.noted)
	}
	err := w.do(ctx, "commit_nonce_reservation", arg{"next_unreserved", msgpack.AppendInt(nil, int64(next))}, arg{"start_nonce", before})
	if err != nil {
		w.hasNoted = notAsked
		return err
	}
	w.noted, w.hasNoted = next, some
	return nil
}

// SaveKey keeps the base64 text of a key in the repository. It takes effect at once.
func (w *Writer) SaveKey(ctx context.Context, text string) error {
	return w.do(ctx, "save_key", arg{"keydata", msgpack.AppendBytes(nil, text)})
}

// Commit makes all that was put durable and visible, and gives the lock back. It is
// not tried again: where the connection is lost after it was sent, the error is a
// [fault.ErrUnknown], and only the manifest can tell. With other errors nothing was
// committed.
//
// Errors: those of [Writer.Put].
func (w *Writer) Commit(ctx context.Context) error {
	err := w.Flush(ctx)
	if err == nil && w.dirty {
		err = w.commit(ctx, false, 0.1)
	}
	return w.committed(err)
}

// committed ends the session after a commit that went well, or did not.
func (w *Writer) committed(err error) error {
	if err != nil {
		return errors.Join(err, w.Rollback())
	}
	w.created = false
	w.close(shutPatience)
	return nil
}

// Compact has the server compact segments of which more than that part could be
// freed; one that only appends does not, and does not tell. It ends the transaction,
// in which nothing may have been put.
//
// Errors: [fault.ErrUnreachable] also where the server was at it when the connection
// was lost; nothing is lost by that.
func (w *Writer) Compact(ctx context.Context, threshold float64) error {
	// A server commits only after something was put: borg, too, has it put back the
	// manifest that is there.
	var id [32]byte
	b, err := w.Get(ctx, id)
	if err == nil {
		err = w.Put(ctx, id, b.Data)
		b.Release()
	}
	if err == nil {
		err = w.Flush(ctx)
	}
	if err == nil {
		w.session.patience.Store(int64(compactPatience))
		err = w.commit(ctx, true, threshold)
	}
	return w.committed(err)
}

func (w *Writer) commit(ctx context.Context, compact bool, threshold float64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := w.do(ctx, "commit", // servers ignore arguments that they are too old for
		arg{"save_space", msgpack.AppendBool(nil, false)},
		arg{"compact", msgpack.AppendBool(nil, compact)},
		arg{"threshold", msgpack.AppendFloat(nil, threshold)},
		arg{"cleanup_commits", msgpack.AppendBool(nil, false)},
	)
	if e, ok := errors.AsType[*RemoteError](err); err == nil || ok && e.beforeCommit() {
		w.created = w.created && !errors.Is(err, fault.ErrNoSpace) // the server itself removes it then
		return err
	}
	w.created = false // it must not be removed
	return fmt.Errorf("%w: %w", fault.ErrUnknown, err)
}

// Rollback drops what was not committed, and gives the lock back. After Commit it
// does nothing. What the server has written already is removed by the next writer.
func (w *Writer) Rollback() error {
	if w.done {
		return nil
	}
	var err error
	if w.created {
		ctx, cancel := context.WithTimeout(context.Background(), w.client.timeout)
		err = w.do(ctx, "destroy")
		cancel()
	}
	w.close(shutPatience)
	return err
}

// close ends the session. A client that is kept goes on meanwhile.
func (w *Writer) close(patience time.Duration) {
	w.done = true
	for _, p := range w.puts { // their answers hold memory
		w.session.abandon(p.call)
	}
	w.puts = nil
	if s := w.client; s.endBehind(w.session, patience) {
		s.standBy()
		return
	}
	w.session.shut(patience)
	if w.own {
		w.client.Close()
	}
}
