package e2e

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a person does with docker volumes.
func TestDockerVerbs(t *testing.T) {
	h := newDockerHost(t)
	ok := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := h.s4(args...)
		if err != nil {
			t.Fatalf("s4 %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return out
	}
	fails := func(t *testing.T, says string, args ...string) {
		t.Helper()
		out, err := h.s4(args...)
		if err == nil || !strings.Contains(out, says) {
			t.Errorf("s4 %s: %v: %s; without %q", strings.Join(args, " "), err, out, says)
		}
	}
	ok(t, "docker", "create", "db", "--size", "1G", "--remote", h.remote, "--label", "for=shop")
	if got := h.Docker("volume", "inspect", "-f", "{{.Driver}} {{.Labels}} {{.Options.size}}", "db"); got != h.driver+" map[for:shop] 1G" {
		t.Errorf("create: %s", got)
	}
	fails(t, "docker volume db exists", "docker", "create", "db")
	fails(t, "sudo s4 docker plugin install", "docker", "create", "new", "--driver", "no-such-driver")
	fails(t, "is no size", "docker", "create", "new", "--size", "lots")
	h.run("db", "write", "/data/file", "first")
	h.pushed("db", "file", "first")
	h.run("db", "write", "/data/file", "second")
	h.run("db", "write", "/data/other", "of the second")
	h.pushed("db", "other", "of the second")
	first := h.times("db", "file", "first")

	t.Run("restore", func(t *testing.T) {
		h.Docker("create", "--name", "user", "-v", "db:/data", h.Box(), "read", "/data/file")
		h.start("runs", "db", "wait")
		fails(t, "db is used by runs", "docker", "restore", "db@"+first)
		ok(t, "docker", "restore", "db@"+first, "--as", "beside")
		if got := h.run("beside", "read", "/data/file"); got != "first" {
			t.Errorf("beside: %q", got)
		}
		h.Docker("rm", "-f", "runs")
		ok(t, "docker", "restore", "db@"+first)
		if got := h.Docker("start", "-a", "user"); got != "first" {
			t.Errorf("a container that refers to it reads %q", got)
		}
		if got := h.run("db", "list", "/data"); strings.Contains(got, "other") {
			t.Errorf("old and new are mixed: %s", got)
		}
		before := h.Docker("volume", "ls", "-q", "-f", "label=s4.before-restore=db")
		if got := h.run(before, "read", "/data/file"); got != "second" {
			t.Errorf("as it was before, in %s: %q", before, got)
		}
		h.run(before, "write", "/data/file", "never to be pushed")
		h.run("db", "write", "/data/file", "third")
		h.pushed("db", "file", "third")
		fails(t, "no snapshot", "docker", "restore", "db@1999-01-01")
		fails(t, "no such volume", "docker", "restore", "none")
		h.Docker("rm", "user")
		h.Docker("volume", "rm", before, "beside")
	})

	t.Run("without a remote", func(t *testing.T) {
		h.create("own", "size=300M", "autogrow=off")
		h.run("own", "write", "/data/file", "first")
		kept := func() int {
			n, err := strconv.Atoi(h.status("own", "snapshots"))
			if err != nil {
				t.Error(err)
			}
			return n
		}
		before := kept() // one, and perhaps one amid the writing
		h.run("own", "read", "/data/file")
		h.run("own", "write", "/data/file", "second")
		h.run("own", "write", "/data/other", "of the third")
		if got := kept(); before < 1 || got != before+2 {
			t.Errorf("%d snapshots, and after two changes %d", before, got)
		}
		h.start("runs", "own", "wait")
		fails(t, "own is used by runs", "docker", "restore", "own@latest~2")
		// Beside, also while it is used.
		ok(t, "docker", "restore", "own@latest~2", "--as", "beside")
		if got := h.run("beside", "read", "/data/file"); got != "first" {
			t.Errorf("beside: %q", got)
		}
		h.Docker("rm", "-f", "runs")
		h.Docker("create", "--name", "refers", "-v", "own:/data", h.Box(), "list", "/data")
		out := ok(t, "docker", "restore", "own@latest~1", "--json")
		var told struct{ Name, Snapshot string }
		if err := json.Unmarshal([]byte(out), &told); err != nil || told.Name != "own" {
			t.Fatalf("%v: %s", err, out)
		}
		if got := h.Docker("start", "-a", "refers"); got != ".s4\nfile" {
			t.Errorf("old and new are mixed: %s", got)
		}
		if got := h.run("own", "read", "/data/file"); got != "second" {
			t.Errorf("brought back: %q", got)
		}
		h.run("own", "write", "/data/file", "fourth")
		ok(t, "docker", "restore", "own@"+told.Snapshot)
		if got := h.run("own", "read", "/data/other"); got != "of the third" {
			t.Errorf("forth again: %q", got)
		}
		fails(t, "no snapshot", "docker", "restore", "own@1999-01-01")
		fails(t, "no such volume", "docker", "create", "new", "-o", "volume=none")
		if mounts, devices := h.left(); len(mounts)+len(devices) > 0 {
			t.Errorf("left over: %v, %v", mounts, devices)
		}
		h.Docker("rm", "refers")
		h.Docker("volume", "rm", "own", "beside")
	})

	t.Run("resize", func(t *testing.T) {
		h.create("own", "size=300M", "autogrow=off")
		h.start("runs", "own", "wait")
		if out := ok(t, "docker", "resize", "own", "+200M"); !strings.Contains(out, "own: 500 MiB") {
			t.Errorf("%s", out)
		}
		var st unix.Statfs_t // as the container sees it
		if err := unix.Statfs(h.within("runs", "/data"), &st); err != nil || int64(st.Blocks)*st.Bsize != 500<<20 {
			t.Errorf("%d bytes, %v", int64(st.Blocks)*st.Bsize, err)
		}
		fails(t, "is no size", "docker", "resize", "own", "lots")
		fails(t, "s4 docker resize own min", "docker", "resize", "own", "1M")
		h.Docker("rm", "-f", "runs")
		ok(t, "docker", "resize", "own", "300M") // nobody uses it
		if got := h.status("own", "size"); got != "300 MiB" {
			t.Errorf("size: %s", got)
		}
		h.Docker("volume", "rm", "own")
		fails(t, "no such volume", "docker", "resize", "own", "5G")
	})

	t.Run("list", func(t *testing.T) {
		out := ok(t, "docker", "list")
		if !strings.Contains(out, "db    ready") || !strings.Contains(out, h.remote) || strings.Count(out, "\n") != 2 {
			t.Errorf("%s", out)
		}
	})

	t.Run("clone and init", func(t *testing.T) {
		ok(t, "clone", "--docker", filepath.Join(h.remote, "db"), "copy", "--at", first)
		if got := h.run("copy", "read", "/data/file"); got != "first" {
			t.Errorf("read %q", got)
		}
		fails(t, "there is no none at", "clone", "--docker", filepath.Join(h.remote, "none"))
		ok(t, "init", "--docker", "fresh", "--size", "500M")
		if got := h.run("fresh", "list", "/data"); got != "" {
			t.Errorf("a new one has %q", got)
		}
		h.Docker("volume", "rm", "copy", "fresh")
	})

	t.Run("import", func(t *testing.T) {
		h.Docker("volume", "create", "--label", "com.docker.compose.project=shop", "old")
		h.run("old", "write", "/data/file", "kept")
		h.Docker("create", "--name", "refers", "-v", "old:/data", h.Box(), "wait")
		fails(t, "old is used by refers", "docker", "import", "old", "--yes")
		h.Docker("rm", "refers")
		// Nobody confirms it: all is as it was.
		fails(t, "there is nobody to ask", "docker", "import", "old", "--remote", h.remote)
		if got := h.Docker("volume", "inspect", "-f", "{{.Driver}}", "old"); got != "local" {
			t.Errorf("not confirmed, it is of driver %s", got)
		}
		h.run("old", "append", "/data/file", " and changed")
		ok(t, "docker", "import", "old", "--remote", h.remote, "--yes")
		if got := h.Docker("volume", "inspect", "-f", "{{.Driver}} {{.Labels}}", "old"); got != h.driver+" map[com.docker.compose.project:shop]" {
			t.Errorf("imported: %s", got)
		}
		if got := h.run("old", "read", "/data/file"); got != "kept and changed" {
			t.Errorf("read %q", got)
		}
		h.pushed("old", "file", "kept and changed")
		h.Docker("volume", "create", "db2")
		h.run("db2", "write", "/data/file", "not what the remote has")
		fails(t, "another volume db2", "docker", "import", "db2", "--remote", h.remote, "-o", "name=db", "--yes")
		if got := h.run("db2", "read", "/data/file"); got != "not what the remote has" {
			t.Errorf("read %q", got)
		}
		h.Docker("volume", "rm", "db2")
		if left, _ := filepath.Glob(filepath.Join(h.state, "volumes", "*")); len(left) != 2 {
			t.Errorf("left of imports: %v", left)
		}
		fails(t, "is one of s4 already", "docker", "import", "old")
		h.Docker("volume", "rm", "old")
	})

	t.Run("agent", func(t *testing.T) {
		fails(t, "looks after docker volume db itself", "docker", "agent", "replicate", "db", "--image", h.Box())
		h.Docker("volume", "create", "plain")
		fails(t, "there is no s4 volume in docker volume plain", "docker", "agent", "replicate", "plain", "--image", h.Box())
		at := h.Docker("volume", "inspect", "-f", "{{.Mountpoint}}", "plain")
		ok(t, "init", at, "--name", "plain")
		ok(t, "docker", "agent", "replicate", "plain", "--image", h.Box())
		if got := h.Docker("inspect", "-f", "{{.Config.Cmd}} {{.Config.WorkingDir}} {{(index .Mounts 0).Name}} {{.HostConfig.RestartPolicy.Name}}", "plain-replicator"); got != "[replicate] /s4 plain unless-stopped" {
			t.Errorf("the agent: %s", got)
		}
		fails(t, "there is a container plain-replicator", "docker", "agent", "replicate", "plain", "--image", h.Box())
		ok(t, "docker", "agent", "stop", "plain")
		fails(t, "no agent looks after", "docker", "agent", "stop", "plain")
	})
	h.Docker("volume", "rm", "db")
}
