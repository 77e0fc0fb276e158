package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/dockertest"
)

// baseImage is Debian with what our images need. debootstrap takes a minute,
// so its work is kept for the next run, in the user's cache.
func baseImage(t *testing.T, e *dockertest.Engine) string {
	t.Helper()
	const image = "s4-base"
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(cache, "s4-test", "s4-base-bookworm.tar")
	if info, err := os.Stat(kept); err == nil && time.Since(info.ModTime()) < 30*24*time.Hour {
		e.Docker("load", "-i", kept)
		return image
	}
	need(t, "debootstrap")
	cmd := exec.CommandContext(t.Context(), "../docker/base.sh", image)
	cmd.Env = append(os.Environ(), e.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		missing(t, "no base image: "+err.Error()+": "+lastLines(string(out)))
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Fatal(err)
	}
	e.Docker("save", "-o", kept, image)
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
    command: ["sh", "-c", "echo kept >/data/file; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
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

// The images as they are shipped: a target that lets a key in, and an agent
// that `s4 docker add` puts beside a project, with real borg between them.
func TestDockerImages(t *testing.T) {
	if !long() {
		t.Skip("it bootstraps a Debian: set S4_LONG=1")
	}
	need(t, "docker-compose", "ssh-keygen")
	e := dockertest.New(t, dockertest.Options{})
	base := baseImage(t, e)
	tree := t.TempDir()
	for _, dir := range []string{"agent", "target"} {
		if err := os.CopyFS(filepath.Join(tree, "docker", dir), os.DirFS(filepath.Join("..", "docker", dir))); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, "../docker/install.sh", filepath.Join(tree, "docker", "install.sh"))
	copyFile(t, filepath.Join(bin, "s4"), filepath.Join(tree, "bin", "s4"))
	build := func(what string, args ...string) {
		t.Helper()
		args = append([]string{"build", "--network", "none", "--build-arg", "BASE=" + base, "-f", filepath.Join(tree, "docker", what, "Dockerfile"), "-t", "s4-" + what}, args...)
		cmd := e.Command(t.Context(), append(args, tree)...)
		cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build of %s: %v: %s", what, err, lastLines(string(out)))
		}
	}
	build("target")
	build("agent")

	port := freePort(t)
	e.Docker("run", "-d", "--name", "target", "--network", "host", "-e", fmt.Sprint("S4_TARGET_PORT=", port), "s4-target")
	waitFor(t, "the target's sshd", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if got := e.Docker("exec", "target", "id", "-un"); got != "s4" {
		t.Errorf("the target runs as %s", got)
	}

	dir := filepath.Join(t.TempDir(), "shop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker-compose.yml"), []byte(shop), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), e.Env()...)
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+dir)
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
	s4 := filepath.Join(bin, "s4")
	line := run(s4, "docker", "add", "--yes", "--no-start", "--remote", fmt.Sprintf("ssh://s4@127.0.0.1:%d/volumes", port))
	if !strings.Contains(line, `--restrict-to-path /volumes/shop_data --restrict-to-path /volumes/shop_uploads --append-only",restrict ssh-ed25519 `) {
		t.Errorf("the line for the target: %s", line)
	}
	key := strings.TrimSpace(readFile(t, filepath.Join(dir, "s4-agent", "id_ed25519.pub")))
	for _, v := range []string{"shop_data", "shop_uploads"} {
		e.Docker("exec", "target", "s4", "target", "add-key", v, key, "--append-only")
	}
	if got := e.Docker("exec", "target", "cat", "/config/authorized_keys"); got+"\n" != line {
		t.Errorf("add-key wrote\n%s\nand docker add printed\n%s", got, line)
	}
	// There is no network but the host's here.
	override := filepath.Join(dir, "docker-compose.override.yml")
	text := strings.Replace(readFile(t, override), "  s4-agent:\n", "  s4-agent:\n    network_mode: host\n", 1)
	if err := os.WriteFile(override, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	run("docker-compose", "up", "-d", "s4-agent")

	var status []struct {
		Volumes map[string]struct {
			LastGood time.Time `json:"last_good"`
			Error    string
		}
	}
	waitFor(t, "the first backups", func() bool {
		if err := json.Unmarshal([]byte(run(s4, "docker", "status", "--json")), &status); err != nil {
			t.Fatal(err)
		}
		if len(status) != 1 || len(status[0].Volumes) != 2 {
			return false
		}
		for name, v := range status[0].Volumes {
			if v.Error != "" {
				t.Fatalf("%s: %s", name, v.Error)
			}
			if v.LastGood.IsZero() {
				return false
			}
		}
		return true
	})
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
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}
