package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/dockertest"
)

// baseImage is Debian with what our images need: what this host has of it, or,
// with S4_LONG=1, what docker/base.sh makes.
func baseImage(t *testing.T, e *dockertest.Engine) string {
	t.Helper()
	const image = "s4-base"
	if !long() {
		e.Debian(image, "borgbackup", "openssh-client", "openssh-server", "fuse3", "ca-certificates", "passwd")
		return image
	}
	need(t, "debootstrap")
	cmd := exec.CommandContext(t.Context(), "../docker/base.sh", image)
	cmd.Env = append(os.Environ(), e.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		missing(t, "no base image: "+err.Error()+": "+lastLines(string(out)))
	}
	return image
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// shop is a compose project with a database and an application that share a
// volume; all of it is in the host's network, as the engine has none.
const shop = `
services:
  db:
    image: s4-base
    network_mode: host
    command: ["sh", "-c", "[ -e /data/file ] || { echo kept >/data/file; chown 1234 /data/file; }; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    labels: {s4.quiesce: pause, s4.dump: "echo all of it"}
    volumes: ["data:/data"]
  web:
    image: s4-base
    network_mode: host
    command: ["sh", "-c", "echo y >/up/file; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    labels: {s4.quiesce: stop}
    volumes: ["data:/data", "uploads:/up"]
volumes:
  data: {}
  uploads: {}
`

// shipped makes the images s4-target and s4-agent as their Dockerfiles say.
func shipped(t *testing.T, e *dockertest.Engine) {
	t.Helper()
	base := baseImage(t, e)
	tree := t.TempDir()
	for _, dir := range []string{"agent", "target"} {
		if err := os.CopyFS(filepath.Join(tree, "docker", dir), os.DirFS(filepath.Join("..", "docker", dir))); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, "../docker/install.sh", filepath.Join(tree, "docker", "install.sh"))
	copyFile(t, filepath.Join(bin, "s4"), filepath.Join(tree, "bin", "s4"))
	for _, what := range []string{"target", "agent"} {
		cmd := e.Command(t.Context(), "build", "--network", "none", "--build-arg", "BASE="+base,
			"-f", filepath.Join(tree, "docker", what, "Dockerfile"), "-t", "s4-"+what, tree)
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build of %s: %v: %s", what, err, lastLines(string(out)))
		}
	}
}

// target is a container of s4-target, and a key for it.
type target struct {
	e     *dockertest.Engine
	port  int
	key   string // file
	hosts string // file with its host key
}

// startTarget returns when it lets keys in. The files for its clients are made
// in dir: id_ed25519 and known_hosts.
func startTarget(t *testing.T, e *dockertest.Engine, dir string) *target {
	t.Helper()
	need(t, "ssh-keygen")
	r := &target{e: e, port: freePort(t), key: filepath.Join(dir, "id_ed25519"), hosts: filepath.Join(dir, "known_hosts")}
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e.Docker("run", "-d", "--name", "target", "--network", "host", "-e", fmt.Sprint("S4_TARGET_PORT=", r.port), "s4-target")
	waitFor(t, "the target's sshd", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	host := e.Docker("exec", "target", "cat", "/config/ssh_host_ed25519_key.pub")
	if err := os.WriteFile(r.hosts, fmt.Appendf(nil, "[127.0.0.1]:%d %s\n", r.port, host), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// place is the URL of the target's place for volumes.
func (r *target) place() string { return fmt.Sprintf("ssh://s4@127.0.0.1:%d/volumes", r.port) }

// letIn lets a key's owner push a volume, and not delete.
func (r *target) letIn(t *testing.T, volume, key string) {
	t.Helper()
	r.e.Docker("exec", "target", "s4", "target", "add-key", volume, strings.TrimSpace(readFile(t, key+".pub")), "--append-only")
}

// has is a file in a volume's newest snapshot, as the target itself reads it.
func (r *target) has(volume, file string) string {
	got, err := r.e.Try("exec", "target", "s4", "--quiet", "cat", "--repo", "/volumes/"+volume, "latest:"+file)
	if err != nil {
		return ""
	}
	return got
}

// The images as they are shipped, with real borg between them.
func TestDockerImages(t *testing.T) {
	need(t, "docker-compose")
	dir := t.TempDir()
	rsh := fmt.Sprintf("ssh -i %[1]s/id_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile=%[1]s/known_hosts -o StrictHostKeyChecking=yes", dir)
	h := newDockerHost(t, "BORG_RSH="+rsh)
	shipped(t, h.Engine)
	r := startTarget(t, h.Engine, dir)
	if got := h.Docker("exec", "target", "id", "-un"); got != "s4" {
		t.Errorf("the target runs as %s", got)
	}
	t.Run("a database", func(t *testing.T) { databaseLost(t, h, r) })
	t.Run("a folder", func(t *testing.T) { folderReplicated(t, h, r) })
	t.Run("a compose project", func(t *testing.T) { composeProject(t, h.Engine, r) })
	t.Run("what is left out, and what is kept", func(t *testing.T) { composeRules(t, h.Engine) })
}

// An agent by hand, with the words of the guide, pushes what is in a folder.
func folderReplicated(t *testing.T, h *dockerHost, r *target) {
	const folder = "my-existing-folder"
	agent := func(args ...string) {
		t.Helper()
		h.Docker(append([]string{"run", "--rm", "-v", folder + ":/s4", "--workdir", "/s4", "s4-agent:latest"}, args...)...)
	}
	h.run(folder, "write", "/data/file", "was there before")
	agent("init", "--name", folder)
	agent("remote", "add", "origin", r.place())
	r.letIn(t, folder, r.key)
	words := strings.Fields("run --name my-existing-folder-replicator -v my-existing-folder:/s4 --workdir /s4 s4-agent:latest replicate")
	secrets := []string{"--detach", "--network", "host", // there is no other
		"-v", r.key + ":/run/secrets/s4_key:ro", "-e", "S4_PRIV_KEY_FILE=/run/secrets/s4_key",
		"-v", r.hosts + ":/run/secrets/s4_known_hosts:ro", "-e", "S4_KNOWN_HOSTS_FILE=/run/secrets/s4_known_hosts"}
	h.Docker(slices.Concat(words[:1], secrets, words[1:])...)
	waitFor(t, "the first push", func() bool { return r.has(folder, "file") == "was there before" })
	h.run(folder, "write", "/data/file", "changed since")
	waitFor(t, "a push of what changed", func() bool { return r.has(folder, "file") == "changed since" })
	if out, err := h.Try("exec", folder+"-replicator", "s4", "ready"); err != nil {
		t.Errorf("its health check: %v: %s", err, out)
	}
	h.Docker("stop", "--time", "20", folder+"-replicator")
	if got := h.Docker("inspect", "-f", "{{.State.ExitCode}}", folder+"-replicator"); got != "0" {
		t.Errorf("it ended with %s", got)
	}
}

// newProject starts a compose project in a directory of its own. It returns the
// directory and what runs a command there, which must succeed, and returns its
// output.
func newProject(t *testing.T, e *dockertest.Engine, name, text string) (dir string, run func(name string, args ...string) string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name)
	writeFile(t, filepath.Join(dir, "docker-compose.yml"), []byte(text))
	run = func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), e.Env()...)
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+dir, "BORG_BASE_DIR="+t.TempDir(), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
		out, err := cmd.Output()
		if err != nil {
			stderr := ""
			if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as it comes from Output
				stderr = string(exit.Stderr)
			}
			t.Fatalf("%s %q: %v: %s%s", name, args, err, out, stderr)
		}
		return string(out)
	}
	t.Cleanup(func() { composeDown(t, e, dir) })
	run("docker-compose", "up", "-d")
	return dir, run
}

// An agent that `s4 docker add` puts beside a project.
func composeProject(t *testing.T, e *dockertest.Engine, r *target) {
	dir, run := newProject(t, e, "shop", shop)
	s4 := filepath.Join(bin, "s4")
	missing := exec.CommandContext(t.Context(), s4, "docker", "add", "--yes", "--remote", r.place(), "--image", "s4-missing")
	missing.Dir, missing.Env = dir, append(os.Environ(), e.Env()...)
	if out, err := missing.CombinedOutput(); err == nil || !strings.Contains(string(out), "docker build -f docker/agent/Dockerfile -t s4-missing .") {
		t.Errorf("without the image: %v: %s", err, out)
	}
	line := run(s4, "docker", "add", "--yes", "--no-start", "--remote", r.place())
	if !strings.Contains(line, `--restrict-to-path /volumes/shop_data --restrict-to-path /volumes/shop_uploads --append-only",restrict ssh-ed25519 `) {
		t.Errorf("the line for the target: %s", line)
	}
	// There is no network but the host's here.
	override := filepath.Join(dir, "docker-compose.override.yml")
	text := strings.Replace(readFile(t, override), "  s4-agent:\n", "  s4-agent:\n    network_mode: host\n", 1)
	if err := os.WriteFile(override, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	started := func() string { return e.Docker("inspect", "-f", "{{.State.StartedAt}}", "shop_web_1") }
	never := started()
	run("docker-compose", "up", "-d", "s4-agent")

	type volume struct {
		LastGood time.Time `json:"last_good"`
		Error    string
	}
	all := func(what string, is func(volume) bool) {
		t.Helper()
		waitFor(t, what, func() bool {
			var status []struct{ Volumes map[string]volume }
			if err := json.Unmarshal([]byte(run(s4, "docker", "status", "--json")), &status); err != nil {
				t.Fatal(err)
			}
			good := 0
			for _, s := range status {
				for _, v := range s.Volumes {
					if is(v) {
						good++
					}
				}
			}
			return good == 2
		})
	}
	all("a try without the key", func(v volume) bool { return strings.Contains(v.Error, "Permission denied") })
	if started() != never {
		t.Error("a service was stopped for a backup that could not be")
	}
	for _, v := range []string{"shop_data", "shop_uploads"} {
		r.letIn(t, v, filepath.Join(dir, "s4-agent", "id_ed25519"))
	}
	if got := e.Docker("exec", "target", "cat", "/config/authorized_keys"); !strings.HasSuffix("\n"+got+"\n", "\n"+line) {
		t.Errorf("add-key wrote\n%s\nand docker add printed\n%s", got, line)
	}
	run("docker-compose", "restart", "s4-agent") // else it would be a while until the next try
	all("the first backups", func(v volume) bool { return !v.LastGood.IsZero() && v.Error == "" })
	if started() == never {
		t.Error("a service was not stopped for its backup")
	}
	run(s4, "docker", "status", "--max-lag", "1h")
	if out := run(s4, "docker", "doctor"); strings.Contains(out, "bad ") || !strings.Contains(out, "ok    host key") || !strings.Contains(out, "ok    key") {
		t.Errorf("doctor:\n%s", out)
	}
	if got := e.Docker("ps", "--format", "{{.Names}} {{.State}}", "--filter", "name=web"); !strings.HasSuffix(got, " running") {
		t.Errorf("the service that was stopped: %s", got)
	}
	// What is at the target is the volume, with the dump.
	repository := filepath.Join(t.TempDir(), "repository")
	e.Docker("cp", "target:/volumes/shop_data", repository)
	for path, want := range map[string]string{"file": "kept\n", ".s4-dump/db.dump": "all of it\n"} {
		if got := run(s4, "cat", "--repo", repository, "latest:"+path); got != want {
			t.Errorf("%s at the target has %q", path, got)
		}
	}

	// The volumes are lost, and one comes back through the agent's own service.
	run("docker-compose", "down", "-v")
	run("docker-compose", "run", "--rm", "-T", "--no-deps", "s4-agent", "clone", r.place()+"/shop_data", "/volumes/shop_data")
	run("docker-compose", "up", "-d")
	all("its next backup, and that of the other is refused", func(v volume) bool {
		return !v.LastGood.IsZero() || strings.Contains(v.Error, "belongs to another volume")
	})
	if got := e.Docker("exec", "shop_web_1", "sh", "-c", "cat /data/file; stat -c %u /data/file"); got != "kept\n1234" {
		t.Errorf("came back: %q", got)
	}
	run("docker-compose", "exec", "-T", "db", "sh", "-c", "echo spoilt >/data/file")
	run("docker-compose", "exec", "-T", "s4-agent", "s4", "-C", "/volumes/shop_data", "restore", "--force", "latest", "--", "file")
	if got := e.Docker("exec", "shop_web_1", "cat", "/data/file"); got != "kept" {
		t.Errorf("restored: %q", got)
	}
}

// An agent leaves out what labels say, in a volume that was pushed by hand
// before, and keeps of its snapshots only what they say.
func composeRules(t *testing.T, e *dockertest.Engine) {
	place := t.TempDir()
	_, run := newProject(t, e, "rules", `
services:
  app:
    image: s4-base
    network_mode: none
    command: ["sh", "-c", "mkdir /data/cache; for f in file cache/a cache/keep.me b.tmp; do echo $$f >/data/$$f; done; echo y >/s/file; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    labels: {s4.exclude: "scratch,data/cache/?,data/*.tmp", s4.keep: "last=1"}
    volumes: ["data:/data", "scratch:/s"]
volumes:
  data: {}
  scratch: {}
`)
	s4 := filepath.Join(bin, "s4")
	byHand := func(args ...string) {
		t.Helper()
		e.Docker(append([]string{"run", "--rm", "--network", "none", "-v", "rules_data:/s4", "-v", place + ":" + place, "--workdir", "/s4", "s4-agent"}, args...)...)
	}
	byHand("init", "--name", "rules_data")
	byHand("remote", "add", "origin", place)
	byHand("push")
	run("docker-compose", "exec", "-T", "app", "sh", "-c", "echo more >/data/file")
	byHand("push")
	repository := filepath.Join(place, "rules_data")
	archives := func() []string {
		return strings.Fields(run("borg", "list", "--short", repository))
	}
	if got := archives(); len(got) != 2 {
		t.Fatalf("pushed by hand: %v", got)
	}
	run(s4, "docker", "add", "--yes", "--remote", place)
	waitFor(t, "old snapshots go after the first backup", func() bool {
		got := archives()
		return len(got) == 1
	})
	newest := archives()[0]
	if got := run("borg", "list", "--short", repository+"::"+newest); strings.Join(strings.Fields(got), " ") != ". .s4 .s4/config cache cache/keep.me file" {
		t.Errorf("the snapshot holds\n%s", got)
	}
	run("borg", "check", "--verify-data", repository)
	if entries, err := os.ReadDir(place); err != nil || len(entries) != 1 {
		t.Errorf("at the remote: %v, %v", entries, err)
	}
	if out := run(s4, "docker", "status"); strings.Contains(out, "scratch") {
		t.Errorf("status:\n%s", out)
	}
}

// composeDown takes the project away; the test's own context has ended.
func composeDown(t *testing.T, e *dockertest.Engine, dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if t.Failed() {
		logs := exec.CommandContext(ctx, "docker-compose", "logs", "--tail", "30", "s4-agent")
		logs.Dir, logs.Env = dir, append(os.Environ(), e.Env()...)
		out, _ := logs.CombinedOutput()
		t.Logf("the agent's log ends with:\n%s", out)
	}
	down := exec.CommandContext(ctx, "docker-compose", "down", "-v", "-t", "5")
	down.Dir, down.Env = dir, append(os.Environ(), e.Env()...)
	_ = down.Run()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(4 * time.Minute); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}
