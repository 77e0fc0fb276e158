package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// moment is one within what the driver does for a docker command: at tells when
// it has come.
type moment struct {
	name  string
	often bool // tested without S4_LONG, too
	at    func(h *dockerHost, volume string) bool
}

// path is one in the volume's own directory.
func (h *dockerHost) path(volume string, elem ...string) string {
	return filepath.Join(append([]string{h.state, "volumes", volume}, elem...)...)
}

// there is the moment when something is in the volume's directory.
func there(name string) func(*dockerHost, string) bool {
	return func(h *dockerHost, volume string) bool { return exists(h.path(volume, name)) }
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mountedAt is the moment when something is mounted in a directory of the
// volume's.
func mountedAt(name string) func(*dockerHost, string) bool {
	return func(h *dockerHost, volume string) bool {
		mounts, _ := h.left()
		return slices.Contains(mounts, h.path(volume, name))
	}
}

func not(at func(*dockerHost, string) bool) func(*dockerHost, string) bool {
	return func(h *dockerHost, volume string) bool { return !at(h, volume) }
}

// recorded is the moment when the driver knows of so many uses of a volume.
func recorded(uses int) func(*dockerHost, string) bool {
	return func(h *dockerHost, volume string) bool {
		data, err := os.ReadFile(h.path(volume, "volume.json"))
		var record struct{ Mounts []string }
		return err == nil && json.Unmarshal(data, &record) == nil && len(record.Mounts) == uses
	}
}

// pushing is the moment when the remote is being written to.
func pushing(h *dockerHost, volume string) bool {
	locks, _ := filepath.Glob(filepath.Join(h.remote, volume, "lock*"))
	return len(locks) > 0
}

var (
	creating = []moment{
		{"directory", false, there("")},
		{"record", false, there("volume.json")},
		{"image", true, there("image.img")},
		{"top", false, mountedAt(".mount-image.img")},
	}
	using = []moment{
		{"live", false, mountedAt("live")},
		{"data", true, mountedAt("data")},
		{"recorded", false, recorded(1)},
		{"pushing", false, pushing},
	}
	ending = []moment{
		{"forgotten", true, recorded(0)},
		{"uncovered", false, not(mountedAt("data/.s4"))},
		{"half unmounted", false, not(mountedAt("data"))},
		{"unmounted", false, not(mountedAt("live"))},
	}
	removing = []moment{{"moved", false, not(there(""))}}
	undoing  = []moment{
		{"begun", false, there("restoring")},
		{"top", true, mountedAt(".mount-image.img")},
		{"done", false, not(there("restoring"))},
	}
)

// killed does what kill does at a moment within what do does, and returns when
// both are done. Where do ends before that, it is killed then.
func (h *dockerHost) killed(m moment, volume string, kill func(), do func() error) error {
	h.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	var err error
	over := false
	for end := time.Now().Add(time.Minute); !over && !m.at(h, volume); {
		select {
		case err = <-ended:
			over = true
		default:
			if time.Now().After(end) {
				h.t.Fatalf("it did not come to %s", m.name)
			}
		}
	}
	kill()
	if over {
		h.t.Logf("%s: it had ended before", m.name)
		return err
	}
	return <-ended
}

// eachMoment runs a test for each moment that is asked for.
func eachMoment(t *testing.T, what string, moments []moment, test func(t *testing.T, m moment, volume string)) {
	for _, m := range moments {
		if !m.often && os.Getenv("S4_LONG") == "" {
			continue
		}
		t.Run(what+" "+m.name, func(t *testing.T) {
			test(t, m, strings.ReplaceAll(what+"-"+m.name, " ", "-"))
		})
	}
}

// The driver is killed within everything that it does, with volumes on images
// and a remote. What a container was told to be on the disk is there, nothing is
// left over, and the same command does what it should have done.
func TestDockerVolumeCrash(t *testing.T) {
	h := newDockerHost(t)
	crash := func() {
		h.endPlugin(syscall.SIGKILL)
		h.startPlugin()
	}
	options := []string{"size=300M", "remote=" + h.remote}
	told := func(t *testing.T, err error) {
		t.Helper()
		// The engine repeats what was not answered, without its body.
		if err != nil && !strings.Contains(err.Error(), "if the driver was just restarted, try again") && !strings.Contains(err.Error(), "EOF") {
			t.Errorf("docker says %v", err)
		}
	}
	eachMoment(t, "create", creating, func(t *testing.T, m moment, v string) {
		told(t, h.killed(m, v, crash, func() error { return h.tryCreate(v, options...) }))
		h.create(v, options...)
		h.run(v, "write", "/data/file", "x")
		h.pushed(v, "file", "x")
	})
	write := func(v, text string) func() error {
		return func() error {
			_, err := h.Try("run", "--rm", "-v", v+":/data", h.Box(), "write", "/data/file", text)
			return err
		}
	}
	eachMoment(t, "use", append(using, ending...), func(t *testing.T, m moment, v string) {
		h.create(v, options...)
		h.run(v, "write", "/data/file", "before")
		if slices.ContainsFunc(ending, func(e moment) bool { return e.name == m.name }) {
			// It is not there already at the beginning.
			at, began := m.at, false
			m.at = func(h *dockerHost, v string) bool {
				began = began || mountedAt("data")(h, v) && recorded(1)(h, v)
				return began && at(h, v)
			}
		}
		want := "after"
		if err := h.killed(m, v, crash, write(v, want)); err != nil {
			told(t, err)
			if got := h.run(v, "read", "/data/file"); got != "before" && got != want {
				t.Errorf("read %q", got)
			}
			h.run(v, "write", "/data/file", want)
		}
		h.start("next-"+v, v, "wait")
		h.pushed(v, "file", want)
		h.Docker("rm", "-f", "next-"+v)
		if got := h.run(v, "read", "/data/file"); got != want {
			t.Errorf("read %q", got)
		}
		h.sound(t, v)
	})
	eachMoment(t, "restore", undoing, func(t *testing.T, m moment, v string) {
		h.create(v, "size=300M")
		h.run(v, "write", "/data/file", "old")
		h.run(v, "write", "/data/file", "new")
		restore := func() error {
			if out, err := h.s4("docker", "restore", v+"@latest~1"); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
		err := h.killed(m, v, crash, restore)
		got := h.run(v, "read", "/data/file")
		if got != "old" && (got != "new" || err == nil) {
			t.Errorf("read %q, after %v", got, err)
		}
		if n := h.status(v, "snapshots"); n != "2" && n != "3" && n != "4" {
			t.Errorf("%s snapshots", n)
		}
	})
	eachMoment(t, "remove", removing, func(t *testing.T, m moment, v string) {
		h.create(v, options...)
		told(t, h.killed(m, v, crash, func() error {
			_, err := h.Try("volume", "rm", v)
			return err
		}))
		_, _ = h.Try("volume", "rm", v)
		if exists(h.path(v)) {
			t.Error("it is still there")
		}
	})
	h.removeAll()
}

// sound has borg look at the volume's repository.
func (h *dockerHost) sound(t *testing.T, volume string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "borg", "check", "--verify-data", filepath.Join(h.remote, volume))
	cmd.Env = append(h.env, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("borg check: %v: %s", err, out)
	}
}

// removeAll removes every volume, of which nothing may be left but in the trash.
func (h *dockerHost) removeAll() {
	h.t.Helper()
	for _, name := range strings.Fields(h.Docker("volume", "ls", "-q", "-f", "driver="+h.driver)) {
		h.Docker("volume", "rm", name)
	}
	if mounts, devices := h.left(); len(mounts)+len(devices) > 0 {
		h.t.Errorf("left over: %v, %v", mounts, devices)
	}
}

// The engine is killed within what it has the driver do.
func TestDockerVolumeEngineCrash(t *testing.T) {
	h := newDockerHost(t)
	options := []string{"size=300M", "remote=" + h.remote}
	crash := func() {
		h.Kill()
		h.Start()
	}
	moments := []moment{{"data", false, mountedAt("data")}, {"recorded", true, recorded(1)}, {"pushing", false, pushing}}
	eachMoment(t, "use", moments, func(t *testing.T, m moment, v string) {
		h.create(v, options...)
		h.run(v, "write", "/data/file", "before")
		_ = h.killed(m, v, crash, func() error { // the docker command loses its engine
			_, err := h.Try("run", "--rm", "-v", v+":/data", h.Box(), "write", "/data/file", "after")
			return err
		})
		if got := h.run(v, "read", "/data/file"); got != "before" && got != "after" {
			t.Errorf("read %q", got)
		}
		h.run(v, "write", "/data/file", "last")
		h.start("next-"+v, v, "wait")
		h.pushed(v, "file", "last")
		h.Docker("rm", "-f", "next-"+v)
		h.sound(t, v)
	})
	for _, id := range strings.Fields(h.Docker("ps", "-aq")) { // what the engine could not end
		_, _ = h.Try("rm", "-f", id)
	}
	h.removeAll()
}
