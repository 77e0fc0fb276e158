package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A container that runs when its volume gets its first file never sees what s4
// keeps in it.
func TestDockerVolumeFirstFile(t *testing.T) {
	h := newDockerHost(t)
	h.create("db", "size=300M", "remote="+h.remote)
	h.start("early", "db", "wait")
	at := h.within("early", "/data")
	if names, err := os.ReadDir(at); err != nil || len(names) > 0 {
		t.Fatalf("a new volume has %v, %v", names, err)
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for looked := false; ; {
			names, err := os.ReadDir(filepath.Join(at, ".s4"))
			if len(names) > 0 {
				t.Errorf("a container sees %v", names)
				return
			}
			looked = looked || err == nil
			select {
			case <-ended:
				if !looked {
					t.Error("there never was a .s4")
				}
				return
			default:
			}
		}
	}()
	h.Docker("exec", "early", "/box", "write", "/data/file", "first")
	h.pushed("db", "file", "first")
	close(ended)
	<-done
	// What a container writes there is its own, and no way into s4's.
	h.Docker("exec", "early", "/box", "write", "/data/.s4/config", "of the container")
	h.run("db", "write", "/data/file", "second")
	h.pushed("db", "file", "second")
	h.Docker("rm", "-f", "early")
	h.Docker("volume", "rm", "db")
}

// The process of a mount with history is killed. Containers that run see the
// volume again by themselves, and so do those to come.
func TestDockerHistoryRenewed(t *testing.T) {
	h := newDockerHost(t)
	h.create("past", "size=300M", "history=on", "remote="+h.remote)
	h.start("one", "past", "wait")
	h.Docker("exec", "one", "/box", "write", "/data/file", "0")
	h.pushed("past", "file", "0")
	kill := func() {
		t.Helper()
		if err := syscall.Kill(h.server("past"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	sees := func(container, want string) {
		t.Helper()
		file := filepath.Join(h.within(container, "/data"), "file")
		h.eventually(container+" sees the volume again", func() bool {
			got, err := os.ReadFile(file)
			return err == nil && string(got) == want
		})
		if names := h.Docker("exec", container, "/box", "list", "/data/.s4/history"); !strings.Contains(names, "latest") {
			t.Errorf("the past: %s", names)
		}
	}
	for n, container := range []string{"one", "two", "three"} {
		kill()
		sees("one", fmt.Sprint(n))
		h.eventually("docker tells", func() bool { return strings.Contains(h.status("past", "history"), "renewed at") })
		if n > 0 {
			sees("two", fmt.Sprint(n))
			h.start(container+"b", "past", "wait")
		} else {
			h.start("two", "past", "wait")
		}
		h.Docker("exec", "one", "/box", "write", "/data/file", fmt.Sprint(n+1))
		h.pushed("past", "file", fmt.Sprint(n+1))
	}
	t.Run("while the driver is away", func(t *testing.T) {
		server := h.server("past")
		h.endPlugin(syscall.SIGKILL)
		if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		h.startPlugin()
		for _, container := range []string{"one", "two", "twob", "threeb"} {
			sees(container, "3")
		}
	})
	h.Docker("rm", "-f", "one", "two", "twob", "threeb")
	if mounts, devices := h.left(); len(mounts)+len(devices) > 0 {
		t.Errorf("left over: %v, %v", mounts, devices)
	}
	h.Docker("volume", "rm", "past")
}

// server is the process that serves a mount with history.
func (h *dockerHost) server(name string) (pid int) {
	h.t.Helper()
	buf := make([]byte, 256)
	n, err := unix.Getxattr(h.mountpoint(name), "user.s4.root", buf)
	if err == nil {
		_, err = fmt.Sscanf(string(buf[:n]), "/proc/%d/fd/", &pid)
	}
	if err != nil {
		h.t.Fatalf("who serves %s: %v", name, err)
	}
	return pid
}
