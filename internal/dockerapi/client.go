// Package dockerapi speaks the part of the Docker Engine's HTTP API that s4
// needs, over the engine's unix socket. The source is the "Docker Engine API"
// reference, version 1.41; every call here is in 1.24 to 1.51 alike, so the
// client asks the engine for its own version and uses that.
//
// The engine's Go client would do the same, but brings some thirty modules
// (telemetry, gRPC's status codes, distribution types) for a dozen calls.
//
// What an engine answers is bounded: a document by [maxBody], an exec's output
// by what the caller asks for.
package dockerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// DefaultSocket is where the engine listens.
const DefaultSocket = "/var/run/docker.sock"

// maxBody bounds a document of the engine: a host with thousands of
// containers lists them in a few megabytes.
const maxBody = 32 << 20

// Client speaks to one engine. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client

	mu      sync.Mutex
	version string // of the API, as the engine named it; "" before the first call
}

// New makes a client for the engine at host, such as unix:///run/docker.sock;
// "" takes DOCKER_HOST or else the default. Nothing is connected to yet.
// Errors: snapshot.ErrUsage for an engine that is not on a unix socket: the
// volumes of another host could not be read anyway.
func New(host string) (*Client, error) {
	if host == "" {
		host = os.Getenv("DOCKER_HOST")
	}
	if host == "" {
		host = "unix://" + DefaultSocket
	}
	socket, ok := strings.CutPrefix(host, "unix://")
	if !ok || !strings.HasPrefix(socket, "/") {
		return nil, hint.With(fmt.Errorf("%w: the engine at %q is not on a unix socket of this host", snapshot.ErrUsage, host),
			"run s4 where the engine runs, with DOCKER_HOST=unix:///PATH")
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// Socket is the path of the engine's socket.
func (c *Client) Socket() string { return c.socket }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is a call that the engine refused.
type Error struct {
	Op      string // such as "pause"
	Object  string // a container or volume; "" where the call is about none
	Status  int    // HTTP status
	Message string // the engine's, one line
}

func (e *Error) Error() string {
	what := e.Op
	if e.Object != "" {
		what += " " + e.Object
	}
	return fmt.Sprintf("docker: %s: %s", what, e.Message)
}

// Is makes what is missing fs.ErrNotExist.
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Status == http.StatusNotFound
}

// Conflict tells whether the engine refused a call because of the state its
// object is in: to pause what does not run, to remove a volume in use.
func Conflict(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusConflict
}

// call is one request and where its answer goes.
type call struct {
	op, object string
	method     string
	path       string // below the version
	query      url.Values
	body       any // sent as JSON; nil for none
	into       any // filled from JSON; nil drops the answer
}

func (c *Client) do(ctx context.Context, r call) error {
	resp, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if r.into == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(r.into)
	}
	if err != nil {
		return fmt.Errorf("docker: %s: read the engine's answer: %w", strings.TrimSpace(r.op+" "+r.object), err)
	}
	return nil
}

// open sends a request; the caller closes the body of the answer, which is a
// good one. Not modified counts as good: what was asked for is so already.
func (c *Client) open(ctx context.Context, r call) (*http.Response, error) {
	version, err := c.negotiate(ctx)
	if err != nil {
		return nil, err
	}
	return c.send(ctx, r, "/v"+version+r.path)
}

func (c *Client) send(ctx context.Context, r call, path string) (*http.Response, error) {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("docker: %s: %w", r.op, err)
		}
		body = bytes.NewReader(data)
	}
	if len(r.query) > 0 {
		path += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://docker"+path, body)
	if err != nil {
		return nil, fmt.Errorf("docker: %s: %w", r.op, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, r, err)
	}
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusNotModified {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	var answer struct{ Message string }
	if json.Unmarshal(text, &answer) != nil || answer.Message == "" {
		answer.Message = string(text)
	}
	message, _, _ := strings.Cut(strings.TrimSpace(answer.Message), "\n")
	if message == "" {
		message = resp.Status
	}
	return nil, &Error{Op: r.op, Object: r.object, Status: resp.StatusCode, Message: message}
}

func (c *Client) explain(ctx context.Context, r call, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ue, ok := errors.AsType[*url.Error](err); ok { // which repeats the address
		err = ue.Err
	}
	err = fmt.Errorf("%w: docker: %s: %w", snapshot.ErrUnreachable, r.op, err)
	if errors.Is(err, fs.ErrPermission) {
		return hint.With(err, "the socket "+c.socket+" is root's and the group docker's; run s4 as one of them")
	}
	return hint.With(err, "is the engine running, and is this its socket: "+c.socket+"? DOCKER_HOST names another")
}

// negotiate asks the engine once for the version of its API.
func (c *Client) negotiate(ctx context.Context) (string, error) {
	c.mu.Lock()
	version := c.version
	c.mu.Unlock()
	if version != "" {
		return version, nil
	}
	r := call{op: "ping", method: http.MethodGet}
	resp, err := c.send(ctx, r, "/_ping")
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	version = resp.Header.Get("Api-Version")
	if version == "" || len(version) > 10 || strings.Trim(version, "0123456789.") != "" {
		return "", fmt.Errorf("docker: ping: %s gave no version of its API; is it a Docker engine?", c.socket)
	}
	c.mu.Lock()
	c.version = version
	c.mu.Unlock()
	return version, nil
}
