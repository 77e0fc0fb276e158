package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// look is what a guard saw of the repository, and still sees until it is shut.
type look struct {
	guard    *session
	id       [32]byte
	manifest []byte  // as it is stored
	reader   *reader // opened under the guard's lock; nil: none was asked for
}

// look makes a guard, and a reader if one is asked for. Both have logged in
// before the lock is taken, so that it is held for a few round trips only.
func (s *Client) look(withReader bool) (*look, error) {
	var guard, read *session
	var guardErr, readErr error
	var logins sync.WaitGroup
	logins.Go(func() { guard, guardErr = s.login() })
	if s.command.interactive {
		logins.Wait() // a person is asked for one password at a time
	}
	if withReader && (!s.command.interactive || guardErr == nil) {
		logins.Go(func() { read, readErr = s.login() })
	}
	logins.Wait()
	l := &look{guard: guard}
	err := guardErr
	if err == nil {
		err = readErr
	}
	if err == nil {
		err = s.openGuard(l)
	}
	if err == nil && withReader {
		err = s.openReader(l, read)
	}
	if err != nil {
		for _, sess := range []*session{guard, read} {
			if sess != nil {
				sess.shut(failPatience)
			}
		}
		return nil, err
	}
	return l, nil
}

// login starts the program and agrees with it on the protocol.
func (s *Client) login() (*session, error) {
	sess, err := startSession(s.command.argv, childEnvironment(), s.command.detached, s.memory, s.log)
	if err != nil {
		return nil, err
	}
	limit := s.timeout / 2
	if s.command.interactive {
		limit = max(limit, 2*time.Minute) // somebody may be typing a password
	}
	err = s.within(limit, sess, func(ctx context.Context) error { return negotiate(ctx, sess) })
	if err != nil {
		sess.kill() // it holds no lock
		<-sess.done
		return nil, err
	}
	return sess, nil
}

// openGuard takes the shared lock and reads the manifest, for which the server
// loads the index, or repairs it first under an exclusive lock.
func (s *Client) openGuard(l *look) error {
	err := s.within(s.timeout+s.lockWait, l.guard, func(ctx context.Context) (err error) {
		l.id, err = openOnServer(ctx, l.guard, s.path, opening{lock: true, lockWait: s.lockWait})
		return err
	})
	if err != nil {
		return err
	}
	if s.id != ([32]byte{}) && l.id != s.id {
		return fmt.Errorf("%w: %s was replaced by another repository", fault.ErrNotRepository, s.name)
	}
	return s.within(s.timeout, l.guard, func(ctx context.Context) (err error) {
		if l.manifest, err = readManifest(ctx, l.guard); errors.Is(err, ErrNoObject) {
			if some, lerr := objects(ctx, l.guard, 1); lerr == nil && len(some) == 0 {
				err = fault.ErrUnfinished
			}
		}
		return err
	})
}

// openReader opens the repository without a lock and makes the server load the
// index, which cannot be stale while the guard is there.
func (s *Client) openReader(l *look, sess *session) error {
	err := s.within(s.timeout, sess, func(ctx context.Context) error {
		opened := time.Now()
		id, err := openOnServer(ctx, sess, s.path, opening{lockWait: s.lockWait})
		if err != nil {
			return err
		}
		if err := l.guard.ended(); err != nil {
			return err // an index without a guard must not be loaded
		}
		manifest, err := readManifest(ctx, sess)
		if err != nil {
			return err
		}
		if id != l.id || !bytes.Equal(manifest, l.manifest) {
			return fmt.Errorf("%w: two sessions see different repositories at %s", fault.ErrUnreachable, s.name)
		}
		l.reader = &reader{session: sess, manifest: manifest, opened: opened}
		return nil
	})
	if err == nil {
		err = l.guard.ended()
	}
	return err
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
		return otherBorg(fmt.Sprintf("%d.%d", major, minor))
	}
	return nil
}

// otherBorg says that the server is of a Borg whose protocol is another one.
func otherBorg(version string) error {
	return fmt.Errorf("%w: the server runs borg %s, not 1.1 to 1.4", fault.ErrUnsupported, version)
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

// opening says how a repository is opened.
type opening struct {
	lock      bool
	exclusive bool
	lockWait  time.Duration
	create    *CreateOptions // nil: it is there
}

// openOnServer opens the repository and gives its id.
func openOnServer(ctx context.Context, sess *session, path string, o opening) (id [32]byte, err error) {
	wait := msgpack.AppendInt(nil, int64(max(o.lockWait.Round(time.Second)/time.Second, 1)))
	var create CreateOptions
	if o.create != nil {
		create = *o.create
	}
	flag := func(v bool) []byte { return msgpack.AppendBool(nil, v) }
	rep, frame, err := sess.call(ctx, "open",
		arg{"path", msgpack.AppendBytes(nil, path)},
		arg{"create", flag(o.create != nil)},
		arg{"lock_wait", wait},
		arg{"lock", flag(o.lock)},
		arg{"exclusive", flag(o.exclusive)},
		arg{"append_only", flag(create.AppendOnly)},
		arg{"make_parent_dirs", flag(create.MakeParents)},
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

// manifestID is the id of the one object that is replaced in place.
var manifestID [32]byte

func readManifest(ctx context.Context, sess *session) ([]byte, error) {
	b, err := objectOf(sess.call(ctx, "get", idArg(manifestID)))
	if err != nil {
		return nil, err
	}
	defer b.Release()
	return bytes.Clone(b.Data), nil
}

func idArg(id [32]byte) arg { return arg{"id", msgpack.AppendBytes(nil, id[:])} }
