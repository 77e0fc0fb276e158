package dockerapi

import (
	"context"
	"net/http"
	"net/url"
)

// Spec describes a container that is to be made. It gets no privileges but the
// capabilities that are listed.
type Spec struct {
	Image   string
	Args    []string // of the image's entry point
	Dir     string   // to work in
	Env     []string
	Labels  map[string]string
	Mounts  []SpecMount
	Caps    []string
	Restart string // such as "unless-stopped"
}

// SpecMount is what a container gets mounted.
type SpecMount struct {
	Type     string // "volume" or "bind"
	Source   string // a volume's name, or a path of the host
	Target   string
	ReadOnly bool
}

// CreateContainer makes a container, which does not run yet, and gives its ID.
// Errors: see [Conflict] for a name that is taken; fs.ErrNotExist for an image.
func (c *Client) CreateContainer(ctx context.Context, name string, s Spec) (id string, err error) {
	body := map[string]any{
		"Image": s.Image, "Cmd": s.Args, "WorkingDir": s.Dir, "Env": s.Env, "Labels": s.Labels,
		"HostConfig": map[string]any{
			"Mounts": s.Mounts, "CapDrop": []string{"ALL"}, "CapAdd": s.Caps,
			"SecurityOpt": []string{"no-new-privileges"}, "RestartPolicy": map[string]string{"Name": s.Restart},
		},
	}
	var answer struct {
		ID string `json:"Id"`
	}
	err = c.do(ctx, call{op: "create container", object: name, method: http.MethodPost, path: "/containers/create",
		query: url.Values{"name": {name}}, body: body, into: &answer})
	return answer.ID, err
}

// RemoveContainer deletes a container; one that runs is killed. Errors:
// fs.ErrNotExist.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	return c.do(ctx, call{op: "remove container", object: id, method: http.MethodDelete,
		path: "/containers/" + url.PathEscape(id), query: url.Values{"force": {"1"}}})
}
