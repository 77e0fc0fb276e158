package dockertest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/mountinfo"
)

// cleanup takes everything of the engine away.
func (e *Engine) cleanup() {
	if e.tb.Failed() {
		lines := strings.Split(e.Log(), "\n")
		e.tb.Logf("the engine's log ends with:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
	}
	if e.Running() {
		e.removeContainers()
		e.Stop()
	}
	// After a crash nobody has ended what the engine had started.
	for _, pid := range e.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, at := range e.mounts() {
		// The engine itself leaves the host's network behind when a container
		// was in it.
		if !e.crashed && !strings.HasSuffix(at, "/exec/netns/default") {
			e.tb.Errorf("still mounted: %s", at)
		}
		_ = unix.Unmount(at, unix.MNT_DETACH)
	}
	if err := os.RemoveAll(e.dir); err != nil {
		e.tb.Error(err)
	}
}

// removeContainers spares the engine to wait for each of them. The test's
// context has ended already.
func (e *Engine) removeContainers() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := e.Command(ctx, "ps", "--all", "--quiet").Output()
	if ids := strings.Fields(string(out)); err == nil && len(ids) > 0 {
		_ = e.Command(ctx, append([]string{"rm", "--force"}, ids...)...).Run()
	}
}

// processes are those that were started with a path of the engine in their
// command line, and what these have started: containers.
func (e *Engine) processes() []int {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var found []int
	for _, p := range procs {
		line, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(line, []byte(e.dir+"/")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p))); err == nil && pid != os.Getpid() {
			found = append(found, children(pid)...)
			found = append(found, pid)
		}
	}
	return found
}

func children(pid int) []int {
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	var found []int
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

// mounts are those at and below the engine's directory, the last made first.
func (e *Engine) mounts() []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		e.tb.Error(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if m, ok := mountinfo.Parse(line); ok && strings.HasPrefix(m.Dir, e.dir+"/") {
			found = append([]string{m.Dir}, found...)
		}
	}
	return found
}
