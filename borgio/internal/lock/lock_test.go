package lock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// holdInDirectory as its first argument makes the test binary take the lock of the
// directory in its second, say so, and wait for the end of its input.
const holdInDirectory = "hold-lock"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == holdInDirectory {
		if _, err := Exclusive(context.Background(), os.Args[2], options(0)); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("held\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func options(wait time.Duration) Options {
	return Options{Wait: wait, Environ: os.LookupEnv, Logger: slog.New(slog.DiscardHandler)}
}

func needBorg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
}

func newRepository(t *testing.T) string {
	t.Helper()
	needBorg(t)
	dir := filepath.Join(t.TempDir(), "repo")
	if out, err := exec.Command("borg", "init", "-e", "none", dir).CombinedOutput(); err != nil {
		t.Fatalf("borg init: %v: %s", err, out)
	}
	return dir
}

// borgWorks tells what borg says when it wants to write.
func borgWorks(t *testing.T, dir string) (out string, ok bool) {
	t.Helper()
	b, err := exec.Command("borg", "--lock-wait", "1", "with-lock", dir, "true").CombinedOutput()
	return string(b), err == nil
}

// hold runs a process that holds a lock once it has said a line.
func hold(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q said %q, %v", argv, line, err)
	}
	return cmd
}

func holdByBorg(t *testing.T, dir string) *exec.Cmd {
	return hold(t, "borg", "with-lock", dir, "sh", "-c", "echo held; cat")
}

func holdByUs(t *testing.T, dir string) *exec.Cmd {
	return hold(t, os.Args[0], holdInDirectory, dir)
}

// kill ends a process and all it started, as a crash would.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
}

func mustLock(t *testing.T, dir string) *Lock {
	t.Helper()
	l, err := Exclusive(t.Context(), dir, options(0))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// noLocks fails where anything of a lock is left.
func noLocks(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(dir + "/lock*"); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

// TestWithBorg: borg and we keep each other out, and let each other in again.
func TestWithBorg(t *testing.T) {
	dir := newRepository(t)
	l := mustLock(t, dir)
	if out, ok := borgWorks(t, dir); ok || !strings.Contains(out, "lock.exclusive") {
		t.Errorf("borg under our lock: %s", out)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	noLocks(t, dir)
	if out, ok := borgWorks(t, dir); !ok {
		t.Errorf("borg after our lock: %s", out)
	}

	cmd := holdByBorg(t, dir)
	_, err := Exclusive(t.Context(), dir, options(0))
	held, ok := errors.AsType[*fault.LockedError](err)
	if !ok || held.PID != cmd.Process.Pid || held.Reader || !errors.Is(err, fault.ErrLocked) {
		t.Errorf("under borg's lock: %v", err)
	}
	names, err := os.ReadDir(dir + "/lock.exclusive")
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	host, err := hostID(t.Context(), os.LookupEnv)
	if err != nil || (holder{host: host, pid: cmd.Process.Pid}).name() != names[0].Name() {
		t.Errorf("borg calls this host %s, we %s, %v", names[0].Name(), host, err)
	}
	kill(t, cmd)
	l = mustLock(t, dir) // what a crash of borg leaves is in nobody's way
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	noLocks(t, dir)
}

// TestAfterOurCrash: neither borg nor we are stopped by a lock of ours whose process
// was killed.
func TestAfterOurCrash(t *testing.T) {
	dir := newRepository(t)
	cmd := holdByUs(t, dir)
	if _, err := Exclusive(t.Context(), dir, options(0)); !errors.Is(err, fault.ErrLocked) {
		t.Errorf("under our own lock: %v", err)
	}
	kill(t, cmd)
	if out, ok := borgWorks(t, dir); !ok {
		t.Errorf("borg after our crash: %s", out)
	}
	kill(t, holdByUs(t, dir))
	if err := mustLock(t, dir).Release(); err != nil {
		t.Error(err)
	}
	noLocks(t, dir)
}

// TestBroken: a lock that "borg break-lock" took away is not held any more, and its
// end does not touch the next one.
func TestBroken(t *testing.T) {
	dir := newRepository(t)
	l := mustLock(t, dir)
	if !l.Held() {
		t.Error("not held")
	}
	if out, err := exec.Command("borg", "break-lock", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	next := mustLock(t, dir)
	if l.Held() || !next.Held() {
		t.Error("the broken lock is held")
	}
	if err := l.Release(); !errors.Is(err, fault.ErrLockLost) {
		t.Errorf("release of a broken lock: %v", err)
	}
	if out, ok := borgWorks(t, dir); ok {
		t.Errorf("the next lock is gone: %s", out)
	}
	if err := next.Release(); err != nil {
		t.Error(err)
	}
	noLocks(t, dir)
}

// TestOthers: who is respected, and who is known to be gone.
func TestOthers(t *testing.T) {
	t.Setenv("BORG_HOST_ID", "here@1")
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	gone := holder{host: "here@1", pid: dead.Process.Pid}
	me := holder{host: "here@1", pid: os.Getpid()}
	alive := holder{host: "here@1", pid: os.Getppid()}
	for name, c := range map[string]struct {
		file   string // in the lock directory
		roster string
		holds  bool
		reader bool
	}{
		"nobody":                      {},
		"gone":                        {file: gone.name()},
		"alive":                       {file: alive.name(), holds: true},
		"another host":                {file: holder{"there@1", gone.pid, 0}.name(), holds: true},
		"a thread":                    {file: holder{"here@1", gone.pid, 1}.name(), holds: true},
		"a name that makes no sense":  {file: "lock", holds: true},
		"a process with my number":    {file: me.name()},
		"a reader elsewhere":          {roster: `{"shared": [["there@1", 4, 0]], "exclusive": []}`, holds: true, reader: true},
		"a reader that is gone":       {roster: fmt.Sprintf(`{"shared": [["here@1", %d, 0]]}`, gone.pid)},
		"a writer elsewhere, crashed": {roster: `{"exclusive": [["there@1", 4, 0]]}`},
		"a roster cut short":          {roster: `{"shared": [["there@1", 4`},
		"an empty roster":             {roster: ` `},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				if err := errors.Join(os.Mkdir(dir+"/lock.exclusive", 0o700), os.WriteFile(dir+"/lock.exclusive/"+c.file, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if c.roster != "" {
				if err := os.WriteFile(dir+"/lock.roster", []byte(c.roster), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := Exclusive(t.Context(), dir, options(0))
			held, ok := errors.AsType[*fault.LockedError](err)
			if ok != c.holds || ok && held.Reader != c.reader || !ok && err != nil {
				t.Fatalf("got %v", err)
			}
			if ok {
				return
			}
			if err := l.Release(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(dir + "/lock.exclusive"); err == nil {
				t.Error("the lock is still there")
			}
		})
	}
}

// TestWaiting: two of one process exclude each other too, and who waits gets it.
func TestWaiting(t *testing.T) {
	dir := t.TempDir()
	l := mustLock(t, dir)
	if _, err := Exclusive(t.Context(), dir, options(2*poll)); !errors.Is(err, fault.ErrLocked) {
		t.Errorf("got %v", err)
	}
	got := make(chan error)
	go func() {
		second, err := Exclusive(t.Context(), dir, options(time.Minute))
		if err == nil {
			err = second.Release()
		}
		got <- err
	}()
	for { // until it has begun to wait
		if tmp, _ := filepath.Glob(dir + "/lock.exclusive.*.tmp"); len(tmp) > 0 {
			break
		}
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	noLocks(t, dir)
}

// FuzzRoster: whatever parses is written back the same, and holders' names too.
func FuzzRoster(f *testing.F) {
	for _, s := range []string{"", "{}", `{"shared": [["h@1", 2, 0]], "exclusive": [["x.y@3", 4, 5]]}`, `{"shared": [[1, 2]]}`, `{"shared": null}`, "[]", `{"shared":`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRoster(data)
		if err != nil {
			return
		}
		packed, err := r.pack()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseRoster(packed)
		if err != nil || len(again.shared) != len(r.shared) || len(again.exclusive) != len(r.exclusive) {
			t.Fatalf("%q became %q, %v", data, packed, err)
		}
		for i, h := range r.shared {
			if again.shared[i] != h {
				t.Errorf("%v became %v", h, again.shared[i])
			}
			if h.pid > 0 && h.thread >= 0 && h.pid < 1<<31 {
				if back, ok := parseName(h.name()); !ok || back != h {
					t.Errorf("%q is read as %v", h.name(), back)
				}
			}
		}
	})
}
