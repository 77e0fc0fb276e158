// Package borgcmd runs the borg program, which s4 needs only to write:
// creating repositories and archives, deleting, compacting, checking. What
// borg prints is read as its JSON log (documented in borg's manual under
// "Frontends"), so that callers hear progress, warnings and typed errors and
// never see borg's own text.
package borgcmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Runner starts borg.
type Runner struct {
	Dir        string   // working directory; "" is the process's own
	Env        []string // whole environment; see [os/exec.Cmd.Env]
	Passphrase []byte   // handed over through a pipe when not nil, never through the environment
	Logger     *slog.Logger
}

// Progress is what `borg create` has done so far.
type Progress struct {
	Files    int64  // regular files looked at
	Original int64  // bytes they hold
	New      int64  // bytes added to the repository after compression
	Path     string // the one it is at
}

// Events receives what borg reports while it runs. Each may be nil.
type Events struct {
	Progress func(Progress)
	Warning  func(message string) // one line about one path, mostly
}

// Error is a run of borg that failed.
type Error struct {
	Command string // such as "create"
	Code    int    // exit code; 2 is borg's own error, 128+N a signal
	ID      string // borg's name for what went wrong, such as "LockTimeout"; "" when it gave none
	Message string // one line
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("borg %s failed with exit code %d", e.Command, e.Code)
	}
	return fmt.Sprintf("borg %s: %s", e.Command, e.Message)
}

// ErrMissing says that there is no borg program on this machine.
var ErrMissing = errors.New("the borg program is not installed")

// stopGrace is how long borg may take to leave the repository in order after
// it was told to stop.
const stopGrace = 30 * time.Second

// Run starts `borg ARGS` and waits for it; stdout is returned. When ctx ends,
// borg is asked to stop and given time to release its locks. It never
// outlives the calling process, even when that is killed.
//
// Errors: *Error; ErrMissing; ctx's.
func (r *Runner) Run(ctx context.Context, events Events, args ...string) ([]byte, error) {
	program, err := exec.LookPath("borg")
	if err != nil {
		return nil, ErrMissing
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--log-json"}, args...)...)
	cmd.Dir = r.Dir
	cmd.Env = append(r.Env, "LC_ALL=C.UTF-8", "PYTHONUNBUFFERED=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("run borg: %w", err)
	}
	if r.Passphrase != nil {
		pipe, err := passphrasePipe(r.Passphrase)
		if err != nil {
			return nil, fmt.Errorf("run borg: %w", err)
		}
		defer pipe.Close()
		cmd.ExtraFiles = []*os.File{pipe} // descriptor 3
		cmd.Env = append(cmd.Env, "BORG_PASSPHRASE_FD=3")
	}
	r.log().Debug("run borg", "args", args)

	failure := &Error{}
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			failure.Command = a
			break
		}
	}
	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run borg: %w", err)
	}
	r.readLog(stderr, events, failure)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		failure.Code = exit.ExitCode()
		if failure.Code == 1 { // warnings, and each was reported
			return stdout.Bytes(), nil
		}
		return nil, failure
	}
	if err != nil {
		return nil, fmt.Errorf("run borg: %w", err)
	}
	return stdout.Bytes(), nil
}

// passphrasePipe is a pipe that already holds the passphrase.
func passphrasePipe(passphrase []byte) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	if len(passphrase) > 60<<10 { // must fit the pipe's buffer
		read.Close()
		return nil, errors.New("passphrase is too long")
	}
	if _, err := write.Write(append(passphrase, '\n')); err != nil {
		read.Close()
		return nil, err
	}
	return read, nil
}

// message is one line of borg's JSON log.
type message struct {
	Type     string  `json:"type"`
	Level    string  `json:"levelname"`
	Message  string  `json:"message"`
	ID       string  `json:"msgid"`
	Finished bool    `json:"finished"`
	Files    int64   `json:"nfiles"`
	Original int64   `json:"original_size"`
	New      int64   `json:"deduplicated_size"`
	Path     string  `json:"path"`
	Time     float64 `json:"time"`
}

func (r *Runner) readLog(stderr io.Reader, events Events, failure *Error) {
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		if text := strings.TrimSpace(line); text != "" {
			r.logLine(text, events, failure)
		}
		if err != nil {
			return
		}
	}
}

func (r *Runner) logLine(text string, events Events, failure *Error) {
	var m message
	if json.Unmarshal([]byte(text), &m) != nil {
		// A traceback, or what ssh says when it cannot connect: the last
		// line is the telling one.
		r.log().Debug("borg", "stderr", text)
		if failure.ID == "" {
			failure.Message = text
		}
		return
	}
	switch m.Type {
	case "archive_progress":
		if events.Progress != nil && !m.Finished {
			events.Progress(Progress{m.Files, m.Original, m.New, m.Path})
		}
	case "log_message":
		text := tellingLine(m.Message)
		r.log().Debug("borg", "level", m.Level, "message", m.Message, "id", m.ID)
		switch m.Level {
		case "WARNING":
			if events.Warning != nil {
				events.Warning(text)
			}
		case "ERROR", "CRITICAL":
			failure.Message = text
			if m.ID != "" {
				failure.ID = m.ID
			}
		}
	}
}

// tellingLine is the line that says what is wrong: the first, or in one of
// Python's tracebacks the exception's, which stands at the margin.
func tellingLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if strings.HasPrefix(lines[0], "Traceback") || strings.HasPrefix(lines[0], "Local Exception") {
		for _, line := range lines {
			name, _, found := strings.Cut(line, ": ")
			if found && (strings.HasSuffix(name, "Error") || strings.HasSuffix(name, "Exception")) && !strings.Contains(name, " ") {
				return line
			}
		}
	}
	return lines[0]
}

func (r *Runner) log() *slog.Logger {
	if r.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Logger
}
