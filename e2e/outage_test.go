package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// farHost is a network namespace with an sshd in it, at the end of a link.
type farHost struct {
	*sshd
	t    *testing.T
	name string // of the namespace, and of the link's end in it
}

// startFarHost makes the namespace, the link and the sshd.
func startFarHost(t *testing.T) *farHost {
	t.Helper()
	need(t, "ip", "ssh", "borg")
	if os.Geteuid() != 0 {
		missing(t, "cannot make a network namespace: not root")
	}
	name := fmt.Sprint("s4t", os.Getpid()%100000)
	h := &farHost{t: t, name: name}
	const here, there = "198.51.100.1", "198.51.100.2" // for documentation: nobody has them
	h.ip("netns", "add", name)
	t.Cleanup(func() { h.ip("netns", "del", name) }) // the link goes with it
	h.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", name)
	h.ip("addr", "add", here+"/30", "dev", name)
	h.ip("link", "set", name, "up")
	h.ip("-n", name, "addr", "add", there+"/30", "dev", name)
	h.join()
	h.ip("-n", name, "link", "set", "lo", "up")
	// borg asks for its host's full name, and would wait for the answer. This
	// name server refuses at once.
	resolver := filepath.Join("/etc/netns", name)
	t.Cleanup(func() {
		if err := os.RemoveAll(resolver); err != nil {
			t.Error(err)
		}
		_ = os.Remove(filepath.Dir(resolver)) // where nobody else is in it
	})
	writeFile(t, filepath.Join(resolver, "resolv.conf"), []byte("nameserver 127.0.0.1\n"))
	h.sshd = startSSHDOn(t, there, "ip", "netns", "exec", name)
	return h
}

func (h *farHost) ip(args ...string) {
	h.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		missing(h.t, fmt.Sprintf("ip %q: %v %s", args, err, out))
	}
}

// cut ends the link, and join makes it whole again.
func (h *farHost) cut()  { h.t.Helper(); h.ip("-n", h.name, "link", "set", h.name, "down") }
func (h *farHost) join() { h.t.Helper(); h.ip("-n", h.name, "link", "set", h.name, "up") }

// reachBy gives the volume a remote on that server, and notes the ssh processes.
func (v *inhabited) reachBy(s *sshd, remote, path string) (calls string) {
	v.t.Helper()
	top := filepath.Dir(v.dir)
	config, err := s.clientConfig(top)
	if err != nil {
		v.t.Fatal(err)
	}
	calls, rsh := filepath.Join(top, "calls"), filepath.Join(top, "rsh")
	script := fmt.Sprintf("#!/bin/sh\necho $$ >>%s\nexec ssh -F %s -o ServerAliveInterval=1 -o ServerAliveCountMax=3 \"$@\"\n", calls, config)
	if err := os.WriteFile(rsh, []byte(script), 0o700); err != nil {
		v.t.Fatal(err)
	}
	v.env = append(v.env, "BORG_RSH="+rsh)
	v.run("s4", "remote", "add", remote, "ssh://mys4remote"+path)
	return calls
}

// TestReplicateCutOff cuts the link to the remote, also amid a push.
func TestReplicateCutOff(t *testing.T) {
	t.Parallel()
	h := startFarHost(t)
	v := newOnBtrfs(t)
	far := filepath.Join(filepath.Dir(v.dir), "far")
	v.run("s4", "remote", "remove", "origin")
	v.reachBy(h.sshd, "far", far)
	v.repo = filepath.Join(far, "v")
	acknowledged := map[string]bool{}
	writeFile(t, filepath.Join(v.dir, "witness/1"), testimony(1))
	j := v.start("replicate", "--interval", "100ms")
	j.happened("pushed", 1)
	for cut := range 2 {
		pushed := j.count("pushed", "")
		if amid := cut == 1; amid {
			big := make([]byte, 150<<20)
			_, _ = rand.Read(big)
			grown := diskUsage(v.repo)
			writeFile(t, filepath.Join(v.dir, "big"), big)
			eventually(t, 30*time.Second, "it is amid the push", func() bool { return diskUsage(v.repo) > grown+20<<20 })
		}
		h.cut()
		began := time.Now()
		n := int64(2 + 2*cut)
		writeFile(t, filepath.Join(v.dir, "witness", fmt.Sprint(n)), testimony(n))
		failed := j.count("failed", "")
		eventually(t, 40*time.Second, "it notices", func() bool { return j.count("failed", "") > failed })
		noticed := time.Since(began)
		writeFile(t, filepath.Join(v.dir, "witness", fmt.Sprint(n+1)), testimony(n+1))
		failed = j.count("failed", "")
		eventually(t, 40*time.Second, "it tries again", func() bool { return j.count("failed", "") > failed })
		if n := j.count("pushed", ""); n != pushed {
			t.Errorf("%d pushes while cut off", n-pushed)
		}
		h.join()
		began = time.Now()
		eventually(t, 90*time.Second, "it catches up", func() bool { return j.count("pushed", "") > pushed })
		t.Logf("noticed after %v, caught up after %v: %s", noticed.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond), j.said())
		time.Sleep(time.Second) // for another snapshot to come, which must not
		if n := j.count("pushed", ""); n != pushed+1 {
			t.Errorf("caught up with %d snapshots", n-pushed)
		}
	}
	j.acknowledged("far", acknowledged)
	j.signal(unix.SIGTERM)
	if code, said := j.end(); code != 0 {
		t.Errorf("SIGTERM: %d %s", code, said)
	}
	v.noGarbage()
	if newest := v.sound(v.repo, acknowledged); newest != 5 {
		t.Errorf("the remote has version %d", newest)
	}
}

// diskUsage is how many bytes the files below dir have.
func diskUsage(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// TestReplicateTwo pushes to two remotes, one of which stops to answer: before
// anything is sent, and amid a push. The other stays in step.
func TestReplicateTwo(t *testing.T) {
	t.Parallel()
	need(t, "ssh")
	server := startSSHD(t)
	v := newOnBtrfs(t)
	far := filepath.Join(filepath.Dir(v.dir), "far")
	calls := v.reachBy(server, "far", far)
	j := v.start("replicate", "--interval", "50ms")
	eventually(t, time.Minute, "both have the first", func() bool { return j.count("pushed", "origin") > 0 && j.count("pushed", "far") > 0 })
	version := int64(0)
	// step changes the volume some times; origin must have each change soon.
	step := func(what string) {
		t.Helper()
		for range 4 {
			version++
			before := j.count("pushed", "origin")
			writeFile(t, filepath.Join(v.dir, "witness", fmt.Sprint(version%witnessFiles)), testimony(version))
			began := time.Now()
			eventually(t, 20*time.Second, "origin has it, "+what, func() bool { return j.count("pushed", "origin") > before })
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s: origin had to wait for %v", what, took)
			}
		}
	}
	caughtUp := func(before int) {
		t.Helper()
		eventually(t, 90*time.Second, "far catches up", func() bool {
			return j.count("pushed", "far") > before && v.newestAt(filepath.Join(far, "v")) == v.newestAt(v.repo)
		})
	}
	before := j.count("pushed", "far")
	stop(t, server.pid)
	step("while far does not answer")
	if n := j.count("pushed", "far"); n != before {
		t.Errorf("%d pushes to a server that does not answer", n-before)
	}
	resume(t, server.pid)
	caughtUp(before)

	before = j.count("pushed", "far")
	big := make([]byte, 150<<20)
	_, _ = rand.Read(big)
	repo := filepath.Join(far, "v")
	grown := diskUsage(repo)
	writeFile(t, filepath.Join(v.dir, "big"), big)
	eventually(t, 30*time.Second, "it is amid a push", func() bool { return diskUsage(repo) > grown+10<<20 })
	pids := stopAll(t, calls)
	eventually(t, 60*time.Second, "origin has the large file", func() bool {
		return strings.Contains(v.run("borg", "list", "--short", "--last", "1", v.repo), "v-") && diskUsage(v.repo) > 150<<20
	})
	step("while a push to far stands still")
	if n := j.count("pushed", "far"); n != before {
		t.Errorf("%d pushes through ssh that was stopped", n-before)
	}
	for _, pid := range pids {
		resume(t, pid)
	}
	caughtUp(before)
	acknowledged := map[string]bool{}
	j.acknowledged("origin", acknowledged)
	v.sound(v.repo, acknowledged)
	clear(acknowledged)
	j.acknowledged("far", acknowledged)
	j.signal(unix.SIGTERM)
	if code, said := j.end(); code != 0 {
		t.Errorf("SIGTERM: %d %s", code, said)
	}
	v.noGarbage()
	if newest := v.sound(repo, acknowledged); newest != version {
		t.Errorf("far has version %d, not %d", newest, version)
	}
	if out := v.run("s4", "status"); strings.Contains(out, "witness") {
		t.Errorf("status: %s", out)
	}
}

// newestAt is the id's beginning of the newest archive in a repository.
func (v *inhabited) newestAt(repo string) string {
	name := strings.TrimSpace(v.run("borg", "list", "--lock-wait", "20", "--short", "--last", "1", repo))
	return name[max(0, len(name)-8):]
}

// TestReplicateOneConnection: replicate logs in once, though it pushes many times;
// pushes that others make in between, and a prune, are seen all the same.
func TestReplicateOneConnection(t *testing.T) {
	t.Parallel()
	need(t, "ssh")
	server := startSSHD(t)
	v := newOnBtrfs(t)
	top := filepath.Dir(v.dir)
	far := filepath.Join(top, "far")
	config, err := server.clientConfig(top)
	if err != nil {
		t.Fatal(err)
	}
	v.run("s4", "remote", "remove", "origin")
	v.env = append(v.env, "BORG_RSH=ssh -F "+config)
	v.run("s4", "remote", "add", "far", "ssh://mys4remote"+far)
	repo := filepath.Join(far, "v")
	v.run("s4", "push") // whose logins do not count
	v.env = append(v.env, "XDG_RUNTIME_DIR="+shortDir(t))
	started, served := filepath.Join(top, "started"), filepath.Join(top, "serve")
	if err := os.WriteFile(served, []byte("#!/bin/sh\necho >>"+started+"\nexec borg \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	v.env = append(v.env, "BORG_REMOTE_PATH="+served)
	before := server.logins.Load()
	j := v.start("replicate", "--interval", "50ms")
	eventually(t, 30*time.Second, "it has looked", func() bool { return j.count("current", "far") > 0 })
	pushed := 0
	push := func() {
		t.Helper()
		writeFile(t, filepath.Join(v.dir, "file"), fmt.Append(nil, pushed))
		pushed++
		eventually(t, 30*time.Second, "it is pushed", func() bool { return j.count("pushed", "far") == pushed })
	}
	for range 5 {
		push()
	}
	if n := server.logins.Load() - before; n > 2 { // a guard's and a reader's, in the same moment
		t.Errorf("%d logins for %d pushes", n, pushed)
	}
	// A guard and a reader to begin with, one for each push, one that stands by.
	if b, err := os.ReadFile(started); err != nil || len(b) > 2+pushed+1 {
		t.Errorf("borg serve was started %d times for %d pushes: %v", len(b), pushed, err)
	}
	// What is there is not what the last push left.
	v.run("borg", "prune", "--lock-wait", "20", "--keep-last", "1", repo)
	push()
	if n := len(strings.Fields(v.run("borg", "list", "--lock-wait", "20", "--short", repo))); n != 2 {
		t.Errorf("%d archives, not the one that was kept and another", n)
	}
	v.run("borg", "create", "--lock-wait", "20", repo+"::other", v.dir+"/file")
	writeFile(t, filepath.Join(v.dir, "file"), []byte("what must not be pushed over the other"))
	if code, said := j.end(); code != 4 {
		t.Errorf("after another's archive: %d %s", code, said)
	}
	if failed := j.count("failed", ""); failed > 0 {
		t.Errorf("%d pushes failed", failed)
	}
	eventually(t, 5*time.Second, "nothing keeps the volume busy", func() bool {
		places, _ := filepath.Glob("/proc/[0-9]*/cwd")
		return !slices.ContainsFunc(places, func(p string) bool {
			at, _ := os.Readlink(p)
			return strings.HasPrefix(at, v.dir)
		})
	})
	v.run("borg", "check", "--verify-data", repo)
}

// shortDir is a directory for sockets, whose paths must be short.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "s4")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}

func resume(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// stopAll stops those ssh processes listed in calls that run.
func stopAll(t *testing.T, calls string) (pids []int) {
	t.Helper()
	b, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(b)) {
		line, _ := os.ReadFile("/proc/" + word + "/cmdline")
		if pid, err := strconv.Atoi(word); err == nil && strings.Contains(string(line), "mys4remote") {
			stop(t, pid)
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Error("no connection to stop")
	}
	return pids
}
