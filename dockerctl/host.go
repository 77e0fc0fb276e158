package dockerctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Host is an engine and s4's volume driver for it.
type Host struct {
	Engine *dockerapi.Client
	Driver string // its name
	Plugin *dockerplugin.Client
}

// New makes a host of an engine and the driver of that name.
func New(engine *dockerapi.Client, driver string) *Host {
	socket := filepath.Join(filepath.Dir(dockerplugin.DefaultSocket), driver+".sock")
	return &Host{engine, driver, dockerplugin.NewClient(socket)}
}

// Create makes a docker volume of s4's driver. Errors: snapshot.ErrRefused where
// there is one of that name; snapshot.ErrUnreachable without the driver.
func (h *Host) Create(ctx context.Context, name string, options, labels map[string]string) error {
	if err := dockerplugin.CheckName(name); err != nil {
		return err
	}
	if _, err := dockerplugin.ParseOptions(options); err != nil {
		return err
	}
	switch v, err := h.Engine.Volume(ctx, name); {
	case err == nil && v.Driver == "local":
		return hint.With(fmt.Errorf("%w: docker volume %s exists", snapshot.ErrRefused, name), "make it one of s4 with: s4 docker import "+name)
	case err == nil:
		return fmt.Errorf("%w: docker volume %s exists, of driver %s", snapshot.ErrRefused, name, v.Driver)
	case !errors.Is(err, fs.ErrNotExist):
		return h.explain(err)
	}
	return h.create(ctx, name, options, labels)
}

func (h *Host) create(ctx context.Context, name string, options, labels map[string]string) error {
	_, err := h.Engine.CreateVolume(ctx, name, h.Driver, options, labels)
	return h.explain(err)
}

// explain says what to do where the engine does not know the driver.
func (h *Host) explain(err error) error {
	if err == nil || !strings.Contains(err.Error(), "plugin") || !strings.Contains(err.Error(), "not found") {
		return err
	}
	return hint.With(fmt.Errorf("%w: docker has no volume driver %s", snapshot.ErrUnreachable, h.Driver), "install it with: sudo s4 docker plugin install")
}

// poll is how often the engine is asked how far something is.
const poll = 300 * time.Millisecond

// WaitFilled waits until a volume has come from its remote, and tells how far it
// is. An error does not end the filling: the driver goes on trying.
func (h *Host) WaitFilled(ctx context.Context, name string, tell func(state string)) error {
	for {
		v, err := h.Engine.Volume(ctx, name)
		if err != nil {
			return err
		}
		state, _ := v.Status["state"].(string)
		if state == "ready" {
			return nil
		}
		if _, why, failed := strings.Cut(state, "last failed: "); failed {
			return hint.With(fmt.Errorf("docker volume %s is not filled yet: %s", name, why), "the driver goes on trying; see: docker volume inspect "+name)
		}
		tell(state)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

// Listed is a docker volume of s4's driver.
type Listed struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Status map[string]any    `json:"status"` // as the driver tells it
}

// Text is a field of the status as a person reads it.
func (l Listed) Text(field string) string {
	switch v := l.Status[field].(type) {
	case nil:
		return "-"
	case float64: // any number in JSON
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprint(v)
	}
}

// List tells about all docker volumes of s4's driver, by name.
func (h *Host) List(ctx context.Context) ([]Listed, error) {
	all, err := h.Engine.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	list := []Listed{}
	for _, v := range all {
		if v.Driver != h.Driver {
			continue
		}
		full, err := h.Engine.Volume(ctx, v.Name)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, Listed{v.Name, v.Labels, full.Status})
	}
	slices.SortFunc(list, func(a, b Listed) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// users are the names of containers that refer to a volume; with running alone,
// of those that have it mounted.
func (h *Host) users(ctx context.Context, name string, running bool) ([]string, error) {
	all, err := h.Engine.Containers(ctx)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, c := range all {
		if running && c.State != "running" && c.State != "paused" && c.State != "restarting" {
			continue
		}
		if slices.ContainsFunc(c.Mounts, func(m dockerapi.Mount) bool { return m.Type == "volume" && m.Name == name }) {
			users = append(users, c.Name())
		}
	}
	return users, nil
}

// ours is a docker volume that must be of s4's driver.
func (h *Host) ours(ctx context.Context, name string) (dockerapi.Volume, error) {
	v, err := h.Engine.Volume(ctx, name)
	if err == nil && v.Driver != h.Driver {
		err = hint.With(fmt.Errorf("%w: docker volume %s is of driver %s, not %s", snapshot.ErrRefused, name, v.Driver, h.Driver),
			"make it one of s4 with: s4 docker import "+name)
	}
	return v, err
}
