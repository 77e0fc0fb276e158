package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is one run: its directory and the tools in it.
type bench struct {
	options
	dir       string
	temporary bool // dir is removed at the end
	tools     []*tool
	env       []string // of every command
	log       io.Writer
	stamp     stamp
}

// newBench finds the tools and makes the directory.
func newBench(o options, log io.Writer) (*bench, error) {
	b := &bench{options: o, log: log}
	var err error
	if b.tools, err = findTools(o.S4, o.Tools); err != nil {
		return nil, err
	}
	if o.Dir == "" {
		// Not the default for temporary files, which often is in memory.
		b.temporary = true
		b.dir, err = os.MkdirTemp("/var/tmp", "s4-bench-")
	} else {
		if b.dir, err = filepath.Abs(o.Dir); err == nil {
			err = os.MkdirAll(b.dir, 0o755)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := b.takeOver(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.env = b.environment()
	return b, nil
}

// close removes what is not to stay.
func (b *bench) close() error {
	if b.temporary {
		return os.RemoveAll(b.dir)
	}
	return nil
}

// tool gives the one with that name, nil if it is not measured.
func (b *bench) tool(name string) *tool {
	for _, t := range b.tools {
		if t.name == name {
			return t
		}
	}
	return nil
}

// environment keeps every tool's own files inside the bench's directory and
// the caller's settings out.
func (b *bench) environment() []string {
	home := filepath.Join(b.dir, "home")
	in := func(name string) string { return filepath.Join(home, name) }
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch prefix, _, _ := strings.Cut(name, "_"); prefix {
		case "BORG", "RESTIC", "KOPIA", "XDG", "S4", "BENCH", "GODEBUG":
		default:
			env = append(env, v)
		}
	}
	return append(env,
		"HOME="+home, "TZ=UTC", "LC_ALL=C.UTF-8",
		"XDG_CACHE_HOME="+in("cache"), "XDG_CONFIG_HOME="+in("config"), "XDG_STATE_HOME="+in("state"),
		"BORG_BASE_DIR="+in("borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
		"RESTIC_CACHE_DIR="+in("restic"), "RESTIC_PASSWORD=bench",
		"KOPIA_PASSWORD=bench", "KOPIA_LOG_DIR="+in("kopia-log"), "KOPIA_CHECK_FOR_UPDATES=false",
	)
}

// run runs a tool's command in a directory and gives its output.
func (b *bench) run(ctx context.Context, t *tool, dir string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := b.stream(ctx, t, dir, args, func(r io.Reader) error {
		_, err := io.Copy(&out, r)
		return err
	})
	return out.Bytes(), err
}

// stream runs a tool's command and hands its output to read.
func (b *bench) stream(ctx context.Context, t *tool, dir string, args []string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, b.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.program, args...)
	cmd.Dir, cmd.Env = dir, b.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours alone
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	errRead := read(out)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", t.name, args[0], err, tail(stderr.String()))
	}
	return errRead
}

// tail is the end of what a program said.
func tail(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-500):]
}

// say tells whoever waits what is going on.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%s  "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
