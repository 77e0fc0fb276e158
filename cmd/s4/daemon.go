package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/hint"
)

// readyFD names the descriptor on which a process that is to become a daemon
// tells its parent how the start went.
const readyFD = "S4_READY_FD"

// started is what the daemon writes there; nothing more means it died.
type started struct {
	Ready bool   `json:"ready"`
	Code  int    `json:"code"`
	Error string `json:"error"`
	Hint  string `json:"hint"`
}

// startDaemon runs the same command line again and returns when that process
// serves, or with its error. Until then it has our terminal, to ask and to
// show progress.
func (a *app) startDaemon(ctx context.Context) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), readyFD+"=3")
	cmd.ExtraFiles = []*os.File{write}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	err = cmd.Start()
	write.Close()
	if err != nil {
		return err
	}
	data, err := io.ReadAll(read)
	var s started
	if json.Unmarshal(data, &s) == nil && s.Ready {
		return cmd.Process.Release()
	}
	errWait := cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.Error == "" {
		return fmt.Errorf("the mount's process died: %w", errors.Join(err, errWait))
	}
	return hint.With(&reported{s.Error, s.Code}, s.Hint)
}

// reported is an error that another process of ours had.
type reported struct {
	text string
	code int
}

func (e *reported) Error() string { return e.text }

// reportStart tells the parent that the start failed, if there is one to tell.
func reportStart(err error) bool {
	w, ok := readyPipe()
	if !ok {
		return false
	}
	defer w.Close()
	return json.NewEncoder(w).Encode(started{Code: exitCode(err), Error: errorText(err), Hint: hint.Of(err)}) == nil
}

func readyPipe() (*os.File, bool) {
	fd, err := strconv.Atoi(os.Getenv(readyFD))
	if err != nil {
		return nil, false
	}
	_ = os.Unsetenv(readyFD)
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "ready"), true
}

func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return log, nil
}

// becomeDaemon leaves the terminal, sends what is logged to log, and tells
// the parent that all is well.
func becomeDaemon(log *os.File) error {
	w, ok := readyPipe()
	if !ok {
		return errors.New("no parent to report to")
	}
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	// A session of our own: the terminal's signals do not reach it. It fails
	// only for a process that leads one already.
	_, _ = unix.Setsid()
	for fd, f := range []*os.File{null, null, log} {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil {
			return fmt.Errorf("leave terminal: %w", err)
		}
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(started{Ready: true})
}
