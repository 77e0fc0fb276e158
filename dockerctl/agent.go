package dockerctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// AgentOptions say how an agent runs.
type AgentOptions struct {
	Image      string
	Job        string // replicate or sync
	Key        string // file with the ssh key; may be ""
	KnownHosts string // file with the remote's host key; may be ""
}

// The labels of an agent's container.
const (
	labelVolume = "s4.agent.volume"
	labelJob    = "s4.agent.job"
)

// capabilities are what a job needs; see docs/docker.md.
var capabilities = map[string][]string{
	"replicate": {"DAC_OVERRIDE", "FOWNER"},
	"sync":      {"DAC_OVERRIDE", "FOWNER", "CHOWN", "FSETID"},
}

// StartAgent has a container look after a docker volume in which there is an s4
// volume, and tells its name. Errors: snapshot.ErrRefused where s4's driver does
// so already, or something has the container's name; fs.ErrNotExist.
func (h *Host) StartAgent(ctx context.Context, name string, o AgentOptions) (string, error) {
	if err := dockerplugin.CheckName(name); err != nil {
		return "", err
	}
	// The engine would make one that is missing.
	v, err := h.Engine.Volume(ctx, name)
	if err != nil {
		return "", err
	}
	if v.Driver == h.Driver {
		return "", fmt.Errorf("%w: s4's driver looks after docker volume %s itself", snapshot.ErrRefused, name)
	}
	container := name + "-replicator"
	if o.Job == "sync" {
		container = name + "-syncer"
	}
	spec := dockerapi.Spec{
		Image: o.Image, Args: []string{o.Job}, Dir: "/s4",
		Labels: map[string]string{labelVolume: name, labelJob: o.Job},
		Mounts: []dockerapi.SpecMount{{Type: "volume", Source: name, Target: "/s4"}},
		Caps:   capabilities[o.Job], Restart: "unless-stopped",
	}
	for _, f := range []struct{ path, target, variable string }{
		{o.Key, "/run/secrets/s4_key", "S4_PRIV_KEY_FILE"},
		{o.KnownHosts, "/run/secrets/s4_known_hosts", "S4_KNOWN_HOSTS_FILE"},
	} {
		if f.path == "" {
			continue
		}
		path, err := filepath.Abs(f.path)
		if err != nil {
			return "", err
		}
		spec.Mounts = append(spec.Mounts, dockerapi.SpecMount{Type: "bind", Source: path, Target: f.target, ReadOnly: true})
		spec.Env = append(spec.Env, f.variable+"="+f.target)
	}
	id, err := h.Engine.CreateContainer(ctx, container, spec)
	if dockerapi.Conflict(err) {
		return "", hint.With(fmt.Errorf("%w: there is a container %s", snapshot.ErrRefused, container), "end it with: s4 docker agent stop "+name)
	}
	if err != nil {
		return "", err
	}
	_, err = h.Engine.ReadFile(ctx, id, "/s4/.s4/config", 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		err = hint.With(fmt.Errorf("%w: there is no s4 volume in docker volume %s", snapshot.ErrRefused, name),
			fmt.Sprintf("docker run --rm -v %s:/s4 --workdir /s4 %s init --name %s, and then: … remote add origin URL", name, o.Image, name))
	}
	if err == nil {
		err = h.Engine.Start(ctx, id)
	}
	if err != nil {
		return "", errors.Join(err, h.Engine.RemoveContainer(context.WithoutCancel(ctx), id))
	}
	return container, nil
}

// StopAgent ends the agents of a docker volume in order, and tells which those
// were. Errors: fs.ErrNotExist where there is none.
func (h *Host) StopAgent(ctx context.Context, name string) ([]string, error) {
	agents, err := h.Engine.Containers(ctx, labelVolume+"="+name)
	if err != nil {
		return nil, err
	}
	if len(agents) == 0 {
		return nil, fmt.Errorf("no agent looks after docker volume %s: %w", name, fs.ErrNotExist)
	}
	var stopped []string
	for _, c := range agents {
		if err := h.Engine.Stop(ctx, c.ID); err != nil {
			return stopped, err
		}
		if err := h.Engine.RemoveContainer(ctx, c.ID); err != nil {
			return stopped, err
		}
		stopped = append(stopped, c.Name())
	}
	return stopped, nil
}
