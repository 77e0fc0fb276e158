package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/e2e/bench/proc"
)

// How long things that should take no time may take.
const (
	pollEvery    = time.Millisecond
	unmountLimit = 20 * time.Second
	shelfLimit   = 10 * time.Second
)

// mount is a repository mounted by a process of ours.
type mount struct {
	tool    *tool
	dir     string
	log     string    // file with what the process says
	started time.Time // just before the process was

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	stop  func() bool   // don't kill it any more when the context ends
}

// mount starts a process that mounts a repository and returns when the mount
// is there. When ctx ends, or the time limit is over, the process is killed:
// whatever waits for the mount fails then.
func (b *bench) mount(ctx context.Context, t *tool, repo string, env ...string) (*mount, error) {
	m := &mount{tool: t, dir: filepath.Join(b.dir, "mnt", t.name), ended: make(chan struct{})}
	m.log = m.dir + ".log"
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(m.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(ctx, b.Limit)
	// Not CommandContext: the process outlives this function.
	m.cmd = exec.Command(t.program, t.mount(repo, m.dir)...) //nolint:noctx // killed below
	m.cmd.Env = append(append([]string{}, b.env...), env...)
	m.cmd.Dir, m.cmd.Stdout, m.cmd.Stderr = b.dir, log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m.started = time.Now()
	if err := m.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		_ = m.cmd.Wait() // its log tells what went wrong
		cancel()
		close(m.ended)
	}()
	m.stop = context.AfterFunc(ctx, func() { _ = m.cmd.Process.Kill() })
	for !mounted(m.dir) {
		select {
		case <-m.ended:
			return nil, errors.Join(fmt.Errorf("%s mount ended: %s", t.name, m.said()), m.close())
		case <-time.After(pollEvery):
		}
	}
	return m, nil
}

// said is the end of the process's log.
func (m *mount) said() string {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return tail(string(text))
}

// mounted looks for a mountpoint among the mounts.
func mounted(dir string) bool {
	text, err := os.ReadFile("/proc/self/mounts")
	return err == nil && bytes.Contains(text, []byte(" "+strings.ReplaceAll(dir, " ", `\040`)+" "))
}

// close unmounts and waits for the process to end, the hard way if need be.
func (m *mount) close() error {
	m.stop()
	ctx, cancel := context.WithTimeout(context.Background(), unmountLimit)
	defer cancel()
	var err error
	for mounted(m.dir) {
		argv := m.tool.unmountCommand(m.dir)
		var out []byte
		if out, err = exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err == nil {
			continue
		}
		if ctx.Err() != nil || m.gone() {
			err = errors.Join(fmt.Errorf("%s: unmount: %w: %s", m.tool.name, err, tail(string(out))),
				unix.Unmount(m.dir, unix.MNT_DETACH))
			break
		}
		// Busy: something is still being closed.
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case <-m.ended:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("%s did not end after its mount", m.tool.name), m.cmd.Process.Kill())
		<-m.ended
	}
	return err
}

func (t *tool) unmountCommand(mountpoint string) []string {
	if t.unmount != nil {
		return t.unmount(mountpoint)
	}
	return []string{t.program, "umount", mountpoint}
}

func (m *mount) gone() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}

// shelf is the directory that lists the snapshots. Some mounts are there a
// moment before it is.
func (m *mount) shelf() (string, error) {
	for limit := time.Now().Add(shelfLimit); ; {
		found, err := filepath.Glob(filepath.Join(m.dir, m.tool.shelf))
		switch {
		case err != nil:
			return "", err
		case len(found) == 1:
			return found[0], nil
		case m.gone() || time.Now().After(limit):
			return "", fmt.Errorf("%s: %d directories match %s in the mount: %s", m.tool.name, len(found), m.tool.shelf, m.said())
		}
		time.Sleep(pollEvery)
	}
}

// snapshot is the directory of the snapshot of that time.
func (m *mount) snapshot(at time.Time) (string, error) {
	shelf, err := m.shelf()
	return filepath.Join(shelf, m.tool.folder(at)), err
}

// memory gives what the process has resident, and at most had, in bytes.
func (m *mount) memory() (rss, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	value := func(key string) int64 {
		_, rest, _ := strings.Cut(string(text), "\n"+key+":")
		rest, _, _ = strings.Cut(rest, " kB")
		n, perr := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		err = errors.Join(err, perr)
		return n << 10
	}
	return value("VmRSS"), value("VmHWM"), err
}

// cpu gives the time the process has spent on the processor.
func (m *mount) cpu() (time.Duration, error) { return proc.CPU(m.cmd.Process.Pid, proc.OfItself) }
