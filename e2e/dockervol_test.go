package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/dockertest"
)

// dockerHost is an engine with s4's own volume driver, and a place for volumes
// on the same disk.
type dockerHost struct {
	*dockertest.Engine
	t      *testing.T
	driver string // its name
	state  string // its directory
	remote string
	env    []string
	plugin *exec.Cmd
	log    *os.File
}

func newDockerHost(t *testing.T, env ...string) *dockerHost {
	t.Helper()
	need(t, "mkfs.btrfs", "dockerd", "borg", "fusermount3")
	needFUSE(t)
	top := t.TempDir()
	h := &dockerHost{t: t, driver: dockertest.Name("s4"), state: filepath.Join(top, "state"), remote: filepath.Join(top, "remote")}
	for _, dir := range []string{h.remote, filepath.Join(top, "home")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.env = append(os.Environ(),
		"HOME="+filepath.Join(top, "home"), "XDG_CACHE_HOME="+filepath.Join(top, "cache"),
		"XDG_CONFIG_HOME="+filepath.Join(top, "config"), "XDG_STATE_HOME="+filepath.Join(top, "xdgstate"),
		"BORG_BASE_DIR="+filepath.Join(top, "borg"), "S4_LOG=info")
	h.env = append(h.env, env...)
	t.Cleanup(func() { // after the engine has gone
		h.endPlugin(syscall.SIGTERM)
		_ = os.Remove(h.socket())
		h.clean()
		if t.Failed() {
			text, _ := os.ReadFile(h.log.Name())
			t.Logf("the driver's log:\n%s", text)
		}
		h.log.Close()
	})
	var err error
	if h.log, err = os.Create(filepath.Join(top, "log")); err != nil {
		t.Fatal(err)
	}
	h.Engine = dockertest.New(t, dockertest.Options{})
	h.env = append(h.env, append(h.Env(), "S4_DOCKER_DRIVER="+h.driver)...)
	h.Box()
	h.startPlugin()
	return h
}

func (h *dockerHost) socket() string { return "/run/docker/plugins/" + h.driver + ".sock" }

// startPlugin returns when the driver listens.
func (h *dockerHost) startPlugin() {
	h.t.Helper()
	h.plugin = exec.Command(filepath.Join(bin, "s4"), "docker", "plugin", "serve", "--socket", h.socket(), "--state", h.state)
	h.plugin.Env, h.plugin.Stderr = h.env, h.log
	if err := h.plugin.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("the driver listens", func() bool {
		c, err := net.Dial("unix", h.socket())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (h *dockerHost) endPlugin(sig syscall.Signal) {
	if h.plugin == nil {
		return
	}
	_ = h.plugin.Process.Signal(sig)
	_ = h.plugin.Wait()
	h.plugin = nil
}

// left are the mounts and loop devices of the driver that there are now.
func (h *dockerHost) left() (mounts, devices []string) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], h.state+"/") {
			mounts = append([]string{f[4]}, mounts...)
		}
	}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(text), h.state+"/") {
			devices = append(devices, f)
		}
	}
	return mounts, devices
}

// clean fails the test for what is left, and takes it away.
func (h *dockerHost) clean() {
	mounts, devices := h.left()
	if len(mounts)+len(devices) > 0 && !h.t.Failed() {
		h.t.Errorf("left over: mounts %v, devices %v", mounts, devices)
	}
	for _, at := range mounts {
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
}

func (h *dockerHost) eventually(what string, holds func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// create makes a docker volume with options such as "size=1G".
func (h *dockerHost) tryCreate(name string, options ...string) error {
	args := []string{"volume", "create", "-d", h.driver}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	_, err := h.Try(append(args, name)...)
	return err
}

func (h *dockerHost) create(name string, options ...string) {
	h.t.Helper()
	if err := h.tryCreate(name, options...); err != nil {
		h.t.Fatal(err)
	}
}

// run runs the box with the volume at /data.
func (h *dockerHost) run(name string, args ...string) string {
	h.t.Helper()
	return h.Docker(append([]string{"run", "--rm", "-v", name + ":/data", h.Box()}, args...)...)
}

func (h *dockerHost) start(container, name string, args ...string) {
	h.t.Helper()
	h.Docker(append([]string{"run", "-d", "--name", container, "-v", name + ":/data", h.Box()}, args...)...)
}

// within is a path as a running container sees it.
func (h *dockerHost) within(container, path string) string {
	h.t.Helper()
	return filepath.Join("/proc", h.Docker("inspect", "-f", "{{.State.Pid}}", container), "root", path)
}

// status is one of the volume's Status fields.
func (h *dockerHost) status(name, field string) string {
	h.t.Helper()
	got := h.Docker("volume", "inspect", "-f", "{{.Status."+field+"}}", name)
	return strings.TrimPrefix(got, "<no value>")
}

// s4 runs s4 with the host's environment.
func (h *dockerHost) s4(args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "s4"), args...)
	cmd.Env = h.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// pushed waits until the remote's newest snapshot has that text in the file.
func (h *dockerHost) pushed(name, file, text string) {
	h.t.Helper()
	repo := filepath.Join(h.remote, name)
	h.eventually("the remote has "+file, func() bool {
		got, err := h.s4("--quiet", "cat", "--repo", repo, "latest:"+file)
		return err == nil && got == text
	})
}

// The story: a container's data is at the remote a moment after it was written,
// and comes back from there when the host has lost everything.
func TestDockerVolumeLostAndFound(t *testing.T) {
	config, err := startSSHD(t).clientConfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := newDockerHost(t, "BORG_RSH=ssh -F "+config)
	seed := filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(seed, []byte("from the image"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.Import("seeded", map[string]string{"/box": filepath.Join(h.Dir(), "box"), "/data/seed": seed}, `ENTRYPOINT ["/box"]`)
	h.create("db", "size=1G", "remote="+h.remote)
	if got := h.run("db", "list", "/data"); got != "" {
		t.Errorf("a new volume has %q, at which databases would balk", got)
	}
	h.Docker("run", "-d", "--name", "one", "-v", "db:/data", "seeded", "wait")
	h.Docker("run", "--rm", "-v", "db:/data", h.Box(), "write", "/data/file", "first")
	h.pushed("db", "file", "first")
	h.pushed("db", "seed", "from the image") // docker fills only what is empty
	for field, want := range map[string]string{"remote": h.remote, "size": "1.0 GiB"} {
		if got := h.status("db", field); got != want {
			t.Errorf("inspect: %s is %q", field, got)
		}
	}
	if h.status("db", "last_push") == "" || h.status("db", "lag") == "" || h.status("db", "snapshots") == "0" {
		t.Errorf("inspect: %s", h.Docker("volume", "inspect", "db"))
	}
	h.Docker("rm", "-f", "one")
	// What is written right before the end is pushed at the end.
	h.run("db", "write", "/data/file", "second")
	h.pushed("db", "file", "second")
	if got := h.run("db", "list", "/data/.s4"); got != "" {
		t.Errorf("a container sees %q in .s4", got)
	}
	if mounts, devices := h.left(); len(mounts)+len(devices) > 0 {
		t.Errorf("left of a volume nobody uses: %v, %v", mounts, devices)
	}
	if h.status("db", "last_push") == "" {
		t.Error("the last push is forgotten with the unmount")
	}

	h.endPlugin(syscall.SIGKILL)
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	h.startPlugin()
	_, _ = h.Try("volume", "rm", "-f", "db") // what the engine remembers
	h.create("db", "remote="+h.remote)
	if got := h.run("db", "read", "/data/file") + h.run("db", "read", "/data/seed"); got != "secondfrom the image" {
		t.Errorf("came back: %q", got)
	}
	h.run("db", "write", "/data/file", "third")
	h.pushed("db", "file", "third")

	t.Run("an older moment", func(t *testing.T) {
		h.Docker("volume", "rm", "db")
		times := h.times("db", "file", "first")
		h.create("db", "remote="+h.remote, "from="+times)
		if got := h.run("db", "read", "/data/file"); got != "first" {
			t.Errorf("read %q", got)
		}
		// It goes on from there, on top of what came later.
		h.run("db", "write", "/data/file", "fourth")
		h.pushed("db", "file", "fourth")
		h.Docker("volume", "rm", "db")
	})
	t.Run("over ssh", func(t *testing.T) {
		h.create("far", "remote=mys4remote:"+h.remote)
		h.run("far", "write", "/data/file", "over there")
		h.pushed("far", "file", "over there")
		h.Docker("volume", "rm", "far")
		h.create("far", "remote=mys4remote:"+h.remote)
		if got := h.run("far", "read", "/data/file"); got != "over there" {
			t.Errorf("came back: %q", got)
		}
		h.Docker("volume", "rm", "far")
		if err := h.tryCreate("far", "remote=stranger:"+h.remote); err == nil || !strings.Contains(err.Error(), "host key") {
			t.Errorf("a stranger: %v", err)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for says, options := range map[string][]string{
			"there is no new at":   {"remote=" + h.remote, "from=2h"},
			"ssh":                  {"remote=ssh://nobody@127.0.0.1:1/volumes"},
			"109 MiB are needed":   {"size=1M"},
			"unknown option \"a\"": {"a=b"},
		} {
			if err := h.tryCreate("new", options...); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v: %v", options, err)
			}
		}
		if left, _ := os.ReadDir(filepath.Join(h.state, "volumes")); len(left) != 0 {
			t.Errorf("left of what was refused: %v", left)
		}
	})
}

// times finds a snapshot in which the file had that text.
func (h *dockerHost) times(name, file, text string) string {
	h.t.Helper()
	repo := filepath.Join(h.remote, name)
	out, err := h.s4("--quiet", "log", "--repo", repo)
	if err != nil {
		h.t.Fatal(out)
	}
	for _, word := range strings.Fields(out) {
		if got, err := h.s4("--quiet", "cat", "--repo", repo, word+":"+file); err == nil && got == text {
			return word
		}
	}
	h.t.Fatalf("no snapshot has %q in %s: %s", text, file, out)
	return ""
}

// A driver that is killed while a volume comes from its remote carries on. One
// whose remote is away lets containers run, and pushes when it is back.
func TestDockerVolumeInterrupted(t *testing.T) {
	h := newDockerHost(t)
	data := make([]byte, 24<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	h.create("db", "remote="+h.remote)
	h.start("writes", "db", "wait")
	for n := range 6 {
		if err := os.WriteFile(filepath.Join(h.mountpoint("db"), fmt.Sprint(n)), data[n<<22:(n+1)<<22], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.Docker("rm", "-f", "writes")
	h.pushed("db", "5", string(data[5<<22:]))
	h.Docker("volume", "rm", "db")
	for _, after := range []time.Duration{0, 30 * time.Millisecond, 120 * time.Millisecond, 300 * time.Millisecond} {
		h.create("db", "remote="+h.remote)
		time.Sleep(after) // a moment within a fill cannot be waited for
		h.endPlugin(syscall.SIGKILL)
		h.startPlugin()
		h.start("reads", "db", "wait")
		for n := range 6 {
			got, err := os.ReadFile(filepath.Join(h.mountpoint("db"), fmt.Sprint(n)))
			if err != nil || !bytes.Equal(got, data[n<<22:(n+1)<<22]) {
				t.Errorf("killed after %s: file %d has %d bytes, %v", after, n, len(got), err)
			}
		}
		h.Docker("rm", "-f", "reads")
		h.Docker("volume", "rm", "db")
	}

	t.Run("remote away", func(t *testing.T) {
		h.create("db", "remote="+h.remote)
		h.start("one", "db", "wait")
		away := h.remote + "-away"
		if err := os.Rename(h.remote, away); err != nil {
			t.Fatal(err)
		}
		h.run("db", "write", "/data/file", "while it was away")
		h.eventually("docker tells", func() bool { return strings.Contains(h.status("db", "replication"), "failing since") })
		began := time.Now()
		h.Docker("rm", "-f", "one")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("a container took %s to end", took)
		}
		if err := os.Rename(away, h.remote); err != nil {
			t.Fatal(err)
		}
		h.start("two", "db", "wait")
		h.pushed("db", "file", "while it was away")
		h.Docker("rm", "-f", "two")
		h.Docker("volume", "rm", "db")
	})
}

// The driver is killed while containers run and replication goes on; the next
// one carries on with both.
func TestDockerVolumeDriverKilled(t *testing.T) {
	h := newDockerHost(t)
	h.create("db", "size=300M", "remote="+h.remote)
	h.create("past", "history=on", "remote="+h.remote)
	h.start("one", "db", "serve", "/data/count")
	h.start("two", "db", "wait")
	h.start("looks", "past", "wait")
	h.run("past", "write", "/data/file", "old")
	h.pushed("past", "file", "old")
	h.eventually("it is replicated", func() bool { return h.status("db", "last_push") != "" })

	h.endPlugin(syscall.SIGKILL)
	at := h.mountpoint("past")
	if err := os.WriteFile(filepath.Join(at, "file"), []byte("new"), 0o644); err != nil {
		t.Error(err) // a mount with history goes on without the driver
	}
	h.startPlugin()
	h.pushed("past", "file", "new")
	before := h.status("db", "last_push")
	h.eventually("replication goes on", func() bool { return h.status("db", "last_push") > before })

	dirs := strings.Fields(h.run("past", "list", "/data/.s4/history"))
	read := map[string]bool{}
	for _, dir := range dirs {
		if got, err := h.Try("run", "--rm", "-v", "past:/data", h.Box(), "read", "/data/.s4/history/"+dir+"/file"); err == nil {
			read[got] = true
		}
	}
	if !read["old"] || !read["new"] {
		t.Errorf("a container sees %v in the past %v", read, dirs)
	}

	t.Run("a full volume grows", func(t *testing.T) {
		f, err := os.Create(filepath.Join(h.mountpoint("db"), "large"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Fallocate(int(f.Fd()), 0, 0, 100<<20); err != nil {
			t.Fatal(err)
		}
		h.eventually("it has grown", func() bool { return h.status("db", "size") != "300 MiB" })
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	})

	h.Docker("rm", "-f", "one")
	if mounts, _ := h.left(); len(mounts) == 0 {
		t.Error("unmounted below a container")
	}
	last := h.run("db", "read", "/data/count")
	for _, name := range []string{"two", "looks"} {
		h.Docker("rm", "-f", name)
	}
	h.pushed("db", "count", last)
	if mounts, devices := h.left(); len(mounts)+len(devices) > 0 {
		t.Errorf("left over: %v, %v", mounts, devices)
	}
	for _, name := range []string{"db", "past"} {
		h.Docker("volume", "rm", name)
	}
}

// mountpoint is where the host has a volume that is mounted.
func (h *dockerHost) mountpoint(name string) string {
	h.t.Helper()
	dir := "history"
	if _, err := os.Stat(filepath.Join(h.state, "volumes", name, dir)); err != nil {
		dir = "data"
	}
	return filepath.Join(h.state, "volumes", name, dir)
}
