package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/e2e/bench/sshd"
)

// bench is one run: its directory and the tools in it.
type bench struct {
	options
	dir       string
	temporary bool // dir is removed at the end
	tools     []*tool
	missing   []*tool  // not installed
	env       []string // of every command
	log       io.Writer
	stamp     stamp
	server    *sshd.Server      // nil before it is needed
	failed    map[string]string // why something could not be prepared, by what
}

// newBench finds the tools and makes the directory.
func newBench(o options, log io.Writer) (*bench, error) {
	b := &bench{options: o, log: log, failed: map[string]string{}}
	var err error
	if b.tools, b.missing, err = findTools(o.S4, o.Tools); err != nil {
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
	if b.server != nil {
		b.server.Stop()
	}
	if b.temporary {
		return os.RemoveAll(b.dir)
	}
	return nil
}

// drop leaves a peer out of the rest of the run.
func (b *bench) drop(t *tool, err error) {
	b.say("%s is left out: %v", t.name, err)
	b.failed[t.name] = err.Error()
	b.tools = slices.DeleteFunc(b.tools, func(x *tool) bool { return x == t })
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
		// Repositories are read locally and through ssh in turn.
		"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes", "BORG_PASSPHRASE=bench",
		"RESTIC_CACHE_DIR="+in("restic"), "RESTIC_PASSWORD=bench",
		"KOPIA_PASSWORD=bench", "KOPIA_LOG_DIR="+in("kopia-log"), "KOPIA_CHECK_FOR_UPDATES=false",
	)
}

// run runs a tool's command in a directory and gives its output.
func (b *bench) run(ctx context.Context, t *tool, dir string, args ...string) ([]byte, error) {
	out, _, err := b.output(ctx, t.command(dir, args...))
	return out, err
}

// command is one of the tool's; dir "" is the bench's directory.
func (t *tool) command(dir string, args ...string) command {
	return command{name: t.name + " " + args[0], argv: append([]string{t.program}, args...), dir: dir}
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
