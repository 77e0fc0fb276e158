package dockeragent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/snapshot"
)

const composeText = `
services:
  db:
    image: s4-shell
    network_mode: none
    command: ["sh", "-c", "echo x >/data/file; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    labels: {s4.quiesce: pause, s4.dump: "echo all of it"}
    volumes: ["data:/data"]
  web:
    image: s4-shell
    network_mode: none
    depends_on: [db]
    command: ["sh", "-c", "echo y >/up/file; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    labels: ["s4.quiesce=stop"]
    volumes: ["data:/data", "uploads:/up", "./conf:/conf:ro", "scratch:/s"]
  job:
    image: s4-shell
    network_mode: none
    labels: {s4.exclude: scratch}
    command: ["sh", "-c", "exit 0"]
    volumes: ["scratch:/s"]
volumes:
  data: {}
  uploads: {name: all-uploads}
  scratch: {}
`

// composeDir is a directory with a compose file, in which compose uses the
// bench's engine.
func (b *bench) composeDir(text string) string {
	b.t.Helper()
	needCompose(b.t)
	for _, e := range b.Env() {
		key, value, _ := strings.Cut(e, "=")
		b.t.Setenv(key, value)
	}
	dir := filepath.Join(b.t.TempDir(), "My Shop")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	write(b.t, filepath.Join(dir, "docker-compose.yml"), text)
	return dir
}

func needCompose(t *testing.T) {
	t.Helper()
	if _, err := FindCompose(t.Context()); err != nil {
		missing(t, err.Error())
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A project of two services that share a volume gets an agent, which finds
// itself in its container, backs up what it should, tells so, and brings back
// what it held when it is told to stop.
func TestCompose(t *testing.T) {
	b := newBench(t)
	dir := b.composeDir(composeText)
	binary := filepath.Join(t.TempDir(), "s4")
	b.Build("testdata/agent", binary)
	b.Import("s4-agent:latest", map[string]string{"/bin/s4": binary}, `ENTRYPOINT ["/bin/s4"]`, `ENV PATH=/bin`)
	compose, err := FindCompose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = compose.run(context.Background(), dir, "down", "-v") })
	if _, err := compose.run(t.Context(), dir, "up", "-d"); err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(t.TempDir(), "place")
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}

	begin := time.Now()
	added, err := Add(t.Context(), AddOptions{Dir: dir, Remote: place, Socket: b.client.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	if err := added.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("from the command to a running agent: %v", took)
	if took > time.Minute {
		t.Errorf("it took %v", took)
	}
	if added.Project != "myshop" || !slices.Equal(added.Volumes, []string{"all-uploads", "myshop_data"}) || added.Authorized != "" {
		t.Errorf("added %+v", added)
	}
	if !slices.ContainsFunc(added.Left, func(s string) bool { return strings.Contains(s, "/conf, at /conf of web") }) {
		t.Errorf("left: %q", added.Left)
	}
	good := func() bool {
		all, err := Statuses(t.Context(), b.client, "myshop")
		return err == nil && len(all) == 1 && all[0].Running && len(all[0].Complaints(time.Hour, time.Now())) == 0
	}
	b.waitFor("the first backup of all", good)
	all, err := Statuses(t.Context(), b.client, "myshop")
	if err != nil {
		t.Fatal(err)
	}
	agent := all[0].Container
	for file, want := range map[string]string{"myshop_data/file": "x\n", "myshop_data/.s4-dump/db.dump": "all of it\n", "all-uploads/file": "y\n"} {
		if got, _ := os.ReadFile(filepath.Join(place, file)); string(got) != want {
			t.Errorf("%s has %q", file, got)
		}
	}
	if entries, _ := os.ReadDir(place); len(entries) != 2 {
		t.Errorf("the place has %v", entries)
	}
	if out := b.Docker("exec", agent, "/bin/s4", "docker", "status", "--quiet", "--health"); out != "" {
		t.Errorf("health: %s", out)
	}
	for _, c := range Doctor(t.Context(), b.client, "myshop", 0) {
		if c.Verdict == Bad {
			t.Errorf("doctor: %+v", c)
		}
	}
	if project, err := Project(t.Context(), dir); project != "myshop" || err != nil {
		t.Errorf("project %q, %v", project, err)
	}

	// Whoever looks into a volume through the agent's service is no second agent.
	b.Docker("create", "--label", LabelAgent+"=true", "--label", composeProject+"=myshop", "--label", composeOneOff+"=True", "s4-agent:latest")
	if !good() {
		t.Error("the container of a `compose run` is taken for an agent")
	}

	// Again, with one volume more.
	write(t, filepath.Join(dir, "docker-compose.yml"), strings.ReplaceAll(composeText, "{s4.exclude: scratch}", "{}"))
	again, err := Add(t.Context(), AddOptions{Dir: dir, Remote: place, Socket: b.client.Socket()})
	if err != nil || !again.Updated || len(again.Volumes) != 3 {
		t.Fatalf("again: %+v, %v", again, err)
	}

	// A stopped agent is told of; what is held when it stops is checked by
	// TestHold.
	if _, err := compose.run(t.Context(), dir, "stop", "s4-agent"); err != nil {
		t.Fatal(err)
	}
	all, err = Statuses(t.Context(), b.client, "")
	if err != nil || len(all) != 1 || !slices.ContainsFunc(all[0].Complaints(time.Hour, time.Now()), func(s string) bool { return strings.Contains(s, "does not run") }) {
		t.Errorf("status of a stopped agent: %+v, %v", all, err)
	}
	if checks := Doctor(t.Context(), b.client, "myshop", 0); !slices.ContainsFunc(checks, func(c Check) bool { return c.Verdict == Bad && c.What == "agent" }) {
		t.Errorf("doctor of a stopped agent: %+v", checks)
	}
}

// What is not as it should be is refused before anything is written.
func TestAddRefused(t *testing.T) {
	needCompose(t)
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock") // no engine is asked
	text := func(service string) string { return "services:\n  db:\n    image: x\n" + service }
	for _, tt := range []struct {
		name  string
		files map[string]string
		env   string
		want  string
		kind  error
	}{
		{"no compose file", nil, "", "no compose file", fs.ErrNotExist},
		{"mistyped label", map[string]string{"compose.yaml": text("    labels: {s4.quiese: stop}\n    volumes: ['d:/d']\nvolumes: {d: {}}\n")}, "", "no such label", snapshot.ErrUsage},
		{"mistyped volume", map[string]string{"compose.yaml": text("    labels: {s4.volumes: e}\n    volumes: ['d:/d']\nvolumes: {d: {}}\n")}, "", "mounts no such volume (good: d)", snapshot.ErrUsage},
		{"only bind mounts", map[string]string{"compose.yml": text("    volumes: ['./d:/d']\n")}, "", "nothing to back up", snapshot.ErrRefused},
		{"not yaml", map[string]string{"compose.yml": "services: ["}, "", "config", nil},
		{"its own override", map[string]string{"compose.yaml": text("    volumes: ['d:/d']\nvolumes: {d: {}}\n"), "compose.override.yaml": "services: {}"}, "", "not of s4", snapshot.ErrRefused},
		{"override of another name", map[string]string{"compose.yaml": text("    volumes: ['d:/d']\nvolumes: {d: {}}\n"), "docker-compose.override.yml": "services: {}"}, "", "not of s4", snapshot.ErrRefused},
		{"own agent", map[string]string{"compose.yaml": text("    volumes: ['d:/d']\n  s4-agent: {image: x}\nvolumes: {d: {}}\n")}, "", "service s4-agent of its own", snapshot.ErrRefused},
		{"override is not read", map[string]string{"compose.yaml": text("    volumes: ['d:/d']\nvolumes: {d: {}}\n")}, "compose.yaml", "compose does not read compose.override.yaml", snapshot.ErrRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				write(t, filepath.Join(dir, name), text)
			}
			if tt.env != "" {
				t.Setenv("COMPOSE_FILE", tt.env)
			}
			_, err := Add(t.Context(), AddOptions{Dir: dir, Remote: "/place", Socket: "/s"})
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.kind != nil && !errors.Is(err, tt.kind) {
				t.Errorf("error %v", err)
			}
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if _, ok := tt.files[e.Name()]; !ok && e.Name() != agentService {
					t.Errorf("%s was left", e.Name())
				}
			}
		})
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "compose.yaml"), text("    volumes: ['d:/d']\nvolumes: {d: {}}\n"))
	write(t, filepath.Join(dir, "compose.override.yaml"), "services: {}")
	if out, err := Override(t.Context(), AddOptions{Dir: dir, Remote: "/place", Socket: "/s"}); err != nil || !strings.Contains(string(out), "s4-agent:") {
		t.Errorf("printed beside an override of another: %s, %v", out, err)
	}
	for _, remote := range []string{"", "here", "nas:/x::archive", "http://x/y"} {
		if _, err := Add(t.Context(), AddOptions{Dir: t.TempDir(), Remote: remote}); !errors.Is(err, snapshot.ErrUsage) {
			t.Errorf("remote %q: %v", remote, err)
		}
	}
}

// hostKeyServer is an sshd of which nothing but the host key is asked.
func hostKeyServer(t *testing.T) (address string, change func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	signers := make(chan ssh.Signer, 1)
	change = func() {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-signers:
		default:
		}
		signers <- s
	}
	change()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s := <-signers
			signers <- s
			config := &ssh.ServerConfig{NoClientAuth: true}
			config.AddHostKey(s)
			_, _, _, _ = ssh.NewServerConn(conn, config)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String(), change
}

// The key is made once, the host's key accepted once, and a changed one never.
func TestAddSSH(t *testing.T) {
	needCompose(t)
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	address, change := hostKeyServer(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "compose.yaml"), "services:\n  db:\n    image: x\n    volumes: ['d:/d', 'e:/e']\nvolumes: {d: {name: one}, e: {name: two}}\n")
	asked := 0
	refuse := errors.New("no")
	o := AddOptions{Dir: dir, Remote: "ssh://s4@" + address + "/volumes", Socket: "/run/d.sock", AcceptHost: func(context.Context, string, string) error { asked++; return refuse }}
	if _, err := Add(t.Context(), o); !errors.Is(err, refuse) {
		t.Fatalf("a host key that is not accepted: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "compose.override.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an override was written: %v", err)
	}
	o.AcceptHost = func(_ context.Context, at, fingerprint string) error {
		asked++
		if at != address || !strings.HasPrefix(fingerprint, "SHA256:") {
			t.Errorf("asked for %s %s", at, fingerprint)
		}
		return nil
	}
	first, err := Add(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Add(t.Context(), o)
	if err != nil || asked != 2 || second.Authorized != first.Authorized || !second.Updated {
		t.Errorf("again: %+v, %v, asked %d times", second, err, asked)
	}
	if want := `command="borg serve --restrict-to-path /volumes/one --restrict-to-path /volumes/two --append-only",restrict ssh-ed25519 `; !strings.HasPrefix(first.Authorized, want) {
		t.Errorf("line %s", first.Authorized)
	}
	if info, err := os.Stat(first.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", info, err)
	}
	// ssh itself takes what was written.
	if _, err := exec.LookPath("ssh-keygen"); err == nil {
		if out, err := exec.Command("ssh-keygen", "-y", "-f", first.Key).CombinedOutput(); err != nil || !strings.Contains(first.Authorized, strings.Fields(string(out))[1]) {
			t.Errorf("ssh-keygen -y: %s, %v", out, err)
		}
		host, port, _ := net.SplitHostPort(address)
		if out, err := exec.Command("ssh-keygen", "-F", "["+host+"]:"+port, "-f", filepath.Join(dir, agentService, knownHostsFile)).CombinedOutput(); err != nil {
			t.Errorf("ssh-keygen -F: %s, %v", out, err)
		}
	}
	change()
	if _, err := Add(t.Context(), o); !errors.Is(err, snapshot.ErrRefused) || !strings.Contains(err.Error(), "another host key") {
		t.Errorf("with another host key: %v", err)
	}
	o.Remote = "ssh://s4@127.0.0.1:1/volumes"
	if _, err := Add(t.Context(), o); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestRepositoryPath(t *testing.T) {
	if got, err := RepositoryPath("/volumes", "a.b-c_1"); got != "/volumes/a.b-c_1" || err != nil {
		t.Error(got, err)
	}
	for _, name := range []string{"", "..", "../x", "a/b", "a b", "-x", strings.Repeat("a", 129), `a"b`} {
		if _, err := RepositoryPath("/volumes", name); !errors.Is(err, snapshot.ErrUsage) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzProject: any answer of compose is read or refused.
func FuzzProject(f *testing.F) {
	f.Add([]byte(composeText))
	f.Add([]byte("name: x\nservices: {a: {labels: ['s4.enable=false'], volumes: [{type: volume, source: v, target: /v, read_only: true}]}}\nvolumes: {v: {external: {name: w}}}\n"))
	f.Add([]byte("services: {a: {volumes: [v:/v:ro,z]}}\nvolumes: {v: {external: true}}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parseProject(in, "app", "/place")
		if err != nil {
			return
		}
		for _, v := range p.plan.Volumes {
			if p.keys[v.Name] == "" && v.Name != "app_" {
				t.Errorf("volume %q is not in the file", v.Name)
			}
		}
	})
}
