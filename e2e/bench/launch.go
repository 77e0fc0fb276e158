package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// spent is what a command took from its start to its end.
type spent struct {
	Wall float64 `json:"wall"` // s
	CPU  float64 `json:"cpu"`  // s, user and kernel, with its children's
	Peak float64 `json:"peak"` // MiB resident at most, of the largest of them
}

// command is one to be timed.
type command struct {
	name string // in messages
	argv []string
	dir  string   // "" is the bench's
	env  []string // added to the bench's
}

// launchWord as the first argument makes the bench a launcher. The kernel
// counts the memory of whoever started a process as that process's own, until
// it has loaded its program, so a small process has to start what is measured.
const launchWord = "launch"

// launch runs a command and writes what it took to file descriptor 3.
func launch(argv []string) error {
	if len(argv) == 0 {
		return errors.New("launch: no command")
	}
	report := os.NewFile(3, "report")
	if report == nil {
		return errors.New("launch: nobody to report to")
	}
	defer report.Close()
	syscall.CloseOnExec(3)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the whole process group is killed from outside
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if cmd.ProcessState == nil {
		return err
	}
	u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("launch: no resource usage")
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil {
		return err // with its exit code, which is all that counts then
	}
	return json.NewEncoder(report).Encode(spent{wall.Seconds(), cpu.Seconds(), float64(u.Maxrss) / (1 << 10)})
}

// timed runs a command, hands its output to read, and gives what it took.
func (b *bench) timed(ctx context.Context, c command, read func(io.Reader) error) (s spent, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append([]string{launchWord}, c.argv...)...)
	cmd.Dir = c.dir
	if c.dir == "" {
		cmd.Dir = b.dir
	}
	cmd.Env = append(append([]string{}, b.env...), c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours alone
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return s, err
	}
	report, w, err := os.Pipe()
	if err != nil {
		return s, err
	}
	defer report.Close()
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return s, err
	}
	errRead := read(out)
	if errRead != nil {
		cancel()
	}
	if err := errors.Join(errRead, cmd.Wait()); err != nil {
		return s, fmt.Errorf("%s: %w: %s", c.name, err, tail(stderr.String()))
	}
	if err := json.NewDecoder(report).Decode(&s); err != nil {
		return s, fmt.Errorf("%s: no report of what it took: %w", c.name, err)
	}
	return s, nil
}

// output is timed for a command that says little.
func (b *bench) output(ctx context.Context, c command) (out []byte, s spent, err error) {
	s, err = b.timed(ctx, c, func(r io.Reader) (err error) {
		out, err = io.ReadAll(r)
		return err
	})
	return out, s, err
}

// record keeps what a command took as three measures: the time under the key
// itself, processor time and memory beside it.
func (s *session) record(key string, took spent) {
	s.samples[key] = took.Wall
	s.recordUse(key, took)
}

func (s *session) recordUse(key string, took spent) {
	s.samples[key+"CPU"] = took.CPU
	s.samples[key+"Peak"] = took.Peak
}
