package serve

import (
	"context"
	"errors"
	"time"
)

// A client that is kept has a session standing by for the next [Client.Begin]:
// logged in, and without a repository or a lock. Neither the login nor the start
// of borg then comes between a change and its commit.

// stillThere is how long a session that stood by may take to show that it is alive.
const stillThere = 5 * time.Second

// standBy sees to a session that stands by, where the client is kept. It does not
// wait, and a failure is for the next one who needs a session.
func (s *Client) standBy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.keep || s.closed || s.preparing || s.standby != nil && s.standby.ended() == nil {
		return
	}
	s.preparing = true
	s.work.Go(func() {
		sess, err := s.login()
		s.mu.Lock()
		s.preparing = false
		if err == nil {
			s.standby = sess
		}
		s.mu.Unlock()
		if err != nil {
			s.log.Debug("no session stands by", "error", err)
			return
		}
		select {
		case <-sess.done:
		case <-s.ctx.Done():
			s.mu.Lock()
			ours := s.standby == sess // else a writer's
			s.mu.Unlock()
			if ours {
				sess.shut(failPatience)
			}
		}
	})
}

// takeStandby gives the session that stands by, if any, to the caller.
func (s *Client) takeStandby() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := s.standby
	s.standby = nil
	return sess
}

// endBehind has a writer's session end by itself, if the client is kept.
func (s *Client) endBehind(sess *session, patience time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.keep || s.closed {
		return false
	}
	s.written = sess
	s.work.Go(func() { sess.shut(patience) })
	return true
}

// takeReader gives the reader's session to the caller, unless it is in use or the
// client is kept, whose readers go on beside writers. It has no lock, so the server
// may open the repository on it once more.
func (s *Client) takeReader() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	rd := s.reader
	if s.keep || rd == nil || !rd.claim() {
		return nil
	}
	s.reader = nil
	return rd.session
}

// writerSession is one that stood by, or was a reader's, and is alive, or a new one.
// The last writer's lock is gone then.
func (s *Client) writerSession() (*session, error) {
	s.mu.Lock()
	last := s.written
	s.mu.Unlock()
	if last != nil {
		<-last.done
	}
	sess := s.takeStandby()
	if sess == nil {
		sess = s.takeReader()
	}
	if sess != nil {
		if s.alive(sess) {
			return sess, nil
		}
		s.log.Debug("the session that was there is gone")
		sess.kill() // it holds no lock
		<-sess.done
	}
	return s.login()
}

// alive tells whether the server answers. There is no call for that; one that
// needs a repository is refused while none is open, which is an answer, too.
func (s *Client) alive(sess *session) bool {
	err := s.within(stillThere, sess, func(ctx context.Context) error {
		_, frame, err := sess.call(ctx, "load_key")
		if err == nil {
			frame.Release()
		}
		return err
	})
	_, refused := errors.AsType[*RemoteError](err)
	return err == nil || refused
}
