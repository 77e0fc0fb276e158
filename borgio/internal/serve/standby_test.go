package serve

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStandby: the next writer has the session that stands by, and another one
// where that has died, or does not answer.
func TestStandby(t *testing.T) {
	c, calls := openOn(t, true)
	write := func() *session {
		t.Helper()
		w, err := c.Begin(t.Context(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Put(t.Context(), [32]byte{1}, []byte("something")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.session
	}
	waiting := func() *session {
		t.Helper()
		for range 1000 {
			c.mu.Lock()
			sess := c.standby
			c.mu.Unlock()
			if sess != nil {
				return sess
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatal("no session stands by")
		return nil
	}
	write()
	next := waiting()
	if write() != next {
		t.Error("the writer logged in though a session stood by")
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		next := waiting()
		if err := next.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if write() == next {
			t.Errorf("%v: the writer had a session that does not answer", sig)
		}
		if err := syscall.Kill(next.cmd.Process.Pid, 0); err == nil {
			t.Errorf("%v: the session is left over", sig)
		}
	}
	last := waiting()
	c.Close()
	select {
	case <-last.done:
	default:
		t.Error("the session that stands by outlives the client")
	}
	started, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(started)) {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s is left over", pid)
		}
	}
}
