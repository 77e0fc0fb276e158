package dockerapi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// tailSize is how much of an exec's output is kept: its end, which says why.
const tailSize = 4096

// ExecOptions say what runs in a container.
type ExecOptions struct {
	Args []string
	Env  []string // beside the container's own
	User string   // "" is the container's
}

// ExecResult is how it ended.
type ExecResult struct {
	ExitCode int
	Stdout   string // the last [tailSize] bytes
	Stderr   string // as well
}

// Exec runs a command in a running container and waits for it. The engine has
// no way to end it early: when ctx ends, the command runs on.
// Errors: fs.ErrNotExist; see [Conflict] for a container that does not run.
func (c *Client) Exec(ctx context.Context, id string, o ExecOptions) (r ExecResult, err error) {
	var created struct {
		ID string `json:"Id"`
	}
	err = c.do(ctx, call{op: "exec in", object: id, method: http.MethodPost, path: "/containers/" + url.PathEscape(id) + "/exec",
		body: map[string]any{"AttachStdout": true, "AttachStderr": true, "Cmd": o.Args, "Env": o.Env, "User": o.User}, into: &created})
	if err != nil {
		return r, err
	}
	path := "/exec/" + url.PathEscape(created.ID)
	resp, err := c.open(ctx, call{op: "exec in", object: id, method: http.MethodPost, path: path + "/start", body: map[string]any{"Detach": false, "Tty": false}})
	if err != nil {
		return r, err
	}
	stdout, stderr := &tail{}, &tail{}
	err = demultiplex(resp.Body, stdout, stderr)
	resp.Body.Close()
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	if err != nil {
		return r, fmt.Errorf("docker: exec in %s: %w", id, err)
	}
	var state struct {
		Running  bool
		ExitCode *int
	}
	if err := c.do(ctx, call{op: "exec in", object: id, method: http.MethodGet, path: path + "/json", into: &state}); err != nil {
		return r, err
	}
	if state.Running || state.ExitCode == nil { // its output is closed, and it lives on
		return r, fmt.Errorf("docker: exec in %s: the engine lost sight of the command", id)
	}
	return ExecResult{ExitCode: *state.ExitCode, Stdout: string(stdout.b), Stderr: string(stderr.b)}, nil
}

// demultiplex takes apart an attached stream without a terminal: before each
// piece stand eight bytes, the first of which says whose it is (1 stdout, 2
// stderr) and the last four how long, big-endian.
func demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		w := stdout
		switch head[0] {
		case 0, 1:
		case 2:
			w = stderr
		default:
			return fmt.Errorf("stream %d in the engine's answer", head[0])
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return fmt.Errorf("the engine's answer was cut off: %w", err)
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > tailSize {
		p = p[n-tailSize:]
	}
	if over := len(t.b) + len(p) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	t.b = append(t.b, p...)
	return n, nil
}
