package serve

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// TestLargeAnswersWait: however much a server sends, callers have a bounded
// amount of it in their hands; the rest waits, and comes in the end.
func TestLargeAnswersWait(t *testing.T) {
	const size, count = 20 << 20, 3
	path := filepath.Join(t.TempDir(), "answers")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for i := range count {
		call := int64(i + 1)
		asked += len(packCall(call, "get", nil))
		b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 2), "i"), call)
		b = msgpack.AppendBytes(msgpack.AppendBytes(b, "r"), make([]byte, size))
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	pool := &buffer.Pool{}
	defer pool.Close()
	// It answers once all have asked.
	argv := []string{"/bin/sh", "-c", `head -c "$1" >/dev/null; cat "$2"; exec sleep 100`, "sh", strconv.Itoa(asked), path}
	s, err := startSession(argv, os.Environ(), true, newMemory(pool), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		s.kill()
		<-s.done
	}()
	frames := make(chan *buffer.Buffer, count)
	for range count {
		go func() {
			_, frame, err := s.call(t.Context(), "get")
			if err != nil {
				t.Error(err)
			}
			frames <- frame
		}()
	}
	for n := range count {
		frame := <-frames
		if frame == nil {
			t.FailNow()
		}
		if n == 0 {
			// Long enough for the others, were they let through.
			select {
			case <-frames:
				t.Fatal("another answer came before the first was released")
			case <-time.After(300 * time.Millisecond):
			}
		}
		frame.Release()
	}
}

// TestAbandonedCallsKeepTheirSlots: what nobody waits for any more still counts
// among the calls under way.
func TestAbandonedCallsKeepTheirSlots(t *testing.T) {
	pool := &buffer.Pool{}
	defer pool.Close()
	s, err := startSession([]string{"/bin/sleep", "100"}, os.Environ(), true, newMemory(pool), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 * InFlight {
		if _, _, err := s.call(gone, "get"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	under := len(s.pending)
	s.mu.Unlock()
	if under > InFlight {
		t.Errorf("%d calls under way", under)
	}
	// Who waits for a slot learns of the session's end.
	for range InFlight - under {
		go func() { _, _, _ = s.call(t.Context(), "get") }()
	}
	ended := make(chan error)
	go func() {
		_, _, err := s.call(t.Context(), "get")
		ended <- err
	}()
	s.kill()
	if err := <-ended; !errors.Is(err, fault.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	<-s.done
}
