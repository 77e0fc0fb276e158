package dockeragent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/dockertest"
)

// bench is an engine with an image that has a shell, and a project's agent.
type bench struct {
	*dockertest.Engine
	t      *testing.T
	client *dockerapi.Client
	dir    string // the agent's
}

const image = "s4-shell"

func newBench(t *testing.T) *bench {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		missing(t, err.Error())
	}
	e := dockertest.New(t, dockertest.Options{})
	host, _ := strings.CutPrefix(e.Env()[0], "DOCKER_HOST=")
	client, err := dockerapi.New(host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	files := map[string]string{"/bin/busybox": busybox}
	for _, name := range []string{"sh", "sleep", "mkdir", "mv", "rm", "cat", "touch", "printenv"} {
		files["/bin/"+name] = busybox
	}
	// Stand-ins for a server's own programs; what of them is used is real.
	scripts := t.TempDir()
	for name, text := range map[string]string{
		"pg_dumpall": `#!/bin/sh
echo "dumped by $*"`,
		"mysqldump": `#!/bin/sh
[ "$MYSQL_PWD" = secret ] || { echo "access denied" >&2; exit 2; }
echo "dumped by $*"`,
	} {
		path := filepath.Join(scripts, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		files["/bin/"+name] = path
	}
	for file := range sqliteProgram(t) {
		files[file] = file
	}
	e.Import(image, files, `ENV PATH=/bin:/usr/bin`)
	return &bench{Engine: e, t: t, client: client, dir: t.TempDir()}
}

// sqliteProgram is sqlite3 and the libraries it needs.
func sqliteProgram(t *testing.T) map[string]bool {
	t.Helper()
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		missing(t, err.Error())
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{program: true}
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") {
			files[field] = true
		}
	}
	return files
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// run starts a container of the project "app"; what a shell does there is the
// last argument.
func (b *bench) run(name string, args ...string) {
	b.t.Helper()
	last := len(args) - 1
	all := append([]string{"run", "-d", "--name", name, "--network", "none", "--label", composeProject + "=app", "--label", composeService + "=" + name}, args[:last]...)
	b.Docker(append(all, image, "sh", "-c", args[last])...)
}

// sleeps goes on, and ends at once when it is told to.
const sleeps = "trap 'exit 0' TERM; while :; do sleep 0.1; done"

func (b *bench) agent(p Backup) *Agent {
	b.t.Helper()
	a, err := New(b.t.Context(), Config{Engine: b.client, Project: "app", Dir: b.dir, Backup: p,
		Defaults: Defaults{Remote: "/place"}, Log: slog.New(slog.NewTextHandler(b.t.Output(), nil))})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { a.Close() })
	return a
}

// states are the containers' in the order of their names: "NAME=running …".
func (b *bench) states() string {
	b.t.Helper()
	list, err := b.client.Containers(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	var all []string
	for _, c := range list {
		all = append(all, c.Name()+"="+c.State)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (b *bench) waitFor(what string, is func() bool) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s did not happen; containers: %s", what, b.states())
		}
	}
}

// started is when a container was started last.
func (b *bench) started(name string) string {
	b.t.Helper()
	return b.Docker("inspect", "-f", "{{.State.StartedAt}}", name)
}

type pushFunc func(ctx context.Context, v Volume) (Result, error)

func (f pushFunc) Push(ctx context.Context, v Volume) (Result, error) { return f(ctx, v) }

// However a backup ends, exactly what was running before runs again, and the
// rest is as it was.
func TestHold(t *testing.T) {
	b := newBench(t)
	const data = "data:/data"
	b.run("fill", "-v", data, "echo x >/data/file")
	b.run("a-pause", "-v", data, "--label", "s4.quiesce=pause", sleeps)
	b.run("b-stop", "-v", data, "--label", "s4.quiesce=stop", sleeps)
	b.run("c-none", "-v", data, sleeps)
	b.run("d-reads", "-v", data+":ro", "--label", "s4.quiesce=stop", sleeps)
	b.run("e-down", "-v", data, "--label", "s4.quiesce=stop", "exit 0")
	b.run("f-frozen", "-v", data, "--label", "s4.quiesce=pause", sleeps)
	b.Docker("pause", "f-frozen")
	b.run("g-other", "-v", "other:/data", "--label", "s4.quiesce=stop", "--label", "s4.enable=false", sleeps)
	b.waitFor("the end of those that end", func() bool { return strings.Count(b.states(), "=exited") == 2 })
	before := b.states()
	const during = "a-pause=paused b-stop=exited c-none=running d-reads=running e-down=exited f-frozen=paused fill=exited g-other=running"
	if before != "a-pause=running b-stop=running c-none=running d-reads=running e-down=exited f-frozen=paused fill=exited g-other=running" {
		t.Fatal(before)
	}
	never := b.started("c-none") + b.started("d-reads") + b.started("g-other")

	refused, errPanic := errors.New("refused"), errors.New("a panic")
	for _, tt := range []struct {
		name string
		max  time.Duration
		push func(ctx context.Context, cancel context.CancelFunc, v Volume) (Result, error)
		want error
	}{
		{name: "good", push: func(context.Context, context.CancelFunc, Volume) (Result, error) { return Result{Files: 1}, nil }},
		{name: "error", push: func(context.Context, context.CancelFunc, Volume) (Result, error) { return Result{}, refused }, want: refused},
		{name: "interrupted", push: func(ctx context.Context, cancel context.CancelFunc, _ Volume) (Result, error) {
			cancel()
			<-ctx.Done()
			return Result{}, ctx.Err()
		}, want: context.Canceled},
		{name: "panic", push: func(context.Context, context.CancelFunc, Volume) (Result, error) { panic("oh") }, want: errPanic},
		{name: "captured", push: func(_ context.Context, _ context.CancelFunc, v Volume) (Result, error) {
			v.Captured()
			if got := b.states(); got != before {
				t.Errorf("captured, but %s", got)
			}
			return Result{}, nil
		}},
		{name: "too long", max: time.Second, push: func(ctx context.Context, _ context.CancelFunc, _ Volume) (Result, error) {
			<-ctx.Done()
			// Also a push that does not end keeps nothing down.
			b.waitFor("the end of the hold", func() bool { return b.states() == before })
			return Result{}, ctx.Err()
		}, want: ErrHeldTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			pushed := 0
			a := b.agent(pushFunc(func(pushCtx context.Context, v Volume) (Result, error) {
				pushed++
				if got := b.states(); got != during {
					t.Errorf("during the backup %s\nwant %s", got, during)
				}
				if held := b.journal().list(); len(held) != 2 || !held[0].Done {
					t.Errorf("the journal has %+v", held)
				}
				return tt.push(pushCtx, cancel, v)
			}))
			defer a.Close()
			if tt.max != 0 {
				a.maxHold = tt.max
			}
			err := a.Once(ctx)
			if errors.Is(tt.want, errPanic) {
				if _, ok := errors.AsType[*panicError](err); !ok {
					t.Errorf("error %v", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if got := b.states(); got != before {
				t.Errorf("after the backup %s\nbefore it        %s", got, before)
			}
			if held := a.holder.journal.list(); len(held) != 0 || pushed != 1 {
				t.Errorf("%d pushes, the journal has %+v", pushed, held)
			}
		})
	}
	if now := b.started("c-none") + b.started("d-reads") + b.started("g-other"); now != never {
		t.Error("a container was started anew that had nothing to do with it")
	}
}

// journal is what the next process would read.
func (b *bench) journal() *journal {
	j, err := openJournal(b.dir)
	if err != nil {
		b.t.Error(err)
		return &journal{}
	}
	return j
}

// crashEnv makes this test binary an agent that is going to be killed.
const crashEnv = "S4_TEST_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashing(dir)
		return
	}
	os.Exit(m.Run())
}

// crashing is an agent whose push does not end.
func crashing(dir string) {
	client, err := dockerapi.New("")
	if err != nil {
		panic(err)
	}
	a, err := New(context.Background(), Config{Engine: client, Project: "app", Dir: dir, Log: slog.New(slog.DiscardHandler), Defaults: Defaults{Remote: "/place"},
		Backup: pushFunc(func(context.Context, Volume) (Result, error) {
			_, _ = io.WriteString(os.Stdout, "pushing\n")
			select {}
		})})
	if err != nil {
		panic(err)
	}
	_ = a.Run(context.Background())
}

// An agent that is killed leaves nothing down for longer than until the next
// one starts, in whatever phase it was.
func TestCrash(t *testing.T) {
	b := newBench(t)
	b.run("fill", "-v", "data:/data", "echo x >/data/file")
	b.run("paused", "-v", "data:/data", "--label", "s4.quiesce=pause", sleeps)
	b.run("quick", "-v", "data:/data", "--label", "s4.quiesce=stop", sleeps)
	// Made last, so held first. It does not listen to SIGTERM, which takes 3 s.
	b.run("slow", "-v", "data:/data", "--label", "s4.quiesce=stop", "--stop-timeout", "3", "trap '' TERM; while :; do sleep 0.1; done")
	b.waitFor("the end of fill", func() bool { return strings.Contains(b.states(), "fill=exited") })
	before := b.states()

	for _, tt := range []struct {
		name string
		when func(stdout string) bool // to kill it
		held string                   // what the kill leaves; "" is not asked
	}{
		{"while it stops", func(string) bool { return len(b.journal().list()) == 1 }, ""},
		{"while it pushes", func(out string) bool { return out != "" }, "fill=exited paused=paused quick=exited slow=exited"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(append(os.Environ(), b.Env()...), crashEnv+"="+b.dir)
			var out strings.Builder
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pushing := make(chan string, 1)
			go func() {
				buf := make([]byte, 100)
				n, _ := stdout.Read(buf)
				pushing <- string(buf[:n])
			}()
			slow := b.started("slow")
			b.waitFor("the moment to kill it", func() bool {
				select {
				case s := <-pushing:
					out.WriteString(s)
				default:
				}
				return tt.when(out.String())
			})
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := b.states(); tt.held != "" && got != tt.held {
				t.Errorf("killed, it leaves %s", got)
			}

			next := b.agent(pushFunc(func(context.Context, Volume) (Result, error) { return Result{}, nil }))
			defer next.Close()
			if _, err := next.discover(t.Context()); err != nil {
				t.Error(err)
			}
			if got := b.states(); got != before {
				t.Errorf("the next agent leaves %s", got)
			}
			if b.started("slow") == slow {
				t.Error("slow was stopped by the engine, but not started again")
			}
			if held := b.journal().list(); len(held) != 0 {
				t.Errorf("the journal has %+v", held)
			}
		})
	}
}

// What somebody else did to a held container stays.
func TestHeldMeanwhile(t *testing.T) {
	b := newBench(t)
	b.run("fill", "-v", "data:/data", "echo x >/data/file")
	for _, name := range []string{"gone", "started", "unpaused"} {
		how := "stop"
		if name == "unpaused" {
			how = "pause"
		}
		b.run(name, "-v", "data:/data", "--label", "s4.quiesce="+how, sleeps)
	}
	b.run("stopped", "-v", "data:/data", "--label", "s4.quiesce=pause", sleeps)
	a := b.agent(pushFunc(func(context.Context, Volume) (Result, error) {
		b.Docker("rm", "-f", "gone")
		b.Docker("start", "started")
		b.Docker("unpause", "unpaused")
		b.Docker("unpause", "stopped")
		b.Docker("stop", "stopped")
		return Result{}, nil
	}))
	if err := a.Once(t.Context()); err != nil {
		t.Error(err)
	}
	if got := b.states(); got != "fill=exited started=running stopped=exited unpaused=running" {
		t.Error(got)
	}
}

func TestDump(t *testing.T) {
	b := newBench(t)
	for _, tt := range []struct {
		name, label string
		args        []string
		prepare     string // what the container does first
		want        map[string]string
		wrong       string
	}{
		{name: "postgres", label: "postgres", args: []string{"-e", "POSTGRES_USER=me"}, want: map[string]string{"postgres.sql": "dumped by --clean --if-exists -U me\n"}},
		{name: "mysql", label: "mysql", args: []string{"-e", "MYSQL_ROOT_PASSWORD=secret"}, want: map[string]string{"mysql.sql": "dumped by -uroot --all-databases --single-transaction --routines --events\n"}},
		{name: "secret", label: "mysql", args: []string{"-e", "MYSQL_ROOT_PASSWORD_FILE=/data/pw"}, prepare: "echo secret >/data/pw; ", want: map[string]string{"secret.sql": "dumped by -uroot --all-databases --single-transaction --routines --events\n"}},
		{name: "denied", label: "mysql", args: []string{"-e", "MYSQL_ROOT_PASSWORD=x"}, wrong: "container denied: dump by mysql failed with exit code 2: access denied"},
		{name: "cmd", label: `echo "it's $HOME"`, args: []string{"-e", "HOME=/h"}, want: map[string]string{"cmd.dump": "it's /h\n"}},
		{name: "quiet", label: "touch /data/done", want: map[string]string{}},
		{name: "absent", label: "no-such-program x", wrong: "failed with exit code 127"},
		{name: "fails", label: "echo half; exit 3", wrong: "failed with exit code 3"},
		{name: "sqlite", label: "sqlite", prepare: "mkdir -p /data/sub; sqlite3 '/data/sub/my app.db' 'create table t(x); insert into t values(42)'; ",
			want: map[string]string{"sub_my app.db": "SQLite format 3"}},
		{name: "none", label: "sqlite", wrong: "no sqlite database"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"-v", tt.name + ":/data", "--label", "s4.dump=" + tt.label}, tt.args...)
			b.run(tt.name, append(args, "echo x >/data/file; "+tt.prepare+"touch /ready; "+sleeps)...)
			b.waitFor("the start", func() bool { _, err := b.Try("exec", tt.name, "cat", "/ready"); return err == nil })
			defer b.Docker("rm", "-f", tt.name)
			var found map[string]string
			a := b.agent(pushFunc(func(_ context.Context, v Volume) (Result, error) {
				found = map[string]string{}
				entries, _ := os.ReadDir(filepath.Join(v.Path, DumpDir))
				for _, e := range entries {
					data, _ := os.ReadFile(filepath.Join(v.Path, DumpDir, e.Name()))
					found[e.Name()] = string(data)
				}
				return Result{}, nil
			}))
			defer a.Close()
			err := a.Once(t.Context())
			if tt.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wrong) || found != nil {
					t.Errorf("error %v, pushed %v", err, found)
				}
				return
			}
			if err != nil || len(found) != len(tt.want) {
				t.Errorf("error %v, found %q", err, found)
			}
			for name, want := range tt.want {
				if got := found[name]; got != want && (tt.label != "sqlite" || !strings.HasPrefix(got, want)) {
					t.Errorf("%s has %q, want %q", name, got, want)
				}
			}
			if tt.label == "sqlite" {
				if got := b.Docker("exec", tt.name, "sqlite3", "/data/.s4-dump/sub_my app.db", "select x from t"); got != "42" {
					t.Errorf("the copy has %q", got)
				}
			}
		})
	}
}

// The loop: an empty volume is waited for, a new service is found when it
// starts, a volume that has become empty is not pushed.
func TestRun(t *testing.T) {
	b := newBench(t)
	b.run("first", "-v", "one:/data", "--label", "s4.quiesce=pause", "echo x >/data/file; "+sleeps)
	b.run("empty", "-v", "nothing:/data", "touch /ready; mkdir /data/dir; "+sleeps)
	pushed := make(chan string, 10)
	agent := b.agent(pushFunc(func(_ context.Context, v Volume) (Result, error) {
		pushed <- v.Name
		return Result{Files: 7}, nil
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- agent.Run(ctx) }()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-pushed:
			if got != want {
				t.Errorf("pushed %s, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s was not pushed", want)
		}
	}
	next("one")
	b.run("second", "-v", "two:/data", "echo x >/data/file; "+sleeps)
	next("two")
	if _, err := New(t.Context(), Config{Engine: b.client, Project: "app", Dir: b.dir}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent: %v", err)
	}
	b.waitFor("the status", func() bool {
		s, err := loadState(b.dir, "app")
		return err == nil && s.Volumes["two"] != nil && !s.Volumes["two"].LastGood.IsZero() && s.Volumes["nothing"].Empty
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := agent.Close(); err != nil {
		t.Error(err)
	}

	b.Docker("exec", "first", "rm", "/data/file")
	again := b.agent(pushFunc(func(_ context.Context, v Volume) (Result, error) {
		if v.Name != "two" {
			t.Errorf("pushed %s", v.Name)
		}
		return Result{}, nil
	}))
	err := again.Once(t.Context())
	if !errors.Is(err, ErrEmpty) {
		t.Errorf("error %v", err)
	}
	if got := again.state.Volumes["one"].Error; !strings.Contains(got, "had 7 files") {
		t.Errorf("status tells %q", got)
	}
}
