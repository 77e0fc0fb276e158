// Package dockertest gives tests a docker engine of their own: with its own
// data, its own socket and no network, so that it touches no other engine on
// the host. It is asked through the docker command, as a person would.
//
// An engine can be killed, as by a crash or the kernel, and started again on
// the data it had. At the end of the test its containers, processes and mounts
// are gone; a mount that is left after an orderly stop fails the test.
//
// The engine finds volume plugins in places that all engines share
// (/run/docker/plugins, /etc/docker/plugins): give drivers of tests random
// names ([Name]).
package dockertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how an engine differs from the usual.
type Options struct {
	Flags []string // more of dockerd's
}

// Engine is a docker engine. It is not safe for concurrent use, but for Docker,
// Try and Command.
type Engine struct {
	tb      testing.TB
	flags   []string
	dir     string
	process *os.Process
	ended   chan struct{} // closed when the process has ended
	worked  bool          // it has answered once
	crashed bool          // by Kill
}

// startTime is enough for an engine to open its API, also on a busy machine and
// with a plugin that does not answer.
const startTime = 2 * time.Minute

// New makes an engine and starts it. Where there can be none, the test is
// skipped with the reason; with CI=true it fails.
func New(tb testing.TB, o Options) *Engine {
	tb.Helper()
	if os.Geteuid() != 0 {
		skip(tb, "a docker engine needs root")
	}
	for _, tool := range []string{"dockerd", "docker"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(tb, err.Error())
		}
	}
	// The path of a socket is short, that of TempDir may not be.
	dir, err := os.MkdirTemp("", "s4-docker-")
	if err != nil {
		tb.Fatal(err)
	}
	oneAtATime(tb)
	e := &Engine{tb: tb, flags: o.Flags, dir: dir}
	tb.Cleanup(e.cleanup)
	for name, text := range map[string]string{"daemon.json": "{}", "config.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	e.Start()
	return e
}

// oneAtATime waits until no other test has an engine, in whichever process. All
// engines look for plugins in one directory, and one that has met another test's
// waits for it in each call once it is gone.
func oneAtATime(tb testing.TB) {
	tb.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "s4-dockertest.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { lock.Close() })
}

// Name is a name with that beginning that no other test has.
func Name(prefix string) string { return prefix + "-" + strings.ToLower(rand.Text()[:10]) }

// Dir is where everything of the engine is.
func (e *Engine) Dir() string { return e.dir }

// Env are the variables with which the docker command finds the engine.
func (e *Engine) Env() []string {
	return []string{"DOCKER_HOST=unix://" + e.socket(), "DOCKER_CONFIG=" + e.dir, "DOCKER_CLI_HINTS=false"}
}

func (e *Engine) socket() string { return filepath.Join(e.dir, "s") }

// Start starts the engine on the data it has, and waits until it answers.
func (e *Engine) Start() {
	e.tb.Helper()
	e.StartNoWait()
	e.WaitReady()
}

// StartNoWait only starts the engine; see [Engine.WaitReady].
func (e *Engine) StartNoWait() {
	e.tb.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		e.tb.Fatal(err)
	}
	defer log.Close()
	// It ends when it is told to.
	cmd := exec.CommandContext(context.Background(), "dockerd", append([]string{
		"--data-root", filepath.Join(e.dir, "data"),
		"--exec-root", filepath.Join(e.dir, "exec"),
		"--host", "unix://" + e.socket(),
		"--pidfile", filepath.Join(e.dir, "pid"),
		"--config-file", filepath.Join(e.dir, "daemon.json"),
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
		"--shutdown-timeout", "5",
	}, e.flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	// It must not outlive the test, and Ctrl-C is not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		// The signal comes with the death of the thread, so it has to stay.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		e.tb.Fatal(err)
	}
	e.process, e.ended = cmd.Process, ended
}

// WaitReady waits until the engine answers.
func (e *Engine) WaitReady() {
	e.tb.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", e.socket())
		},
	}}
	ready := func() bool {
		request, err := http.NewRequestWithContext(e.tb.Context(), http.MethodGet, "http://docker/_ping", nil)
		if err != nil {
			e.tb.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode == http.StatusOK
	}
	tries := 3
	for end := time.Now().Add(startTime); !ready(); time.Sleep(50 * time.Millisecond) {
		if !e.Running() {
			// It gives its containerd 15 s, which a busy machine may not.
			if tries--; tries == 0 || !strings.HasSuffix(strings.TrimSpace(e.Log()), "timeout waiting for containerd to start") {
				e.unavailable("the docker engine does not start here")
			}
			e.StartNoWait()
		}
		if time.Now().After(end) {
			e.unavailable("the docker engine did not answer")
		}
	}
	e.worked = true
}

// unavailable skips where there was no engine yet.
func (e *Engine) unavailable(reason string) {
	e.tb.Helper()
	lines := strings.Split(strings.TrimSpace(e.Log()), "\n")
	reason += ": " + strings.Join(lines[max(0, len(lines)-5):], "\n")
	if e.worked {
		e.tb.Fatal(reason)
	}
	skip(e.tb, reason)
}

// Kill ends the engine, and its containerd, as a crash does: containers go on.
func (e *Engine) Kill() {
	e.tb.Helper()
	e.crashed = true
	e.end(syscall.SIGKILL)
	// Where its containerd, which dies with it, is not reaped at once, the next
	// engine takes it for alive and waits for it in vain.
	if err := os.Remove(filepath.Join(e.dir, "exec", "containerd", "containerd.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.tb.Error(err)
	}
}

// Stop ends the engine in order, and with it its containers.
func (e *Engine) Stop() {
	e.tb.Helper()
	e.end(syscall.SIGTERM)
}

func (e *Engine) end(sig syscall.Signal) {
	e.tb.Helper()
	if e.process == nil {
		return
	}
	if err := e.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		e.tb.Error(err)
	}
	select {
	case <-e.ended:
	case <-time.After(time.Minute):
		e.tb.Error("the docker engine did not end when told to")
		_ = e.process.Kill()
		<-e.ended
	}
	e.process = nil
}

// Running tells whether the engine's process is there.
func (e *Engine) Running() bool {
	if e.process == nil {
		return false
	}
	select {
	case <-e.ended:
		return false
	default:
		return true
	}
}

// Log is what the engine has logged so far.
func (e *Engine) Log() string {
	data, err := os.ReadFile(filepath.Join(e.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Command is the docker command with these arguments, ready to run.
func (e *Engine) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), e.Env()...)
	return cmd
}

// Docker runs the docker command, which must succeed, and gives what it printed
// without the last line's end.
func (e *Engine) Docker(args ...string) string {
	e.tb.Helper()
	out, err := e.Try(args...)
	if err != nil {
		e.tb.Fatal(err)
	}
	return out
}

// Try runs the docker command, which may fail: the error has what it said.
func (e *Engine) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(e.tb.Context(), 5*time.Minute)
	defer cancel()
	cmd := e.Command(ctx, args...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

func skip(tb testing.TB, reason string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(reason)
	}
	tb.Skip(reason)
}
