package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// envDaemon makes the test binary mount the directory in it, live over itself,
// and serve until killed.
const envDaemon = "FUSEFS_TEST_DAEMON"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envDaemon); dir != "" {
		os.Exit(daemon(dir))
	}
	code := m.Run()
	if left := ourMounts(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "left mounted:", left)
		code = 1
	}
	os.Exit(code)
}

// daemon mounts and says so on stdout.
func daemon(dir string) int {
	live, err := os.Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s, err := Mount(dir, Options{Live: live, History: newFakeHistory(), FSName: "fusefs-test"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.GC() // nobody here holds live; it must stay open all the same
	fmt.Println("mounted")
	s.Wait()
	return 0
}

// ourMounts lists what this test mounted and has not unmounted.
func ourMounts() []string {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	var left []string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, "fuse.s4 fusefs-test ") {
			left = append(left, strings.Fields(line)[4])
		}
	}
	return left
}

// needFUSE skips where nothing can be mounted; not where tests must not be
// skipped.
func needFUSE(t *testing.T) {
	t.Helper()
	reason := ""
	if os.Geteuid() != 0 {
		reason = "not root"
	} else if _, err := os.Stat("/dev/fuse"); err != nil {
		reason = err.Error()
	}
	if reason == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("cannot mount: " + reason)
	}
	t.Skip("cannot mount: " + reason)
}

// tool gives the path of a program or skips.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// mount mounts for the time of the test.
func mount(t *testing.T, mountpoint string, o Options) *Server {
	t.Helper()
	needFUSE(t)
	o.FSName = "fusefs-test"
	s, err := Mount(mountpoint, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
			_ = Unmount(mountpoint, true)
		}
	})
	return s
}

// newVolume makes a directory that looks like a volume.
func newVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".s4/config"), "[volume]\nname = test\n")
	write(t, filepath.Join(dir, ".s4/local/secret"), "private")
	return dir
}

// mountLive mounts a volume at a place of its own and gives the mount point.
func mountLive(t *testing.T, volume string, h History, change func(*Options)) string {
	t.Helper()
	live, err := os.Open(volume)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { live.Close() })
	o := Options{Live: live, History: h}
	if change != nil {
		change(&o)
	}
	mnt := publicDir(t)
	mount(t, mnt, o)
	return mnt
}

// publicDir is a temporary directory that every user can reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// run runs a program and gives what it printed.
func run(t *testing.T, arg ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out, err := exec.CommandContext(ctx, arg[0], arg[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", arg, err, out)
	}
	return string(out)
}

// eventually waits for a condition.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// logBuffer is a log that a test can read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// openFDs is the number of this process's descriptors.
func openFDs(t *testing.T) int {
	t.Helper()
	return len(names(t, "/proc/self/fd"))
}
