package dockerplugin

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The driver is killed at each step of each call. Docker tells that the call
// failed, or it was done; nothing is lost, and the same command does it then.
func TestPluginKilled(t *testing.T) {
	h := newHost(t, nil)
	h.startPlugin()
	crash := func(t *testing.T, step string, args ...string) {
		t.Helper()
		h.b.tell(t, "crash-"+step)
		failed := make(chan error, 1)
		go func() {
			_, err := h.Try(args...)
			failed <- err
		}()
		h.pluginCrashed()
		h.startPlugin()
		// The engine has repeated what was not answered, without its body.
		if err := <-failed; err != nil && !strings.Contains(err.Error(), "if the driver was just restarted, try again") {
			t.Errorf("docker says %v", err)
		}
	}
	for _, step := range []string{"create", "created", "answer-Create"} {
		t.Run(step, func(t *testing.T) {
			name := "v-" + step
			crash(t, step, "volume", "create", "-d", h.driver, name)
			h.create(name)
			h.run(name, "write", "/data/file", step)
		})
	}
	for _, step := range []string{"mount", "mounted", "answer-Mount", "unmount", "unmounted", "answer-Unmount"} {
		t.Run(step, func(t *testing.T) {
			name := "v-" + step
			h.create(name)
			h.run(name, "write", "/data/file", step)
			crash(t, step, "run", "--rm", "-v", name+":/data", h.Box(), "append", "/data/file", "+")
			want := step
			if strings.Contains(strings.ToLower(step), "unmount") {
				want += "+"
			}
			if got := h.run(name, "read", "/data/file"); got != want {
				t.Errorf("read %q, want %q", got, want)
			}
			// A mount that was done but not answered is one that the engine
			// never ends: it only goes with a boot or the volume.
			if left := step == "answer-Mount"; h.mounted(name) != left || (h.mounts(name) != "0") != left {
				t.Errorf("mounted: %v, %s mounts", h.mounted(name), h.mounts(name))
			}
		})
	}
	t.Run("running", func(t *testing.T) {
		h.start("runs", "v-create")
		h.endPlugin(syscall.SIGKILL)
		h.startPlugin()
		if !h.mounted("v-create") {
			t.Fatal("unmounted below a container")
		}
		h.run("v-create", "write", "/data/file", "meanwhile")
		if !h.mounted("v-create") {
			t.Error("unmounted when another container ended")
		}
		h.Docker("rm", "-f", "runs")
		if got := h.run("v-create", "read", "/data/file"); got != "meanwhile" {
			t.Errorf("read %q", got)
		}
	})
	for _, step := range []string{"unmount", "unmounted", "answer-Remove"} {
		t.Run("remove "+step, func(t *testing.T) {
			h.create("gone")
			before := len(h.trash())
			crash(t, step, "volume", "rm", "gone")
			if _, err := h.Try("volume", "inspect", "gone"); err == nil {
				h.Docker("volume", "rm", "gone")
			}
			if got := h.trash(); len(got) != before+1 {
				t.Errorf("trash: %v", got)
			}
		})
	}
	t.Run("every volume can go", func(t *testing.T) {
		for _, name := range strings.Fields(h.Docker("volume", "ls", "-q", "-f", "driver="+h.driver)) {
			h.Docker("volume", "rm", name)
		}
	})
}

// The engine is killed while it waits for the driver, and while containers run.
func TestEngineKilled(t *testing.T) {
	h := newHost(t, nil)
	h.startPlugin()
	h.create("db")
	h.run("db", "write", "/data/file", "kept")
	kill := func(t *testing.T, step string, args ...string) {
		t.Helper()
		h.b.release(t, "at-"+step)
		h.b.tell(t, "hold-"+step)
		ended := make(chan struct{})
		go func() {
			_, _ = h.Try(args...)
			close(ended)
		}()
		h.b.reached(t, step)
		h.Kill()
		h.b.release(t, "hold-"+step)
		<-ended
		h.Start()
	}
	t.Run("create", func(t *testing.T) {
		kill(t, "create", "volume", "create", "-d", h.driver, "-o", "size=1G", "new")
		h.create("new", "size=1G")
		h.run("new", "write", "/data/file", "x")
	})
	for _, step := range []string{"mount", "unmount"} {
		t.Run(step, func(t *testing.T) {
			kill(t, step, "run", "--rm", "-v", "db:/data", h.Box(), "read", "/data/file")
			if got := h.run("db", "read", "/data/file"); got != "kept" {
				t.Errorf("read %q", got)
			}
			if h.mounts("db") != "0" || h.mounted("db") {
				t.Errorf("still mounted: %s mounts", h.mounts("db"))
			}
		})
	}
	t.Run("running", func(t *testing.T) {
		h.start("stays", "db", "--restart", "always")
		h.start("goes", "db")
		h.Kill()
		h.Start()
		eventually(t, "the container is up again", func() bool {
			return h.Docker("inspect", "-f", "{{.State.Running}}", "stays") == "true"
		})
		if !h.mounted("db") {
			t.Error("unmounted below a container")
		}
		h.Docker("rm", "-f", "stays")
		h.Docker("rm", "-f", "goes")
		if got := h.run("db", "read", "/data/file"); got != "kept" {
			t.Errorf("read %q", got)
		}
	})
	t.Run("what the engine forgot is in nobody's way", func(t *testing.T) {
		h.start("forgotten", "db")
		// The engine knows no container that has it, but one has.
		at := h.Docker("volume", "inspect", "-f", "{{.Mountpoint}}", "db")
		if user, err := usedElsewhere(at); err != nil || !strings.HasSuffix(user, "has it at /data") {
			t.Errorf("used by %q, %v", user, err)
		}
		answer := post(t, h.p.Socket, "VolumeDriver.Remove", `{"Name":"db"}`)
		if !strings.Contains(answer, "volume db is mounted: process") {
			t.Errorf("removed below a container: %s", answer)
		}
		h.Docker("rm", "-f", "forgotten")
		if answer := post(t, h.p.Socket, "VolumeDriver.Mount", `{"Name":"db","ID":"never ended"}`); !strings.Contains(answer, `"Err":""`) {
			t.Fatal(answer)
		}
		h.Docker("volume", "rm", "db")
		if h.mounted("db") || len(h.trash()) == 0 {
			t.Errorf("it was not removed: %v", h.trash())
		}
		h.Docker("volume", "rm", "new")
	})
}

// The engine starts before the driver runs: systemd's socket brings it.
func TestSocketActivation(t *testing.T) {
	activate := tool(t, "systemd-socket-activate")
	h := newHost(t, nil)
	h.startPlugin()
	h.create("db")
	h.run("db", "write", "/data/file", "kept")
	h.start("always", "db", "--restart", "always")
	h.Stop()
	h.endPlugin(syscall.SIGTERM)
	if exists(h.p.Socket) {
		t.Fatal("an ended driver leaves its socket, at which the engine would wait")
	}
	cmd := exec.Command(activate, "--listen", h.p.Socket, "-E", h.env(), h.program())
	h.spawn(cmd)
	eventually(t, "the socket is there", func() bool { return exists(h.p.Socket) })
	h.Start()
	eventually(t, "the container is up", func() bool {
		return h.Docker("inspect", "-f", "{{.State.Running}}", "always") == "true"
	})
	if got := h.run("db", "read", "/data/file"); got != "kept" || h.mounts("db") != "1" {
		t.Errorf("read %q, %s mounts", got, h.mounts("db"))
	}
	h.Docker("rm", "-f", "always")
	h.endPlugin(syscall.SIGTERM)
	if !exists(h.p.Socket) {
		t.Error("the driver took systemd's socket away")
	}
}
