package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// session is one running "borg serve". Up to InFlight calls may be under way at
// once, those among them whose callers gave up.
type session struct {
	cmd    *exec.Cmd
	group  bool // the process leads a process group of its own
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr *stderrTail
	memory *memory
	log    *slog.Logger
	done   chan struct{} // closed once the process is gone and waited for

	ctx    context.Context // ends when err is set
	cancel context.CancelFunc
	slots  chan struct{} // holds one for each call under way

	patience atomic.Int64 // nanoseconds of silence that a writer's call may take, if that is longer than usual

	sending sync.Mutex // one call at a time goes down stdin

	mu      sync.Mutex // guards what follows
	pending map[int64]*pendingCall
	lastID  int64
	heard   time.Time // last sign of an answer, or start of the oldest call if later
	idle    time.Time // since when no call is under way
	users   int       // calls that hold the session
	drain   bool      // no new calls: the session is to end
	claimed bool      // it was taken for another use
	err     error     // why it ended; nil while it runs
}

// pendingCall waits for its answer.
type pendingCall struct {
	ready chan struct{}
	rep   reply
	frame *buffer.Buffer // that rep.result lies in
	err   error
	left  bool // the caller gave up; the answer is dropped
}

// startSession starts the program; it speaks to nobody yet.
func startSession(argv, env []string, ownSession bool, mem *memory, log *slog.Logger) (*session, error) {
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives the call that starts it; shut and kill end it
	cmd.Env = env
	if ownSession {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	s := &session{
		cmd: cmd, group: ownSession, memory: mem, log: log, stderr: &stderrTail{log: log},
		done: make(chan struct{}), slots: make(chan struct{}, InFlight),
		pending: map[int64]*pendingCall{}, idle: time.Now(),
	}
	cmd.Stderr = s.stderr
	cmd.WaitDelay = time.Second // a shared ssh connection's master keeps stderr open
	var err error
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if s.stdout, err = cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	widen(s.stdout)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrUnreachable, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.receive()
	return s, nil
}

// receive hands answers out until the connection ends, then waits for the
// process. It is the session's only goroutine; done tells its end.
func (s *session) receive() {
	defer close(s.done)
	r := bufio.NewReaderSize(&meter{r: s.stdout, note: s.hear}, 64<<10)
	for {
		frame, err := readFrame(r, s.memory.pool)
		if err == nil {
			err = s.deliver(frame)
		}
		if err != nil {
			s.end(s.finish(err))
			return
		}
	}
}

// finish waits for the process and explains why the connection ended.
func (s *session) finish(cause error) error {
	s.stdin.Close()
	// What is left of it after its output ended is of no use.
	kill := time.AfterFunc(time.Second, s.kill)
	if !errors.Is(cause, io.EOF) {
		s.kill()
	}
	werr := s.cmd.Wait()
	kill.Stop()
	if errors.Is(cause, fault.ErrUnsupported) {
		return cause
	}
	return explainExit(werr, cause, s.stderr.String())
}

// deliver gives an answer to its caller.
func (s *session) deliver(frame *buffer.Buffer) error {
	frame, err := s.memory.admit(s.ctx, frame)
	if err != nil {
		return err
	}
	rep, err := parseReply(frame.Data)
	if err != nil {
		frame.Release()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.pending[rep.call]
	if c == nil {
		frame.Release()
		return fmt.Errorf("answer to call %d, which nobody made", rep.call)
	}
	delete(s.pending, rep.call)
	<-s.slots
	s.heard = time.Now()
	if c.left {
		frame.Release()
	} else {
		c.rep, c.frame = rep, frame
	}
	close(c.ready)
	return nil
}

// end fails all calls under way. Only the first reason counts.
func (s *session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.cancel()
	s.drain = true
	for id, c := range s.pending {
		c.err = s.err
		close(c.ready)
		delete(s.pending, id)
	}
}

// kill ends the process at once.
func (s *session) kill() {
	pid := s.cmd.Process.Pid
	if s.group {
		pid = -pid
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // may be gone already
	s.stdout.Close()                       // in case a stray child holds the other end
}

// call sends a call and waits for its answer. The frame holds the result; its
// reference is the caller's. A call whose ctx ends leaves the session usable,
// and takes up its slot until the answer comes.
func (s *session) call(ctx context.Context, method string, args ...arg) (reply, *buffer.Buffer, error) {
	c, err := s.send(ctx, nil, method, args...)
	if err != nil {
		return reply{}, nil, err
	}
	return s.answer(ctx, c)
}

// send sends a call, and does not wait for its answer. tail is the end of the last
// argument.
func (s *session) send(ctx context.Context, tail []byte, method string, args ...arg) (*pendingCall, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, s.ended()
	}
	c := &pendingCall{ready: make(chan struct{})}
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return nil, s.err
	}
	if len(s.pending) == 0 {
		s.heard = time.Now()
	}
	s.lastID++
	id := s.lastID
	s.pending[id] = c
	s.mu.Unlock()

	s.sending.Lock()
	_, err := s.stdin.Write(packCall(id, method, args))
	if err == nil && len(tail) > 0 {
		_, err = s.stdin.Write(tail)
	}
	s.sending.Unlock()
	if err != nil {
		// The process has died: receive sees it as well, and knows more.
		s.log.Debug("remote takes no more calls", "error", err)
	}
	return c, nil
}

// answer waits for the answer to a call.
func (s *session) answer(ctx context.Context, c *pendingCall) (reply, *buffer.Buffer, error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
		s.abandon(c)
		return reply{}, nil, ctx.Err()
	}
	if c.err != nil {
		return reply{}, nil, c.err
	}
	if c.rep.err != nil {
		c.frame.Release()
		return c.rep, nil, c.rep.err
	}
	return c.rep, c.frame, nil
}

// abandon gives up a call whose answer nobody waits for any more.
func (s *session) abandon(c *pendingCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.left {
		return
	}
	c.left = true
	if c.frame != nil {
		c.frame.Release()
	}
}

// hear notes that an answer goes on.
func (s *session) hear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
}

// lastHeard is when the remote last gave what it owed.
func (s *session) lastHeard() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// silence is how long the remote has owed an answer without going on with one.
func (s *session) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 {
		return 0
	}
	return time.Since(s.heard)
}

// acquire takes hold of the session for a call, unless it is to end.
func (s *session) acquire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain {
		return false
	}
	s.users++
	return true
}

func (s *session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	s.idle = time.Now()
}

// leave makes the session take no new calls.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain = true
}

// claim takes the session from those who acquire it, unless one of them has it or it
// is to end.
func (s *session) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain || s.users > 0 {
		return false
	}
	s.drain, s.claimed = true, true
	return true
}

func (s *session) isClaimed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claimed
}

// retire reports whether the session should be closed now: nobody has used it
// for idle, or it takes no new calls and its last ones are done.
func (s *session) retire(idle time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 && time.Since(s.idle) > idle {
		s.drain = true
	}
	return s.drain && s.users == 0 && !s.claimed
}

// ended tells why the session has ended, nil while it runs.
func (s *session) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// shut ends the session in good order: the server sees the end of its input,
// gives its lock back and exits. One that does not is killed.
func (s *session) shut(patience time.Duration) {
	s.stdin.Close()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
		s.kill()
		<-s.done
	}
}

// childEnvironment is this process's, without what ssh need not know.
func childEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !isSecret(v) {
			env = append(env, v)
		}
	}
	return env
}
