package serve

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// takeOver begins a transaction on a repository that was begun by somebody and never
// finished, or gives the error by which one could not be created. The session, under
// no lock yet, is used up.
//
// A server does not tell of what is not committed, and would overwrite it. Nor can
// it write where a segment is already, or remove one before there is a commit. So
// segments that nothing was committed in are made count, as "borg check --repair"
// does: that takes nothing away. Had they been more than a manifest, it is the
// repository's owner who has to look at it.
func (s *Client) takeOver(sess *session, wait time.Duration, exists error) (*Writer, error) {
	limit := writerPatience*s.timeout + wait
	var segments bool
	err := s.within(limit, sess, func(ctx context.Context) (err error) {
		segments, err = s.begun(ctx, sess, wait, exists)
		return err
	})
	sess.shut(shutPatience)
	if err != nil {
		return nil, err
	}
	if sess, err = s.login(); err != nil {
		return nil, err
	}
	w := &Writer{client: s, session: sess}
	err = s.within(limit, sess, func(ctx context.Context) (err error) {
		if w.id, err = openOnServer(ctx, sess, s.path, opening{lock: true, exclusive: true, lockWait: wait}); err != nil {
			return err
		}
		if some, err := objects(ctx, sess, 1); err != nil || len(some) > 0 {
			return errors.Join(err, exists) // somebody else was faster
		}
		if segments {
			return recommit(ctx, sess)
		}
		return nil
	})
	if err != nil {
		sess.shut(failPatience)
		return nil, err
	}
	return w, nil
}

// begun makes sure, under the shared lock, that nothing was ever committed to what is
// there, and tells whether it has segments nevertheless.
func (s *Client) begun(ctx context.Context, sess *session, wait time.Duration, exists error) (segments bool, err error) {
	_, err = openOnServer(ctx, sess, s.path, opening{lock: true, lockWait: wait})
	if errors.Is(err, fault.ErrNotRepository) {
		return false, exists
	}
	if err != nil {
		return false, err
	}
	if some, err := objects(ctx, sess, 1); err != nil || len(some) > 0 {
		return false, errors.Join(err, exists)
	}
	// Where there is no segment that is all it looks at; for more it wants to have
	// the exclusive lock, and says so before it does anything.
	whole, err := check(ctx, sess, false)
	if e, ok := errors.AsType[*RemoteError](err); ok && e.class == "AssertionError" {
		return true, nil
	}
	return whole, err
}

// recommit makes count what segments hold that nothing was committed in, if all of
// it is whole and it is no more than a manifest.
func recommit(ctx context.Context, sess *session) error {
	for _, repair := range []bool{false, true} {
		whole, err := check(ctx, sess, repair)
		if err != nil {
			return fmt.Errorf("%w: finish it: %w", fault.ErrUnfinished, err)
		}
		if !whole {
			return fmt.Errorf("%w: nothing in it was committed, and not all of that can be read", fault.ErrIntegrity)
		}
	}
	some, err := objects(ctx, sess, 2)
	if err == nil && len(some) > 0 && (len(some) > 1 || some[0] != manifestID) {
		err = fmt.Errorf("%w: nothing in it was committed, but there are objects", fault.ErrIntegrity)
	}
	return err
}

// objects gives the ids of some objects, up to a number of them.
func objects(ctx context.Context, sess *session, limit int64) (ids [][32]byte, err error) {
	_, _, err = list(ctx, sess, limit, msgpack.AppendNil(nil), func(id [32]byte) { ids = append(ids, id) })
	return ids, err
}

// check has the server look at all segments, or make count what is not committed;
// false: there is none, or not all is whole.
func check(ctx context.Context, sess *session, repair bool) (whole bool, err error) {
	rep, frame, err := sess.call(ctx, "check", arg{"repair", msgpack.AppendBool(nil, repair)}, arg{"save_space", msgpack.AppendBool(nil, false)})
	if err != nil {
		return false, err
	}
	defer frame.Release()
	if whole, err = msgpack.NewReader(rep.result).Bool(); err != nil {
		return false, fmt.Errorf("%w: the server's answer makes no sense: %w", fault.ErrUnsupported, err)
	}
	return whole, nil
}
