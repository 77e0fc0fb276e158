package borgio_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// fakeServer as its first argument makes the test binary stand in for ssh and
// for the borg serve behind it.
const fakeServer = "fake-borg-serve"

// fake is a server of a repository without encryption that holds fakeContent.
// It is honest but for its lie.
type fake struct {
	dir string // what the servers of one test share
	out io.Writer
	lie func(*fake, request) bool // reports whether it dealt with the request
	// What lies remember of this session.
	guard bool // it was opened under a lock
	kept  []request
}

// request is one call, with the arguments that matter.
type request struct {
	call   int64
	method string
	id     [32]byte
	lock   bool
}

const (
	fakeChunkSize  = 200_000
	fakeChunkCount = 8
)

// fakeRepository is the id of the repository that fakes serve.
var fakeRepository = bytes.Repeat([]byte{7}, 32)

// fakeContent is a file's content and its chunks.
var fakeContent = sync.OnceValues(func() ([]byte, []borgio.Chunk) {
	body := make([]byte, fakeChunkCount*fakeChunkSize)
	rand.NewChaCha8([32]byte{4}).Read(body)
	var chunks []borgio.Chunk
	for i := range fakeChunkCount {
		chunks = append(chunks, borgio.Chunk{ID: sha256.Sum256(body[i*fakeChunkSize:][:fakeChunkSize]), Size: fakeChunkSize})
	}
	return body, chunks
})

// stored is what a repository without encryption stores of a plaintext.
func stored(plain []byte) []byte { return append([]byte{2, 0, 0}, plain...) }

// runFakeServer serves as the arguments say and gives the exit code:
// fakeServer DIR NAME-OF-THE-LIE HOST borg serve.
func runFakeServer(args []string) int {
	f := &fake{dir: args[1], out: os.Stdout}
	for _, h := range hostile {
		if h.name == args[2] {
			f.lie = h.lie
		}
	}
	calls, err := os.OpenFile(filepath.Join(f.dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(calls, os.Getpid())
		calls.Close()
	}
	if err == nil {
		if f.lie(f, request{method: "start"}) {
			return 1
		}
		err = f.serve(os.Stdin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (f *fake) serve(in io.Reader) error {
	var unread []byte
	piece := make([]byte, 64<<10)
	for {
		q, rest, err := parseRequest(unread)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			n, err := in.Read(piece)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			unread = append(unread, piece[:n]...)
			continue
		}
		if err != nil {
			return err
		}
		unread = rest
		if q.method == "open" {
			f.guard = q.lock
		}
		if !f.lie(f, q) {
			f.answer(q)
		}
	}
}

func parseRequest(b []byte) (q request, rest []byte, err error) {
	r := msgpack.NewReader(b)
	err = r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "i":
			q.call, err = r.Int()
		case "m":
			q.method, err = r.String()
		default:
			err = r.Fields(func(arg []byte) (err error) {
				switch string(arg) {
				case "id":
					err = r.Bytes32(&q.id)
				case "lock":
					q.lock, err = r.Bool()
				default:
					err = r.Skip()
				}
				return err
			})
		}
		return err
	})
	return q, b[r.Pos():], err
}

// answer is honest.
func (f *fake) answer(q request) {
	switch {
	case q.method == "negotiate":
		f.send(reply(q.call, version(1, 2, 4, -1)))
	case q.method == "open":
		f.send(reply(q.call, msgpack.AppendBytes(nil, fakeRepository)))
	case q.method != "get":
		f.send(exception(q.call, "InvalidRPCMethod", q.method))
	case q.id == [32]byte{}:
		f.send(reply(q.call, msgpack.AppendBytes(nil, fakeManifest())))
	default:
		body, chunks := fakeContent()
		for i, c := range chunks {
			if c.ID == q.id {
				f.send(reply(q.call, msgpack.AppendBytes(nil, stored(body[i*fakeChunkSize:][:fakeChunkSize]))))
				return
			}
		}
		f.send(exception(q.call, "ObjectNotFound", "it"))
	}
}

// send writes all of b, or ends the process.
func (f *fake) send(b []byte) {
	if _, err := f.out.Write(b); err != nil {
		os.Exit(1)
	}
}

// once reports true to one server of the test only.
func (f *fake) once(name string) bool {
	file, err := os.OpenFile(filepath.Join(f.dir, name), os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		file.Close()
	}
	return err == nil
}

// stall waits to be killed.
func stall() { time.Sleep(time.Hour) }

func fakeManifest() []byte {
	b := msgpack.AppendMap(nil, 4)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "version"), 1)
	b = msgpack.AppendMap(msgpack.AppendBytes(b, "archives"), 0)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "timestamp"), "2020-02-02T02:02:02.000000")
	b = msgpack.AppendMap(msgpack.AppendBytes(b, "config"), 0)
	return stored(b)
}

// reply is an answer in borg's form.
func reply(call int64, result []byte) []byte {
	b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 2), "i"), call)
	return append(msgpack.AppendBytes(b, "r"), result...)
}

// version is what negotiate gives.
func version(v ...int64) []byte {
	b := msgpack.AppendArray(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "server_version"), len(v))
	for _, n := range v {
		b = msgpack.AppendInt(b, n)
	}
	return b
}

// exception is an answer in the form of borg 1.1 to 1.4.
func exception(call int64, class, arg string) []byte {
	b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 7), "i"), call)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "exception_class"), class)
	b = msgpack.AppendBytes(msgpack.AppendArray(msgpack.AppendBytes(b, "exception_args"), 1), arg)
	b = msgpack.AppendBytes(msgpack.AppendArray(msgpack.AppendBytes(b, "exception_full"), 1), "Traceback (most recent call last):\n")
	b = msgpack.AppendBytes(msgpack.AppendArray(msgpack.AppendBytes(b, "exception_short"), 1), class+": "+arg)
	b = msgpack.AppendBool(msgpack.AppendBytes(b, "exception_trace"), false)
	return msgpack.AppendBytes(msgpack.AppendBytes(b, "sysinfo"), "Platform: Linux\nBorg: 1.2.4  Python: CPython 3.11.2\n")
}
