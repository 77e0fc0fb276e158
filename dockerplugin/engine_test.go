package dockerplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/dockertest"
)

// process says what a driver does that runs in a process of its own, which can
// be killed. That process is this test's program again.
type process struct {
	Socket, Dir, Control string
	FillWait             time.Duration
	Within               time.Duration // if not 0, how long calls have
}

const processEnv = "S4_TEST_DOCKER_PLUGIN"

func TestMain(m *testing.M) {
	if text := os.Getenv(processEnv); text != "" {
		if err := runProcess(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runProcess(text string) error {
	var p process
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	b := &dirs{control: p.Control}
	d, err := Open(Config{Dir: p.Dir, FillWait: p.FillWait, Log: log}, b)
	if err != nil {
		return err
	}
	defer d.Close()
	l, err := Listen(ctx, p.Socket)
	if err != nil {
		return err
	}
	s := NewServer(d, log)
	for name, c := range s.calls {
		if p.Within != 0 {
			c.within = p.Within
		}
		do := c.do
		// A step of its own: done, but not answered yet.
		c.do = func(ctx context.Context, r request) (response, error) {
			answer, err := do(ctx, r)
			_ = b.step(ctx, "answer-"+strings.TrimPrefix(name, "VolumeDriver."))
			return answer, err
		}
		s.calls[name] = c
	}
	return s.Serve(ctx, l)
}

// host is an engine with a driver.
type host struct {
	*dockertest.Engine
	t      *testing.T
	b      *dirs
	p      process
	driver string // its name
	plugin *os.Process
	ended  chan error // of the plugin
	log    *os.File
}

func newHost(t *testing.T, change func(*process)) *host {
	t.Helper()
	name := dockertest.Name("s4")
	h := &host{t: t, driver: name, b: &dirs{control: t.TempDir()}, p: process{
		Socket: filepath.Join(filepath.Dir(DefaultSocket), name+".sock"), Dir: t.TempDir(), FillWait: time.Minute}}
	h.p.Control = h.b.control
	if change != nil {
		change(&h.p)
	}
	t.Cleanup(func() { // after the engine has gone
		h.endPlugin(syscall.SIGTERM)
		os.Remove(h.p.Socket)
		for {
			at, err := mountedBelow(h.p.Dir)
			if err != nil {
				t.Error(err)
			}
			if at == "" {
				break
			}
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Error(err)
				break
			}
		}
		if t.Failed() {
			t.Logf("the driver's log:\n%s", h.logged())
		}
	})
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	h.log = log
	h.Engine = dockertest.New(t, dockertest.Options{})
	h.Box()
	return h
}

// logged is what the driver has logged.
func (h *host) logged() string {
	data, err := os.ReadFile(h.log.Name())
	if err != nil {
		h.t.Error(err)
	}
	return string(data)
}

func (h *host) env() string {
	text, err := json.Marshal(h.p)
	if err != nil {
		h.t.Fatal(err)
	}
	return processEnv + "=" + string(text)
}

func (h *host) program() string {
	h.t.Helper()
	self, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	return self
}

// post calls the driver as the engine does.
func post(t *testing.T, socket, name, body string) string {
	t.Helper()
	r, err := clientOf(socket).Post("http://plugin/"+name, "", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// startPlugin returns when the driver answers.
func (h *host) startPlugin() {
	h.t.Helper()
	cmd := exec.Command(h.program())
	cmd.Env = append(os.Environ(), h.env())
	h.spawn(cmd)
	eventually(h.t, "the driver answers", func() bool {
		r, err := clientOf(h.p.Socket).Post("http://plugin/Plugin.Activate", "", nil)
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// spawn starts a driver.
func (h *host) spawn(cmd *exec.Cmd) {
	h.t.Helper()
	cmd.Stderr = h.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // whose end would be that of the process
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		h.t.Fatal(err)
	}
	h.plugin, h.ended = cmd.Process, ended
}

func (h *host) endPlugin(sig syscall.Signal) {
	h.t.Helper()
	if h.plugin == nil {
		return
	}
	_ = h.plugin.Signal(sig)
	<-h.ended
	h.plugin = nil
}

// pluginCrashed waits until a driver that was told to crash has done so.
func (h *host) pluginCrashed() {
	h.t.Helper()
	select {
	case err := <-h.ended:
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			h.t.Fatalf("the driver did not crash but end with %v", err)
		}
	case <-time.After(time.Minute):
		h.t.Fatal("the driver did not come to where it was to crash")
	}
	h.plugin = nil
}

func (h *host) create(name string, options ...string) {
	h.t.Helper()
	if err := h.tryCreate(name, options...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) tryCreate(name string, options ...string) error {
	args := []string{"volume", "create", "-d", h.driver}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	_, err := h.Try(append(args, "--", name)...)
	return err
}

// run runs the box with the volume at /data.
func (h *host) run(volume string, box ...string) string {
	h.t.Helper()
	out, err := h.tryRun(volume, box...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *host) tryRun(volume string, box ...string) (string, error) {
	return h.Try(append([]string{"run", "--rm", "-v", volume + ":/data", h.Box()}, box...)...)
}

// start starts a container that waits, with the volume at /data.
func (h *host) start(name, volume string, flags ...string) {
	h.t.Helper()
	args := append([]string{"run", "-d", "--name", name, "-v", volume + ":/data"}, flags...)
	h.Docker(append(args, h.Box(), "wait")...)
}

// mounts is how many mount IDs the driver knows for a volume.
func (h *host) mounts(volume string) string {
	h.t.Helper()
	return h.Docker("volume", "inspect", "-f", "{{.Status.mounts}}", volume)
}

// mounted tells what the kernel says.
func (h *host) mounted(volume string) bool {
	h.t.Helper()
	at, err := mountedBelow(filepath.Join(h.p.Dir, "volumes", volume))
	if err != nil {
		h.t.Fatal(err)
	}
	return at != ""
}

func (h *host) trash() (names []string) {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.p.Dir, "trash"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A volume's life as docker's users see it.
func TestDockerVolume(t *testing.T) {
	h := newHost(t, nil)
	h.startPlugin()
	t.Run("use", func(t *testing.T) {
		h.create("db", "size=1G", "history=on")
		h.run("db", "write", "/data/file", "hello")
		if got := h.run("db", "read", "/data/file"); got != "hello" {
			t.Errorf("read %q", got)
		}
		got := h.Docker("volume", "inspect", "-f", "{{.Driver}} {{.Options.size}} {{.Status.state}} {{.Status.snapshots}} {{.Status.mounts}} {{slice .CreatedAt 0 2}}", "db")
		if got != h.driver+" 1G ready 3 0 20" {
			t.Errorf("inspect: %s", got)
		}
		if got := h.Docker("volume", "ls", "-q", "-f", "driver="+h.driver); got != "db" {
			t.Errorf("ls: %s", got)
		}
		if h.mounted("db") {
			t.Error("still mounted without a container")
		}
	})
	t.Run("two containers", func(t *testing.T) {
		h.start("one", "db")
		h.start("two", "db")
		if h.mounts("db") != "2" {
			t.Errorf("%s mounts", h.mounts("db"))
		}
		if at := h.Docker("volume", "inspect", "-f", "{{.Mountpoint}}", "db"); !exists(filepath.Join(at, "file")) {
			t.Errorf("the volume is not at %q", at)
		}
		if _, err := h.Try("volume", "rm", "db"); err == nil {
			t.Error("removed while in use")
		}
		h.Docker("rm", "-f", "one")
		if h.mounts("db") != "1" || !h.mounted("db") {
			t.Errorf("after one of two has gone: %s mounts", h.mounts("db"))
		}
		h.Docker("cp", filepath.Join(h.Dir(), "daemon.json"), "two:/data/copied")
		h.Docker("rm", "-f", "two")
		if h.mounts("db") != "0" || h.mounted("db") {
			t.Errorf("after both have gone: %s mounts", h.mounts("db"))
		}
		if got := h.run("db", "read", "/data/copied"); got != "{}" {
			t.Errorf("docker cp: %q", got)
		}
	})
	t.Run("remove", func(t *testing.T) {
		h.Docker("volume", "rm", "db")
		if got := h.trash(); len(got) != 1 || !strings.HasSuffix(got[0], "Z.db") {
			t.Errorf("trash: %v", got)
		}
		if _, err := h.Try("volume", "inspect", "db"); err == nil {
			t.Error("it is still known")
		}
		h.create("db")
		if got := h.run("db", "list", "/data"); got != "" {
			t.Errorf("a new one under the old name has %q", got)
		}
	})
	t.Run("prune", func(t *testing.T) {
		h.start("user", "db")
		unused := h.Docker("volume", "create", "-d", h.driver)
		h.Docker("volume", "prune", "-f")
		if !h.mounted("db") {
			t.Error("one in use was pruned")
		}
		// Some engines prune volumes of the driver local alone.
		if _, err := h.Try("volume", "inspect", unused); (err == nil) != (len(h.trash()) == 1) {
			t.Errorf("inspect: %v, trash: %v", err, h.trash())
		}
		h.Docker("rm", "-f", "user")
	})
	if log := h.logged(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the driver logs errors:\n%s", log)
	}
}

// What goes wrong is told in docker's own output, in one line.
func TestDockerErrors(t *testing.T) {
	h := newHost(t, func(p *process) { p.Within, p.FillWait = 3*time.Second, 300*time.Millisecond })
	h.startPlugin()
	told := func(t *testing.T, err error, says ...string) {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("docker says %q, without %q", err, s)
			}
		}
	}
	t.Run("names", func(t *testing.T) {
		for name, says := range map[string]string{
			"../x":                   `"../x" cannot be a volume's name`,
			"x/y":                    `"x/y" cannot be`,
			".":                      `"." cannot be`,
			"-x":                     `"-x" cannot be`,
			"a b":                    `"a b" cannot be`,
			strings.Repeat("x", 300): "has 300 characters",
		} {
			told(t, h.tryCreate(name), says)
		}
	})
	t.Run("options", func(t *testing.T) {
		told(t, h.tryCreate("a", "sise=5G"), `unknown option "sise"`, "autogrow, compress, from")
		told(t, h.tryCreate("a", "size=lots"), `"lots" is no size`)
		told(t, h.tryCreate("a", "remote=/none/there"), "Error response from daemon: create a: remote cannot be reached")
	})
	if left, _ := os.ReadDir(filepath.Join(h.p.Dir, "volumes")); len(left) != 0 {
		t.Errorf("left of what was refused: %v", left)
	}
	t.Run("slow create", func(t *testing.T) {
		h.b.tell(t, "hold-create")
		told(t, h.tryCreate("slow"), "not done within 3s")
		h.b.release(t, "hold-create")
		h.create("slow")
	})
	t.Run("mount", func(t *testing.T) {
		h.b.tell(t, "fail-mount=the image is damaged")
		_, err := h.tryRun("slow", "list", "/data")
		told(t, err, "the image is damaged")
		h.b.release(t, "fail-mount")
		h.run("slow", "list", "/data")
	})
	t.Run("fill", func(t *testing.T) {
		h.b.tell(t, "hold-fill")
		h.create("filled", "remote="+remoteWith(t, "filled"))
		_, err := h.tryRun("filled", "list", "/data")
		told(t, err, "volume filled is being filled from its remote (50%, 512 B of 1.0 KiB)")
		if got := h.Docker("volume", "inspect", "-f", "{{.Status.state}}", "filled"); !strings.HasPrefix(got, "filling (50%") {
			t.Errorf("state: %s", got)
		}
		h.b.tell(t, "fail-fill=ssh: nas: connection refused")
		h.b.release(t, "hold-fill")
		eventually(t, "docker tells why", func() bool {
			_, err = h.tryRun("filled", "list", "/data")
			return err == nil || strings.Contains(err.Error(), "connection refused")
		})
		told(t, err, "ssh: nas: connection refused")
		h.b.release(t, "fail-fill")
		var got string
		eventually(t, "it is filled", func() bool {
			got, err = h.tryRun("filled", "list", "/data")
			return err == nil
		})
		if got != "one\ntwo" {
			t.Errorf("filled with %q", got)
		}
	})
	t.Run("unmount", func(t *testing.T) {
		h.start("ends", "slow")
		h.b.tell(t, "fail-unmount=it is busy")
		h.Docker("rm", "-f", "ends")
		_, err := h.Try("volume", "rm", "slow")
		told(t, err, "it is busy")
		h.b.release(t, "fail-unmount")
		h.Docker("volume", "rm", "slow")
	})
}
