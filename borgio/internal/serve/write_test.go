package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// fakeServer as its first argument makes the test binary stand in for ssh and for
// the borg serve behind it, which has the fault that its second names.
const fakeServer = "fake-borg-serve"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == fakeServer {
		serveFake(os.Args[2])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// request is a call as the fake sees it.
type request struct {
	call   int64
	method string
	size   int // of data
}

// readRequests passes calls on until the end of the input.
func readRequests(to chan<- request) {
	defer close(to)
	in, pool := bufio.NewReader(os.Stdin), &buffer.Pool{}
	for {
		frame, err := readFrame(in, pool)
		if err != nil {
			return
		}
		var q request
		r := msgpack.NewReader(frame.Data)
		err = r.Fields(func(key []byte) (err error) {
			switch string(key) {
			case "i":
				q.call, err = r.Int()
			case "m":
				q.method, err = r.String()
			case "a":
				err = r.Fields(func(name []byte) error {
					if string(name) == "data" {
						data, err := r.Bytes()
						q.size = len(data)
						return err
					}
					return r.Skip()
				})
			}
			return err
		})
		frame.Release()
		if err != nil {
			return
		}
		to <- q
	}
}

// exception packs the report of one.
func exception(call int64, class, text string) []byte {
	b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 4), "i"), call)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "exception_class"), class)
	b = msgpack.AppendBytes(msgpack.AppendArray(msgpack.AppendBytes(b, "exception_args"), 1), text)
	return msgpack.AppendBytes(msgpack.AppendArray(msgpack.AppendBytes(b, "exception_short"), 1), text)
}

func serveFake(lie string) {
	requests := make(chan request)
	go readRequests(requests)
	result := func(call int64, value []byte) {
		b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 2), "i"), call)
		_, _ = os.Stdout.Write(append(msgpack.AppendBytes(b, "r"), value...))
	}
	null := msgpack.AppendNil(nil)
	var waiting []request
	bytes, most, count := 0, 0, 0
	for {
		var q request
		var ok bool
		if len(waiting) > 0 { // answer late, one by one
			select {
			case q, ok = <-requests:
			case <-time.After(30 * time.Millisecond):
				result(waiting[0].call, null)
				bytes -= waiting[0].size
				waiting = waiting[1:]
				continue
			}
		} else {
			q, ok = <-requests
		}
		switch {
		case !ok:
			return
		case q.method == "negotiate":
			v := msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "server_version")
			v = msgpack.AppendInt(msgpack.AppendInt(msgpack.AppendArray(v, 2), 1), 2)
			result(q.call, v)
		case q.method == "open" && strings.HasPrefix(lie, "open "):
			_, _ = os.Stdout.Write(exception(q.call, strings.TrimPrefix(lie, "open "), "because"))
		case q.method == "open":
			result(q.call, msgpack.AppendBytes(nil, strings.Repeat("i", 32)))
		case q.method == "put" && lie == "lazy":
			waiting = append(waiting, q)
			bytes += q.size
			most, count = max(most, bytes), max(count, len(waiting))
		case q.method == "put" && lie == "silent":
		case q.method == "put" && strings.HasPrefix(lie, "put "):
			class, text, _ := strings.Cut(strings.TrimPrefix(lie, "put "), " ")
			_, _ = os.Stdout.Write(exception(q.call, class, text))
		case q.method == "commit" && lie == "lazy":
			_, _ = os.Stdout.Write(exception(q.call, "Most", fmt.Sprint(most, " ", count)))
		case q.method == "commit" && lie == "dies":
			return
		case q.method == "commit" && strings.HasPrefix(lie, "commit "):
			_, _ = os.Stdout.Write(exception(q.call, strings.TrimPrefix(lie, "commit "), "because"))
		case q.method == "list" && lie == "list":
			result(q.call, msgpack.AppendBytes(msgpack.AppendArray(nil, 1), "short"))
		default:
			result(q.call, null)
		}
	}
}

// newFake makes a repository, as far as the fake goes, and begins a transaction.
func newFake(t *testing.T, lie string) (*Writer, error) {
	t.Helper()
	rsh := filepath.Join(t.TempDir(), "rsh")
	if err := os.WriteFile(rsh, fmt.Appendf(nil, "#!/bin/sh\nexec %s %s '%s'\n", os.Args[0], fakeServer, lie), 0o700); err != nil {
		t.Fatal(err)
	}
	pool := &buffer.Pool{}
	t.Cleanup(pool.Close)
	w, err := Create(t.Context(), Options{
		Host: "host", Path: "/repo", Name: "host:/repo", Logger: slog.New(slog.DiscardHandler),
		Environ: func(name string) (string, bool) { return "/bin/sh " + rsh, name == "BORG_RSH" },
		Timeout: 2 * time.Second, LockWait: time.Second,
	}, CreateOptions{}, pool)
	if err == nil {
		t.Cleanup(func() { _ = w.Rollback() })
	}
	return w, err
}

// TestOutcome: after a commit that fails it is known that nothing was committed, or
// it is said that this is not known.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		lie     string
		want    error
		unknown bool
	}{
		{"none", nil, false},
		{"dies", fault.ErrUnreachable, true},
		{"commit OSError", nil, true},
		{"commit StorageQuotaExceeded", fault.ErrQuota, false},
		{"commit InsufficientFreeSpaceError", fault.ErrNoSpace, false},
		{"put StorageQuotaExceeded because", fault.ErrQuota, false},
		{"put OSError No space left on device", fault.ErrNoSpace, false},
		{"silent", fault.ErrUnreachable, false},
	} {
		t.Run(c.lie, func(t *testing.T) {
			t.Parallel()
			w, err := newFake(t, c.lie)
			if err != nil {
				t.Fatal(err)
			}
			err = w.Put(t.Context(), [32]byte{1}, []byte("object"))
			err = errors.Join(err, w.Commit(t.Context()))
			if (err != nil) != (c.lie != "none") || c.want != nil && !errors.Is(err, c.want) || errors.Is(err, fault.ErrUnknown) != c.unknown {
				t.Errorf("got %v", err)
			}
			if err := w.Put(t.Context(), [32]byte{2}, nil); err == nil {
				t.Error("it goes on after its end")
			}
		})
	}
}

// TestOpeningRefused: why a repository cannot be made is told apart.
func TestOpeningRefused(t *testing.T) {
	for class, want := range map[string]error{
		"AlreadyExists": fault.ErrExists, "PathAlreadyExists": fs.ErrExist, "ParentPathDoesNotExist": fs.ErrNotExist,
		"PathNotAllowed": fs.ErrPermission, "LockTimeout": fault.ErrLocked,
	} {
		if _, err := newFake(t, "open "+class); !errors.Is(err, want) || !strings.Contains(err.Error(), "because") {
			t.Errorf("%s: %v", class, err)
		}
	}
}

// TestPipeline: many puts are on their way at once, but no more bytes and calls of
// them than a server takes.
func TestPipeline(t *testing.T) {
	for _, c := range []struct{ count, size, least int }{{200, 100, InFlight / 2}, {30, 3 << 20, 5}, {3, 20 << 20, 1}} {
		w, err := newFake(t, "lazy")
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, c.size)
		for n := range c.count {
			if err := w.Put(t.Context(), [32]byte{byte(n)}, data); err != nil {
				t.Fatal(err)
			}
		}
		e, ok := errors.AsType[*RemoteError](w.Commit(t.Context()))
		if !ok {
			t.Fatal("no word of the server")
		}
		var most, count int
		if _, err := fmt.Sscan(e.text, &most, &count); err != nil {
			t.Fatal(err)
		}
		if most > putBytes || count > InFlight || count < c.least {
			t.Errorf("%+v: %d bytes, %d calls", c, most, count)
		}
	}
}

// TestNonsense: an answer that makes no sense is an error, and so is a caller who has
// gone.
func TestNonsense(t *testing.T) {
	w, err := newFake(t, "list")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.List(t.Context(), func([32]byte) {}); !errors.Is(err, fault.ErrUnsupported) {
		t.Errorf("list: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Put(ctx, [32]byte{1}, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, context.Canceled) || errors.Is(err, fault.ErrUnknown) {
		t.Errorf("commit: %v", err)
	}
}
