package dockertest_test

import (
	"strings"
	"testing"

	"github.com/s4-storage/s4/internal/dockertest"
)

// What a container has written is there for the next one, also after the
// engine was killed and started again.
func TestEngine(t *testing.T) {
	e := dockertest.New(t, dockertest.Options{})
	box := e.Box()
	e.Docker("volume", "create", "data")
	e.Docker("run", "--rm", "-v", "data:/data", box, "write", "/data/file", "hello")
	e.Docker("run", "-d", "--name", "waits", box, "wait")
	e.Kill()
	if _, err := e.Try("ps"); err == nil {
		t.Fatal("a killed engine answers")
	}
	e.Start()
	if got := e.Docker("run", "--rm", "-v", "data:/data", box, "read", "/data/file"); got != "hello" {
		t.Errorf("read %q", got)
	}
	if _, err := e.Try("run", "--rm", box, "read", "/none"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("the program's own words are missing: %v", err)
	}
}

// An image of the host's packages runs them, with their users.
func TestDebian(t *testing.T) {
	e := dockertest.New(t, dockertest.Options{})
	e.Debian("debian", "openssh-server", "borgbackup")
	got := e.Docker("run", "--rm", "debian", "sh", "-c", "id -un 0; id -un sshd; borg --version | cut -c 1-5; dpkg-query -W -f '${Package}' borgbackup")
	if got != "root\nsshd\nborg \nborgbackup" {
		t.Errorf("it has %q", got)
	}
}
