package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/s4-storage/s4/internal/dockertest"
)

// machine is a host with systemd and a docker engine of its own, in a container.
type machine struct {
	*dockertest.Engine
	t *testing.T
}

// machineInit boots systemd where it may write to its own groups of processes,
// and where there is no hardware and nobody to ask.
const machineInit = `set -e
for at in $(grep -o ' /sys/fs/cgroup[^ ]*' /proc/mounts); do mount -o remount,bind,rw $at; done
mknod /dev/loop-control c 10 237
mknod /dev/btrfs-control c 10 234
mknod /dev/fuse c 10 229
for n in $(seq 0 63); do mknod /dev/loop$n b 7 $n; done
mkdir -p /etc/docker
echo '{"bridge": "none", "iptables": false}' >/etc/docker/daemon.json
[ -s /etc/machine-id ] || systemd-machine-id-setup
systemctl mask systemd-firstboot systemd-udevd systemd-udev-trigger systemd-modules-load systemd-networkd getty.target console-getty
systemctl enable docker
exec /lib/systemd/systemd`

// newMachine boots one.
func newMachine(t *testing.T) *machine {
	t.Helper()
	need(t, "mkfs.btrfs", "dockerd")
	m := &machine{dockertest.New(t, dockertest.Options{}), t}
	m.Box()
	m.Debian("machine", "systemd", "docker.io", "btrfs-progs", "fuse3", "mount", "util-linux")
	// Its engine needs no network; what it has is on no overlay, where its own
	// overlays could not be.
	m.Docker("run", "-d", "--name", "machine", "--network", "none", "--stop-signal", "SIGRTMIN+3",
		// Privileged, but for what some hosts of tests have not themselves.
		"--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--device-cgroup-rule", "a *:* rwm",
		"--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined",
		"--cgroupns", "private",
		"-e", "container=docker", "--tmpfs", "/run", "--tmpfs", "/tmp", "-v", "lib:/var/lib",
		"-v", filepath.Join(bin, "s4")+":/usr/local/bin/s4:ro", "-v", filepath.Join(m.Dir(), "box")+":/box:ro",
		"machine", "sh", "-c", machineInit)
	m.booted()
	return m
}

// booted waits until systemd has started everything.
func (m *machine) booted() {
	m.t.Helper()
	waitFor(m.t, "the machine boots", func() bool {
		out, _ := m.Try("exec", "machine", "systemctl", "is-system-running")
		return strings.TrimSpace(out) == "running" || strings.TrimSpace(out) == "degraded"
	})
}

// do runs a command in the machine.
func (m *machine) do(args ...string) string {
	m.t.Helper()
	return m.Docker(append([]string{"exec", "machine"}, args...)...)
}

// The driver that systemd runs: installed once, it is there before docker at
// every boot, so that containers come up with their volumes.
func TestDockerPluginInstall(t *testing.T) {
	m := newMachine(t)
	m.do("s4", "docker", "plugin", "install")
	units := []string{"s4-docker-plugin.socket", "s4-docker-plugin.service"}
	state := func(verb string) string {
		out, _ := m.Try(append([]string{"exec", "machine", "systemctl", verb}, units...)...)
		return strings.Join(strings.Fields(out), " ")
	}
	if got := state("is-enabled") + ", " + state("is-active"); got != "enabled enabled, active active" {
		t.Errorf("after the install: %s", got)
	}
	running := func(container string) string {
		out, _ := m.Try("exec", "machine", "docker", "inspect", "-f", "{{.State.Running}}", container)
		return out
	}
	m.do("sh", "-c", `tar -C / -c box | docker import --change 'ENTRYPOINT ["/box"]' - box`)
	m.do("docker", "volume", "create", "-d", "s4", "-o", "size=200M", "db")
	m.do("docker", "run", "--rm", "-v", "db:/data", "box", "write", "/data/file", "kept")
	m.do("docker", "run", "-d", "--name", "always", "--restart", "always", "-v", "db:/data", "box", "wait")

	m.Docker("restart", "--time", "60", "machine")
	m.booted()
	if got := state("is-active"); got != "active active" {
		t.Errorf("after a boot: %s", got)
	}
	waitFor(t, "the container is up again", func() bool { return running("always") == "true" })
	if got := m.do("docker", "run", "--rm", "-v", "db:/data", "box", "read", "/data/file"); got != "kept" {
		t.Errorf("after a boot the volume has %q", got)
	}
	since := func(unit string) int {
		t.Helper()
		at, err := strconv.Atoi(m.do("systemctl", "show", "--property", "ActiveEnterTimestampMonotonic", "--value", unit))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, unit := range units {
		if since(unit) > since("docker.service") {
			t.Errorf("%s was there after docker", unit)
		}
	}

	m.do("s4", "docker", "plugin", "uninstall")
	if got := state("is-active"); got != "inactive inactive" {
		t.Errorf("after the end: %s", got)
	}
	if out := m.do("find", "/etc/systemd/system", "/run/docker/plugins", "-name", "s4*"); out != "" {
		t.Errorf("left over: %s", out)
	}
	if _, err := m.Try("exec", "machine", "s4", "docker", "plugin", "uninstall"); err == nil || !strings.Contains(err.Error(), "there is no service") {
		t.Errorf("once more: %v", err)
	}
	if long() { // the engine waits for a driver that is not there
		m.do("docker", "run", "-d", "--name", "other", "--restart", "always", "-v", "plain:/data", "box", "wait")
		m.Docker("restart", "--time", "60", "machine")
		m.booted()
		waitFor(t, "what needs no driver is up", func() bool { return running("other") == "true" })
		if got := running("always"); got != "false" {
			t.Errorf("without the driver, running: %s", got)
		}
	}
	m.do("s4", "docker", "plugin", "install")
	m.do("docker", "start", "always") // it may run
	if got := m.do("docker", "run", "--rm", "-v", "db:/data", "box", "read", "/data/file"); got != "kept" {
		t.Errorf("installed again, the volume has %q", got)
	}
	m.do("docker", "rm", "-f", "always")
}
