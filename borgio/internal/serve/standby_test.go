package serve

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeOn writes through a client, and gives the session in which it did.
func writeOn(t *testing.T, c *Client) *session {
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

// TestReaderWrites: a writer has the reader's session, unless that is in use, or has
// died, and whoever reads afterwards has another one. The guard's lock is in no
// writer's way.
func TestReaderWrites(t *testing.T) {
	c, calls := openOn(t, false)
	read := func() *reader {
		t.Helper()
		if _, err := c.LoadKey(t.Context()); err != nil {
			t.Fatal(err)
		}
		rd, err := c.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rd.release()
		return rd
	}
	rd := read()
	if c.heldManifest() == nil {
		t.Error("the guard did not linger")
	}
	if writeOn(t, c) != rd.session {
		t.Error("the writer logged in though there was a reader")
	}
	if data, err := c.Get(t.Context(), [32]byte{1}); err != nil || string(data.Data) != "something" {
		t.Errorf("read afterwards: %v", err)
	} else {
		data.Release()
	}
	rd = read()
	if !rd.acquire() {
		t.Fatal("the reader ended")
	}
	if writeOn(t, c) == rd.session {
		t.Error("the writer had a session that was in use")
	}
	rd.release()
	rd = read()
	if err := rd.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if writeOn(t, c) == rd.session {
		t.Error("the writer had a session that does not answer")
	}
	c.Close()
	noneLeft(t, calls)
}

// noneLeft sees that all processes that were started have ended.
func noneLeft(t *testing.T, calls string) {
	t.Helper()
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

// TestStandby: the next writer has the session that stands by, and another one
// where that has died, or does not answer.
func TestStandby(t *testing.T) {
	c, calls := openOn(t, true)
	write := func() *session { return writeOn(t, c) }
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
	noneLeft(t, calls)
}
