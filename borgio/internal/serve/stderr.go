package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// stderrTail keeps the last lines of what a remote says beside the protocol,
// and passes them to the log.
type stderrTail struct {
	log *slog.Logger

	mu    sync.Mutex
	part  []byte
	lines []string
}

const (
	stderrLines    = 8
	stderrLineSize = 8 << 10
)

// Write is [io.Writer]; lines end in \n or \r.
func (t *stderrTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\n\r")
		more := p
		if i >= 0 {
			more = p[:i]
		}
		t.part = append(t.part, more[:min(len(more), stderrLineSize-len(t.part))]...)
		if i < 0 {
			break
		}
		t.line(string(t.part))
		t.part, p = t.part[:0], p[i+1:]
	}
	return n, nil
}

func (t *stderrTail) line(s string) {
	if s = plainLine(s); s == "" {
		return
	}
	t.log.Debug("remote says", "line", s)
	if len(t.lines) == stderrLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, s)
}

// plainLine takes the message out of borg serve's log format.
func plainLine(s string) string {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "{") {
		var doc struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		}
		if json.Unmarshal([]byte(s), &doc) == nil && doc.Type != "" {
			if doc.Type != "log_message" {
				return "" // progress
			}
			return doc.Message
		}
	}
	if rest, ok := strings.CutPrefix(s, "$LOG "); ok {
		if _, text, ok := strings.Cut(rest, " Remote: "); ok {
			return text
		}
	}
	return s
}

// String joins the lines kept.
func (t *stderrTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if len(t.part) > 0 {
		lines = append(lines[:len(lines):len(lines)], string(t.part))
	}
	return strings.Join(lines, "; ")
}

// borgVersion finds what a server that dies of what it does not understand says
// of itself: at the end of a traceback, or instead of one.
var borgVersion = regexp.MustCompile(`Borg:? (\d+)\.(\d+)\S*(?:  Python: |: Got unexpected RPC data format)`)

// explainExit tells from a program's exit and its words why it cannot be
// spoken to any more.
func explainExit(exit, cause error, said string) error {
	code := -1
	if e, ok := errors.AsType[*exec.ExitError](exit); ok {
		code = e.ExitCode()
	}
	kind := fault.ErrUnreachable
	switch {
	case strings.Contains(said, "Host key verification failed"), strings.Contains(said, "REMOTE HOST IDENTIFICATION HAS CHANGED"):
		kind = fault.ErrHostKey
	case code == 127, strings.Contains(said, "command not found"):
		kind = fault.ErrNoBorg
	case strings.Contains(said, "Unexpected RPC data format"):
		return otherBorg("1.0")
	}
	if m := borgVersion.FindStringSubmatch(said); m != nil && (m[1] != "1" || m[2] == "0") {
		return otherBorg(m[1] + "." + m[2])
	}
	switch said = fault.OneLine(said); {
	case said != "":
		return fmt.Errorf("%w: %s", kind, said)
	case errors.Is(cause, io.EOF) && exit != nil:
		return fmt.Errorf("%w: connection ended: %w", kind, exit)
	case errors.Is(cause, io.EOF):
		return fmt.Errorf("%w: connection ended", kind)
	}
	return fmt.Errorf("%w: %w", kind, cause)
}

// isSecret reports whether an environment entry must not reach a child.
func isSecret(entry string) bool {
	name, _, _ := strings.Cut(entry, "=")
	return strings.HasPrefix(name, "BORG_") && strings.Contains(name, "PASS")
}
