package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// job is a replicate or sync that runs in the background.
type job struct {
	t   *testing.T
	cmd *exec.Cmd
	out sync.WaitGroup

	mu     sync.Mutex
	events []map[string]any
	errors strings.Builder
}

// start runs "s4 ARG… --json" for the volume until the test ends.
func (v *inhabited) start(args ...string) *job {
	v.t.Helper()
	j := &job{t: v.t, cmd: exec.Command(filepath.Join(bin, "s4"), append(args, "--json")...)}
	j.cmd.Dir, j.cmd.Env = v.dir, v.env
	stdout, err := j.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	stderr, err := j.cmd.StderrPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := j.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	j.out.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var e map[string]any
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				v.t.Errorf("%q: %v", lines.Text(), err)
			}
			j.mu.Lock()
			j.events = append(j.events, e)
			j.mu.Unlock()
		}
	})
	j.out.Go(func() {
		text, _ := io.ReadAll(stderr)
		j.mu.Lock()
		j.errors.Write(text)
		j.mu.Unlock()
	})
	v.t.Cleanup(func() {
		_ = j.cmd.Process.Kill()
		_, _ = j.end()
		if v.t.Failed() {
			v.t.Logf("%q: %v\n%s", args, j.events, j.errors.String())
		}
	})
	return j
}

// happened waits until so many events of a kind have come, and gives the last.
func (j *job) happened(kind string, times int) (last map[string]any) {
	j.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for n := 0; n < times; time.Sleep(10 * time.Millisecond) {
		n = 0
		j.mu.Lock()
		for _, e := range j.events {
			if e["event"] == kind {
				last = e
				n++
			}
		}
		said := j.errors.String()
		j.mu.Unlock()
		if n < times && time.Now().After(deadline) {
			j.t.Fatalf("%q came %d times, want %d: %v\n%s", kind, n, times, j.events, said)
		}
	}
	return last
}

// end waits for the process and gives its exit code and what it said.
func (j *job) end() (int, string) {
	j.out.Wait()
	var exit *exec.ExitError
	if err := j.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return -1, err.Error()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cmd.ProcessState.ExitCode(), j.errors.String()
}

func (j *job) signal(s unix.Signal) {
	j.t.Helper()
	if err := j.cmd.Process.Signal(s); err != nil {
		j.t.Fatal(err)
	}
}

// code runs s4 and gives its exit code.
func (v *inhabited) code(args ...string) (int, string) {
	v.t.Helper()
	out, err := v.try(append([]string{"s4"}, args...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), out
	}
	if err != nil {
		v.t.Fatal(err)
	}
	return 0, out
}

func (v *inhabited) archives() []string {
	return strings.Fields(v.run("borg", "list", "--short", v.repo))
}

// TestReplicate lives with a replicate for a while: it pushes what changes and
// nothing else, stands a remote that goes away, a second one, and being killed.
func TestReplicate(t *testing.T) {
	for name, make := range map[string]func(*testing.T) *inhabited{"btrfs": newOnBtrfs, "directory": newInhabited} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := make(t)
			if code, out := v.code("ready"); code == 0 {
				t.Errorf("ready before the first push: %s", out)
			}
			writeFile(t, filepath.Join(v.dir, "a"), []byte("1"))
			j := v.start("replicate", "--interval", "100ms")
			j.happened("pushed", 1)
			writeFile(t, filepath.Join(v.dir, "deep/er/b"), []byte("2"))
			last := j.happened("pushed", 2)
			if lag, _ := last["lag"].(float64); lag <= 0 || lag > 60 {
				t.Errorf("lag: %v", last)
			}
			if code, out := v.code("ready", "--max-lag", "1m"); code != 0 {
				t.Errorf("not ready: %d %s", code, out)
			}
			if code, out := v.code("replicate"); code != 6 || !strings.Contains(out, fmt.Sprint(j.cmd.Process.Pid)) {
				t.Errorf("a second replicate: %d %s", code, out)
			}
			var status struct {
				Replicate struct {
					Running bool
					PID     int
					Remotes map[string]struct {
						Snapshot string
						LastGood time.Time `json:"last_good"`
					}
				}
			}
			if err := json.Unmarshal([]byte(v.run("s4", "status", "--json")), &status); err != nil {
				t.Fatal(err)
			}
			at := status.Replicate.Remotes["origin"]
			if r := status.Replicate; !r.Running || r.PID != j.cmd.Process.Pid || at.Snapshot != last["snapshot"] || time.Since(at.LastGood) > time.Minute {
				t.Errorf("status: %+v, want snapshot %v", r, last["snapshot"])
			}
			// The remote goes away and comes back; what came meanwhile is one snapshot.
			away := v.repo + ".away"
			if err := os.Rename(v.repo, away); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				writeFile(t, filepath.Join(v.dir, "c"), []byte(fmt.Sprint(i)))
				j.happened("failed", 1)
			}
			if err := os.Rename(away, v.repo); err != nil {
				t.Fatal(err)
			}
			j.happened("pushed", 3)
			if n := len(v.archives()); n != 3 {
				t.Errorf("%d archives, want 3: the backlog is one", n)
			}
			// Killed, and started again: it carries on.
			j.signal(unix.SIGKILL)
			j.end()
			writeFile(t, filepath.Join(v.dir, "d"), []byte("4"))
			j = v.start("replicate", "--interval", "100ms")
			j.happened("pushed", 1)
			j.signal(unix.SIGTERM)
			if code, said := j.end(); code != 0 {
				t.Errorf("SIGTERM: %d %s", code, said)
			}
			if n := len(v.archives()); n != 4 {
				t.Errorf("%d archives, want 4", n)
			}
			// Nothing has changed: nothing is pushed.
			v.run("s4", "replicate", "--once")
			if n := len(v.archives()); n != 4 {
				t.Errorf("%d archives after nothing changed", n)
			}
			clone := filepath.Join(t.TempDir(), "clone")
			v.run("s4", "clone", v.repo, clone)
			v.run("diff", "-r", "--no-dereference", "--exclude=.s4", v.dir+"/", clone)
		})
	}
}

// TestSync follows a remote that another host pushes to.
func TestSync(t *testing.T) {
	t.Parallel()
	v := newOnBtrfs(t)
	writeFile(t, filepath.Join(v.dir, "a"), []byte("1"))
	v.run("s4", "push")
	other := &inhabited{t: t, dir: filepath.Join(filepath.Dir(v.dir), "btrfs/other"), repo: v.repo, env: v.env}
	v.run("btrfs", "subvolume", "create", other.dir)
	v.run("s4", "clone", v.repo, other.dir)
	j := other.start("sync", "--interval", "100ms")
	j.happened("current", 1)
	same := func() bool {
		_, err := v.try("diff", "-r", "--exclude=.s4", v.dir+"/", other.dir)
		return err == nil
	}
	// Two files that always say the same: no reader sees one version of one and
	// another of the other.
	var torn atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			dir, err := os.OpenRoot(other.dir)
			if err != nil {
				torn.Add(1)
				continue
			}
			one, errOne := dir.ReadFile("b")
			two, errTwo := dir.ReadFile("z/b")
			if (errOne == nil) != (errTwo == nil) || string(one) != string(two) {
				torn.Add(1)
			}
			dir.Close()
		}
	})
	for i := range 3 {
		writeFile(t, filepath.Join(v.dir, "b"), []byte(fmt.Sprint(i)))
		writeFile(t, filepath.Join(v.dir, fmt.Sprint("new/", i)), []byte("x"))
		writeFile(t, filepath.Join(v.dir, "z/b"), []byte(fmt.Sprint(i)))
		v.run("s4", "push")
		j.happened("brought", i+1)
		eventually(t, 10*time.Second, "both are the same", same)
	}
	close(stop)
	readers.Wait()
	if n := torn.Load(); n > 0 {
		t.Errorf("%d times half a version was seen", n)
	}
	if n := len(strings.Fields(other.run("ls", ".s4/snapshots"))) / 2; n != 4 {
		t.Errorf("%d versions are kept here, want 4", n)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(other.dir), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the volume: %v %v", left, err)
	}
	if code, out := other.code("ready"); code != 0 {
		t.Errorf("not ready: %d %s", code, out)
	}
	// What is changed on this side is not lost.
	writeFile(t, filepath.Join(other.dir, "mine"), []byte("precious"))
	writeFile(t, filepath.Join(v.dir, "c"), []byte("3"))
	v.run("s4", "push")
	if code, said := j.end(); code != 4 || !strings.Contains(said, "mine") {
		t.Errorf("a change on this side: %d %s", code, said)
	}
	if _, err := os.Stat(filepath.Join(other.dir, "mine")); err != nil {
		t.Error(err)
	}
	other.run("s4", "sync", "--once", "--force")
	if !same() {
		t.Error("not the same after --force")
	}
	found := other.run("s4", "find", "mine")
	if !strings.Contains(found, "mine") {
		t.Errorf("what was changed here is lost: %s", found)
	}
}
