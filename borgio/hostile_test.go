package borgio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

const hostileTimeout = 3 * time.Second

// errAny stands for an error of no kind.
var errAny = errors.New("any")

// hostile are the ways of a server, and what a client makes of them: the right
// bytes, or an error in time.
var hostile = []struct {
	name string
	lie  func(*fake, request) bool
	want error // nil: the bytes are right
	says string
}{
	{"honest", func(*fake, request) bool { return false }, nil, ""},

	// Versions, in the very bytes that they answer with.
	{"borg 1.1.16", negotiates("\x81\xaeserver_version\x94\x01\x01\x10\xff"), nil, ""},
	{"borg 1.4.0", negotiates("\x81\xaeserver_version\x94\x01\x04\x00\xff"), nil, ""},
	{"borg 2.0.0b25", negotiates("\x81\xaeserver_version\x95\x02\x00\x00\xfd\x19"), borgio.ErrUnsupported, "runs borg 2.0, not"},
	{"borg 1.0 by number", negotiates("\x02"), borgio.ErrUnsupported, "runs borg 1.0, not"},
	{"borg 1.0 by form", startsWith("\x94\x01\x01\xc0\x02", "", stall), borgio.ErrUnsupported, "runs borg 1.0, not"},
	{
		"borg 1.0 by its last words", startsWith("", "Traceback (most recent call last):\n  …\nException: Unexpected RPC data format.\n", nil),
		borgio.ErrUnsupported, "runs borg 1.0, not",
	},
	{
		"borg 1.0 by its report", startsWith("", "AttributeError: 'NoneType' object has no attribute 'close'\n\nPlatform: Linux\nBorg: 1.0.9  Python: CPython 3.5.3\nPID: 1  CWD: /\n", nil),
		borgio.ErrUnsupported, "runs borg 1.0, not",
	},
	{
		"borg 2 by its last words", startsWith("", "Borg 2.0.0b25: Got unexpected RPC data format from client.\n", nil),
		borgio.ErrUnsupported, "runs borg 2.0, not",
	},
	{"crash of borg 1.4", startsWith("", "Borg: 1.4.0  Python: CPython 3.13.5\n", nil), borgio.ErrUnreachable, "1.4.0"},
	{"version of text", negotiates("\x81\xaeserver_version\xa51.2.4"), borgio.ErrUnsupported, "makes no sense"},

	{"never reads", startsWith("", "", stall), borgio.ErrUnreachable, "no answer"},
	{"stalls at negotiate", on("negotiate", func(*fake, request) { stall() }), borgio.ErrUnreachable, "no answer"},
	{"negotiates twice", on("negotiate", func(f *fake, q request) { f.answer(q); f.answer(q) }), borgio.ErrUnreachable, "nobody made"},
	{"stalls at open", on("open", func(*fake, request) { stall() }), borgio.ErrUnreachable, "no answer"},
	{"dies at open", on("open", func(*fake, request) { os.Exit(1) }), borgio.ErrUnreachable, "connection ended"},
	{"id too short", result("open", msgpack.AppendBytes(nil, "short")), borgio.ErrUnsupported, "makes no sense"},
	{"id of another type", result("open", msgpack.AppendInt(nil, 32)), borgio.ErrUnsupported, "makes no sense"},
	{"path not allowed", raises("open", "PathNotAllowed"), fs.ErrPermission, "PathNotAllowed"},
	{"lock cannot be made", raises("open", "LockFailed"), fs.ErrPermission, "LockFailed"},
	{"nothing there", raises("open", "DoesNotExist"), borgio.ErrNotRepository, ""},
	{"another repository for the reader", on("open", func(f *fake, q request) {
		id := bytes.Clone(fakeRepository)
		if !q.lock {
			id[0]++
		}
		f.send(reply(q.call, msgpack.AppendBytes(nil, id)))
	}), borgio.ErrUnreachable, "different repositories"},
	{"manifest is no bytes", result("manifest", msgpack.AppendNil(nil)), borgio.ErrIntegrity, "answer"},
	{"manifest is empty", result("manifest", msgpack.AppendBytes(nil, "")), borgio.ErrIntegrity, "key type"},
	{"stalls at the manifest", on("manifest", func(*fake, request) { stall() }), borgio.ErrUnreachable, "no answer"},

	{"wrong bytes", on("object", func(f *fake, q request) {
		f.send(reply(q.call, msgpack.AppendBytes(nil, stored(make([]byte, fakeChunkSize)))))
	}), borgio.ErrIntegrity, "id"},
	{"another object", on("object", func(f *fake, q request) {
		_, chunks := fakeContent()
		q.id = chunks[fakeChunkCount-1].ID
		f.answer(q)
	}), borgio.ErrIntegrity, "id"},
	{"too few bytes", result("object", msgpack.AppendBytes(nil, stored([]byte("few")))), borgio.ErrIntegrity, ""},
	{"object is empty", result("object", msgpack.AppendBytes(nil, "")), borgio.ErrIntegrity, ""},
	{"object is a number", result("object", msgpack.AppendInt(nil, 1)), borgio.ErrIntegrity, "answer"},
	{"object is a map", result("object", version(1)), borgio.ErrIntegrity, "answer"},
	{"object is not there", raises("object", "ObjectNotFound"), fs.ErrNotExist, ""},
	{"object is damaged", raises("object", "IntegrityError"), borgio.ErrIntegrity, ""},
	{"exception of no kind", raises("object", "ValueError"), errAny, "ValueError"},
	{"exception of many", on("object", func(f *fake, q request) {
		b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 3), "i"), q.call)
		b = msgpack.AppendBytes(msgpack.AppendBytes(b, "exception_class"), strings.Repeat("E", 1<<20))
		b = msgpack.AppendArray(msgpack.AppendBytes(b, "exception_args"), 60_000)
		f.send(append(b, bytes.Repeat([]byte{0xa1, 'e'}, 60_000)...))
	}), errAny, "EEE"},
	{"exception by a number", on("object", func(f *fake, q request) {
		b := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 2), "i"), q.call)
		f.send(msgpack.AppendInt(msgpack.AppendBytes(b, "exception_class"), 5))
	}), borgio.ErrUnreachable, "exception_class"},

	{"stalls forever", on("object", func(*fake, request) { stall() }), borgio.ErrUnreachable, "no answer"},
	{"slow but steady", on("object", func(f *fake, q request) {
		if !f.once("slow") {
			f.answer(q)
			return
		}
		out := f.out
		f.out = slow{out}
		f.answer(q)
		f.out = out
	}), nil, ""},
	{"stalls in the middle", on("object", func(f *fake, q request) {
		f.send(reply(q.call, msgpack.AppendBytes(nil, stored(make([]byte, fakeChunkSize))))[:fakeChunkSize/2])
		stall()
	}), borgio.ErrUnreachable, "no answer"},
	{"trickles", on("object", func(f *fake, q request) {
		for _, c := range reply(q.call, msgpack.AppendBytes(nil, make([]byte, fakeChunkSize))) {
			f.send([]byte{c})
			time.Sleep(50 * time.Millisecond)
		}
	}), borgio.ErrUnreachable, "no answer"},
	{"truncates and dies", on("object", func(f *fake, q request) {
		f.send(reply(q.call, msgpack.AppendBytes(nil, make([]byte, fakeChunkSize)))[:fakeChunkSize/2])
		os.Exit(0)
	}), borgio.ErrUnreachable, ""},
	{"dies of every object", on("object", func(*fake, request) { os.Exit(1) }), borgio.ErrUnreachable, "connection ended"},
	{"dies once in the middle", on("object", func(f *fake, q request) {
		if f.once("died") {
			f.send([]byte("\x82\xa1i"))
			os.Exit(1)
		}
		f.answer(q)
	}), nil, ""},
	{"dies after every object", on("object", func(f *fake, q request) { f.answer(q); os.Exit(1) }), nil, ""},
	{"dies once opened", func(f *fake, q request) bool {
		if q.method == "get" && !f.guard {
			f.answer(q)
			os.Exit(1)
		}
		return false
	}, borgio.ErrUnreachable, "connection ended"},

	{"out of order", on("object", func(f *fake, q request) {
		if f.kept = append(f.kept, q); len(f.kept) == fakeChunkCount {
			for i := range f.kept {
				f.answer(f.kept[fakeChunkCount-1-i])
			}
		}
	}), nil, ""},
	{"answers twice", on("object", func(f *fake, q request) { f.answer(q); f.answer(q) }), nil, ""},
	{"answers what nobody asked", on("object", func(f *fake, q request) { f.send(reply(q.call+1000, msgpack.AppendNil(nil))) }), borgio.ErrUnreachable, "nobody made"},
	{"answers without a result", on("object", func(f *fake, q request) {
		f.send(msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "i"), q.call))
	}), borgio.ErrUnreachable, "without id or result"},
	{"no msgpack", on("object", func(f *fake, _ request) { f.send([]byte("\xc1\xc1\xc1")) }), borgio.ErrUnreachable, "msgpack"},

	{"2 GB in one answer", on("object", func(f *fake, _ request) { f.endless("\x82\xa1i\x01\xa1r\xdb\x7f\xff\xff\xff") }), borgio.ErrUnreachable, "longer"},
	{"2 GB of values", on("object", func(f *fake, _ request) { f.endless("\x82\xa1i\x01\xa1r\xdd\x7f\xff\xff\xff") }), borgio.ErrUnreachable, "values"},
	{"deep", startsWith(strings.Repeat("\x91", 1000), "", stall), borgio.ErrUnreachable, "deep"},
	{"large answers", on("object", func(f *fake, q request) {
		f.send(reply(q.call, nil))
		f.send(manyBytes())
	}), borgio.ErrIntegrity, ""},

	{"floods stderr", func(f *fake, q request) bool {
		if q.method == "start" {
			go flood()
		}
		return false
	}, nil, ""},
	{"floods stderr and stalls", startsWith("", "", flood), borgio.ErrUnreachable, "no answer"},
	{"stays behind", func(_ *fake, q request) bool {
		if q.method == "start" {
			go stall()
			defer stall() // once its input has ended, too
			_ = (&fake{out: os.Stdout, lie: func(*fake, request) bool { return false }}).serve(os.Stdin)
		}
		return false
	}, nil, ""},
}

// on does fn in place of the answers to a method; "manifest" and "object" are
// what get is called for.
func on(method string, fn func(*fake, request)) func(*fake, request) bool {
	return func(f *fake, q request) bool {
		what := q.method
		if what == "get" {
			if what = "object"; q.id == [32]byte{} {
				what = "manifest"
			}
		}
		if what != method {
			return false
		}
		fn(f, q)
		return true
	}
}

// result gives a result of the lie's choice.
func result(method string, packed []byte) func(*fake, request) bool {
	return on(method, func(f *fake, q request) { f.send(reply(q.call, packed)) })
}

func negotiates(packed string) func(*fake, request) bool { return result("negotiate", []byte(packed)) }

// raises gives an exception.
func raises(method, class string) func(*fake, request) bool {
	return on(method, func(f *fake, q request) { f.send(exception(q.call, class, "it")) })
}

// startsWith says something without being asked, and ends after then.
func startsWith(stdout, stderr string, then func()) func(*fake, request) bool {
	return on("start", func(f *fake, _ request) {
		f.send([]byte(stdout))
		fmt.Fprint(os.Stderr, stderr)
		if then != nil {
			then()
		}
	})
}

// endless sends the beginning of an answer, and zeros for the rest.
func (f *fake) endless(head string) {
	f.send([]byte(head))
	for zeros := make([]byte, 1<<20); ; {
		f.send(zeros)
	}
}

// slow takes longer for one object than a client waits for one that does not go on.
type slow struct{ w io.Writer }

// Write is [io.Writer].
func (s slow) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		time.Sleep(hostileTimeout / 4)
		var m int
		m, err = s.w.Write(p[:min(70_000, len(p))])
		n, p = n+m, p[m:]
	}
	return n, err
}

// manyBytes is a result of 20 MiB.
var manyBytes = sync.OnceValue(func() []byte { return msgpack.AppendBytes(nil, stored(make([]byte, 20<<20))) })

func flood() {
	line := []byte(`{"type": "log_message", "levelname": "WARNING", "message": "` + strings.Repeat("x", 20<<10) + "\"}\n" + strings.Repeat("y", 1<<20))
	for {
		if _, err := os.Stderr.Write(line); err != nil {
			return
		}
	}
}

// fakeOptions lead to a server with the lie of that name.
func fakeOptions(t testing.TB, name string) (opts borgio.Options, calls string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return borgio.Options{
		Environ:  environ(fmt.Sprintf("BORG_RSH=%q %s %q %q", self, fakeServer, dir, name)),
		Timeout:  hostileTimeout,
		LockWait: time.Second,
	}, dir + "/calls"
}

// TestHostileServer: whatever a server does, the bytes are right or there is
// an error of a known kind in time, and nothing is left behind.
func TestHostileServer(t *testing.T) {
	var rows sync.WaitGroup
	slots := make(chan struct{}, 6) // more than there are processors: most just wait
	for _, h := range hostile {
		slots <- struct{}{}
		rows.Go(func() {
			defer func() { <-slots }()
			t.Run(h.name, func(t *testing.T) {
				opts, calls := fakeOptions(t, h.name)
				if !errors.Is(h.want, borgio.ErrUnreachable) && h.name != "slow but steady" {
					opts.Timeout = 40 * time.Second // time is not what matters
				}
				begun := time.Now()
				err := readFake(t, opts)
				if took := time.Since(begun); took > opts.Timeout+20*time.Second {
					t.Errorf("took %v", took)
				}
				switch {
				case h.want == nil && err != nil:
					t.Error(err)
				case h.want == nil:
				case err == nil:
					t.Error("no error")
				case !errors.Is(h.want, errAny) && !errors.Is(err, h.want), !strings.Contains(err.Error(), h.says), strings.Contains(err.Error(), "\n"), len(err.Error()) > 5000:
					t.Errorf("got %.2000v", err)
				}
				waitGone(t, calls)
			})
		})
	}
	rows.Wait()
	// Nothing else runs by now.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !bytes.Contains(stacks, []byte("borgio/internal/serve.")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines are left:\n%s", stacks)
		}
	}
}

// TestHostileServerMemory: 2 GB from a server that gives 20 MiB for each of
// many small objects asked for at once take little memory.
func TestHostileServerMemory(t *testing.T) {
	opts, calls := fakeOptions(t, "large answers")
	opts.Timeout = time.Minute
	loc, _ := borgio.ParseLocation("h:/r")
	r, err := borgio.Open(t.Context(), loc, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // forgets the peak
		t.Skip(err)
	}
	before := peakMemory(t)
	var reads sync.WaitGroup
	for i := range 100 {
		reads.Go(func() {
			file := r.OpenFile([]borgio.Chunk{{ID: borgio.ID{1, byte(i)}, Size: 1000}})
			if _, err := file.ReadAt(make([]byte, 10), 0); !errors.Is(err, borgio.ErrIntegrity) {
				t.Errorf("got %v", err)
			}
		})
	}
	reads.Wait()
	if more := peakMemory(t) - before; more > 128<<10 {
		t.Errorf("%d KiB of memory for what must be refused", more)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	waitGone(t, calls)
}

// peakMemory is the largest resident set of this process so far, in KiB.
func peakMemory(t *testing.T) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("VmHWM:"))
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// readFake opens the repository of a fake and reads all of the content, which
// must be right where there is no error.
func readFake(t *testing.T, opts borgio.Options) error {
	t.Helper()
	loc, err := borgio.ParseLocation("h:/r")
	if err != nil {
		t.Fatal(err)
	}
	r, err := borgio.Open(t.Context(), loc, opts)
	if err != nil {
		return err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	body, chunks := fakeContent()
	var got bytes.Buffer
	if _, err := r.OpenFile(chunks).WriteTo(&got); err != nil {
		return err
	}
	if !bytes.Equal(got.Bytes(), body) {
		t.Error("content differs")
	}
	return nil
}

// waitGone waits until none of the processes listed in calls runs.
func waitGone(t *testing.T, calls string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); len(running(t, calls)) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("processes are left: %v", running(t, calls))
		}
	}
}
