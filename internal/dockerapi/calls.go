package dockerapi

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Version is what the engine says of itself.
type Version struct {
	Version    string // of the engine
	APIVersion string `json:"ApiVersion"`
}

// Mount is what a container has mounted.
type Mount struct {
	Type        string // "volume", "bind", "tmpfs", …
	Name        string // of a volume
	Source      string // on the host
	Destination string // in the container
	Driver      string
	RW          bool
}

// Container is a container as the engine lists it.
type Container struct {
	ID      string   `json:"Id"`
	Names   []string // each with a slash before it
	Image   string
	Labels  map[string]string
	State   string // "created", "running", "paused", "restarting", "exited", "dead"
	Created int64  // seconds since 1970
	Mounts  []Mount
}

// Name is the container's own name.
func (c Container) Name() string {
	for _, n := range c.Names { // a link's name has a second slash
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return c.ID
}

// State is what a container is doing.
type State struct {
	Status                      string
	Running, Paused, Restarting bool // what is paused counts as running, too
	ExitCode                    int
	Health                      *Health // nil without a health check
}

// Health is the result of a container's health check.
type Health struct{ Status string } // "starting", "healthy", "unhealthy"

// Details are what the engine tells of one container.
type Details struct {
	ID     string `json:"Id"`
	Name   string // with a slash before it
	State  State
	Config struct {
		Labels map[string]string
		Env    []string
		User   string
	}
	Mounts []Mount
}

// Volume is a docker volume.
type Volume struct {
	Name       string
	Driver     string
	Mountpoint string // on the host; may be empty while it is not mounted
	Labels     map[string]string
	Options    map[string]string
	CreatedAt  string
	Status     map[string]any // what the driver says of it; only of one that is inspected
}

// Version asks the engine what it is.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	err = c.do(ctx, call{op: "version", method: http.MethodGet, path: "/version", into: &v})
	return v, err
}

// filters are the engine's: for each name the values, all of which must fit.
func filters(name string, values []string) url.Values {
	if len(values) == 0 {
		return url.Values{}
	}
	text, _ := json.Marshal(map[string][]string{name: values}) // of strings only
	return url.Values{"filters": {string(text)}}
}

// Containers lists those with all the labels (KEY or KEY=VALUE), in whatever
// state they are.
func (c *Client) Containers(ctx context.Context, labels ...string) (list []Container, err error) {
	query := filters("label", labels)
	query.Set("all", "1")
	err = c.do(ctx, call{op: "list containers", method: http.MethodGet, path: "/containers/json", query: query, into: &list})
	return list, err
}

// Inspect tells about one container. Errors: fs.ErrNotExist.
func (c *Client) Inspect(ctx context.Context, id string) (d Details, err error) {
	err = c.do(ctx, call{op: "inspect", object: id, method: http.MethodGet, path: "/containers/" + url.PathEscape(id) + "/json", into: &d})
	d.Name = strings.TrimPrefix(d.Name, "/")
	return d, err
}

// HasImage fails where the engine would have to pull the image. Errors:
// fs.ErrNotExist.
func (c *Client) HasImage(ctx context.Context, image string) error {
	return c.do(ctx, call{op: "inspect image", object: image, method: http.MethodGet, path: "/images/" + image + "/json"})
}

func (c *Client) control(ctx context.Context, op, id string) error {
	return c.do(ctx, call{op: op, object: id, method: http.MethodPost, path: "/containers/" + url.PathEscape(id) + "/" + op})
}

// Pause freezes a container's processes. Errors: see [Conflict]; fs.ErrNotExist.
func (c *Client) Pause(ctx context.Context, id string) error { return c.control(ctx, "pause", id) }

// Unpause lets them go on. Errors: see [Conflict]; fs.ErrNotExist.
func (c *Client) Unpause(ctx context.Context, id string) error { return c.control(ctx, "unpause", id) }

// Stop ends a container as `docker stop` does: by its own signal and within
// its own time. One that does not run is left alone. Errors: fs.ErrNotExist.
func (c *Client) Stop(ctx context.Context, id string) error { return c.control(ctx, "stop", id) }

// Start starts a container. One that runs is left alone. Errors: fs.ErrNotExist.
func (c *Client) Start(ctx context.Context, id string) error { return c.control(ctx, "start", id) }

// Volumes lists the docker volumes with all the labels (KEY or KEY=VALUE).
func (c *Client) Volumes(ctx context.Context, labels ...string) ([]Volume, error) {
	var answer struct{ Volumes []Volume }
	err := c.do(ctx, call{op: "list volumes", method: http.MethodGet, path: "/volumes", query: filters("label", labels), into: &answer})
	return answer.Volumes, err
}

// Volume tells about one docker volume. Errors: fs.ErrNotExist.
func (c *Client) Volume(ctx context.Context, name string) (v Volume, err error) {
	err = c.do(ctx, call{op: "inspect volume", object: name, method: http.MethodGet, path: "/volumes/" + url.PathEscape(name), into: &v})
	return v, err
}

// CreateVolume makes a docker volume, or finds it as it is.
func (c *Client) CreateVolume(ctx context.Context, name, driver string, options, labels map[string]string) (v Volume, err error) {
	body := map[string]any{"Name": name, "Driver": driver, "DriverOpts": options, "Labels": labels}
	err = c.do(ctx, call{op: "create volume", object: name, method: http.MethodPost, path: "/volumes/create", body: body, into: &v})
	return v, err
}

// RemoveVolume deletes a docker volume. Errors: fs.ErrNotExist; see [Conflict]
// for one in use.
func (c *Client) RemoveVolume(ctx context.Context, name string) error {
	return c.do(ctx, call{op: "remove volume", object: name, method: http.MethodDelete, path: "/volumes/" + url.PathEscape(name)})
}

// Event is something that happened to an object of the engine.
type Event struct {
	Type   string // "container", "volume", …
	Action string // "start", "die", "destroy", …
	Actor  struct {
		ID         string
		Attributes map[string]string // a container's labels and name
	}
	TimeNano int64 `json:"timeNano"`
}

// Events calls each for what happens to containers from now on, until it
// returns an error, ctx ends, or the engine does.
func (c *Client) Events(ctx context.Context, each func(Event) error) error {
	resp, err := c.open(ctx, call{op: "events", method: http.MethodGet, path: "/events", query: filters("type", []string{"container"})})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	bounded := &io.LimitedReader{R: resp.Body}
	d := json.NewDecoder(bounded)
	for {
		bounded.N = maxBody // for each event
		var e Event
		if err := d.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("docker: events: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

// ReadFile reads a regular file of a container, running or not, through what
// is mounted there. It may have at most limit bytes. Errors: fs.ErrNotExist.
func (c *Client) ReadFile(ctx context.Context, id, path string, limit int64) ([]byte, error) {
	resp, err := c.open(ctx, call{op: "read " + path + " of", object: id, method: http.MethodGet,
		path: "/containers/" + url.PathEscape(id) + "/archive", query: url.Values{"path": {path}}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("docker: read %s of %s: %w", path, id, err)
	}
	t := tar.NewReader(resp.Body)
	h, err := t.Next()
	switch {
	case err != nil:
		return fail(err)
	case h.Typeflag != tar.TypeReg:
		return fail(fmt.Errorf("not a regular file: %w", fs.ErrInvalid))
	case h.Size > limit:
		return fail(fmt.Errorf("it has %d bytes, more than %d", h.Size, limit))
	}
	data, err := io.ReadAll(t)
	if err != nil {
		return fail(err)
	}
	return data, nil
}

// WaitHealthy waits until a container's health check is content, or there is
// none, or it stopped, or limit is over; it tells whether it is content.
func (c *Client) WaitHealthy(ctx context.Context, id string, limit time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := c.Inspect(ctx, id)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		case !d.State.Running:
			return false, nil
		case d.State.Health == nil || d.State.Health.Status == "healthy":
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}
