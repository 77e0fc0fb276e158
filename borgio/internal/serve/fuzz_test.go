package serve

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// answer packs what a server sends: pairs of a key and a packed value.
func answer(fields ...any) []byte {
	b := msgpack.AppendMap(nil, len(fields)/2)
	for i := 0; i < len(fields); i += 2 {
		b = msgpack.AppendBytes(b, fields[i].(string))
		b = append(b, fields[i+1].([]byte)...)
	}
	return b
}

func packText(s string) []byte { return msgpack.AppendBytes(nil, s) }

func packInt(n int64) []byte { return msgpack.AppendInt(nil, n) }

func packList(values ...[]byte) []byte {
	return append(msgpack.AppendArray(nil, len(values)), bytes.Join(values, nil)...)
}

// FuzzFrame reads answers that may be anything. The stream is cut exactly
// where the values are, and an answer takes on the heap no more than its length
// and 32 bytes for each of the values that it may have.
func FuzzFrame(f *testing.F) {
	f.Add(answer("i", packInt(1), "r", packText("abc")))
	f.Add(answer("i", packInt(1), "r", []byte{0xc0}))
	f.Add(answer("i", packInt(200), "r", answer("server_version", packList(packInt(1), packInt(2), packInt(4), packInt(-1)))))
	f.Add(answer("i", packInt(7), "exception_class", packText("Repository.ObjectNotFound"),
		"exception_args", packList(packText(strings.Repeat("ab", 32)), packText("/repo"), packInt(3)),
		"exception_full", packText("Traceback (most recent call last):\n  File …"),
		"exception_short", packList(packText("Traceback"), packText("Repository.ObjectNotFound: abc")),
		"exception_trace", []byte{0xc2}, "sysinfo", packText("Platform: Linux")))
	f.Add(answer("i", packInt(2), "exception_class", packText("LockTimeout"), "exception_args", packList(packText("/repo/lock.exclusive"))))
	f.Add(packCall(7, "get", []arg{{"id", msgpack.AppendBytes(nil, make([]byte, 32))}}))
	f.Add(packList(packInt(1), packInt(3), []byte{0xc0}, packText("borg 1.0")))
	f.Add(bytes.Repeat([]byte{0x91}, 40))
	f.Add([]byte("\x82\xa1i\x01\xa1r\xc6\x7f\xff\xff\xffx"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, pool := bufio.NewReaderSize(bytes.NewReader(in), 16), &buffer.Pool{}
		defer pool.Close()
		rest := msgpack.NewReader(in)
		for {
			start := rest.Pos()
			whole := rest.Skip()
			b, err := readFrame(r, pool)
			if err != nil {
				if errors.Is(err, io.EOF) && start < len(in) {
					t.Fatalf("an end at %d of %d", start, len(in))
				}
				return // a whole one may still be too long or too deep
			}
			if whole != nil || !bytes.Equal(b.Data, in[start:rest.Pos()]) {
				t.Fatalf("frame %x where %x is, %v", b.Data, in[start:rest.Pos()], whole)
			}
			checkReply(t, b.Data)
			b.Release()
		}
	})
}

// checkReply takes one answer apart.
func checkReply(t *testing.T, frame []byte) {
	var rep reply
	var err error
	over := heap.Over(len(frame)+32*min(len(frame), maxFrameValues), func() {
		if rep, err = parseReply(frame); err == nil {
			_, _, _ = serverVersion(rep.result)
		}
	})
	if over > 0 {
		t.Errorf("%d bytes on the heap over the bound for an answer of %d", over, len(frame))
	}
	if err != nil {
		return
	}
	if rep.call < 0 || rep.result == nil && rep.err == nil {
		t.Fatalf("an answer that says nothing: %+v", rep)
	}
	if rep.err != nil {
		if text := rep.err.Error(); len(text) > 2*maxExceptionArgs*maxExceptionText || strings.ContainsAny(text, "\n\r") {
			t.Fatalf("%q is no line for a person", text)
		}
		return
	}
	// What the server would send for this answer is read the same.
	again, err := parseReply(answer("r", rep.result, "i", packInt(rep.call)))
	if err != nil || again.call != rep.call || !bytes.Equal(again.result, rep.result) {
		t.Fatalf("%+v comes back as %+v, %v", rep, again, err)
	}
}

// FuzzStderr: however what a remote says is cut, the same is made of it, and
// only its last lines are kept.
func FuzzStderr(f *testing.F) {
	for _, s := range []string{
		"Host key verification failed.\r\n", "bash: borg: command not found\n",
		"$LOG INFO borg.repository Remote: creating lock\n$LOG x\n", "Remote: \x1b[31mred\x1b[0m\n",
		`{"type": "log_message", "message": "waiting", "name": "x"}` + "\n" + `{"type": "progress_percent"}` + "\n",
		"Traceback (most recent call last):\n  File \"x\"\nBorg: 2.0.0  Python: CPython\n",
		strings.Repeat("x", 9000) + "\n" + strings.Repeat("a\n", 20),
	} {
		f.Add(s, 5)
	}
	silent := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, said string, cut int) {
		if cut < 0 || cut > len(said) {
			cut = len(said) / 2
		}
		var text string
		over := heap.Over(16*len(said), func() {
			whole := &stderrTail{log: silent}
			_, _ = whole.Write([]byte(said)) // never fails
			text = whole.String()
		})
		if over > 0 {
			t.Errorf("%d bytes on the heap over the bound for %d", over, len(said))
		}
		parts := &stderrTail{log: silent}
		_, _ = parts.Write([]byte(said[:cut]))
		_, _ = parts.Write([]byte(said[cut:]))
		if again := parts.String(); again != text {
			t.Fatalf("%q, in two parts %q", text, again)
		}
		if most := (stderrLines + 1) * (stderrLineSize + len("; ")) * 3; len(text) > most { // JSON's bad bytes take three each
			t.Fatalf("%d bytes are kept", len(text))
		}
		err := explainExit(nil, io.EOF, text)
		if !errors.Is(err, fault.ErrUnreachable) && !errors.Is(err, fault.ErrUnsupported) {
			t.Fatalf("%v is of no kind", err)
		}
		if strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 1000 {
			t.Fatalf("%q is no line for a person", err)
		}
	})
}
