package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"text/tabwriter"

	"github.com/s4-storage/s4/dockerctl"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/quote"
)

// dockerFlags are of the verbs for docker volumes.
type dockerFlags struct {
	Driver string `default:"s4" env:"S4_DOCKER_DRIVER" hidden:"" help:"Name of s4's volume driver."`
}

// withHost connects to the engine and the driver for the time of do.
func (f dockerFlags) withHost(do func(*dockerctl.Host) error) error {
	return withEngine(func(engine *dockerapi.Client) error { return do(dockerctl.New(engine, f.Driver)) })
}

// DockerCreateCmd is `s4 docker create`.
type DockerCreateCmd struct {
	dockerFlags
	Name   string            `arg:"" help:"Name of the docker volume."`
	Size   string            `placeholder:"SIZE" help:"How large it is at first (default: 10G); it takes of the disk what is in it."`
	Limit  string            `placeholder:"SIZE" help:"Never let it grow beyond this by itself."`
	Remote string            `placeholder:"URL" help:"Place for volumes that it is replicated to, and filled from where it is there already."`
	From   string            `placeholder:"TIME" help:"With --remote: the snapshot to fill it with (default: the newest)."`
	Label  map[string]string `placeholder:"K=V" help:"Label of the docker volume; may be repeated."`
	Option map[string]string `short:"o" placeholder:"K=V" help:"Any other option of the driver, such as history=on; may be repeated."`

	wantsContent bool // there must be something to fill it with
}

// Help is the paragraph under --help.
func (DockerCreateCmd) Help() string {
	return `Makes a docker volume of s4's volume driver. With --remote it is pushed there whenever it changes while containers use it; where the remote has a volume of that name already, it is filled from there, which goes on in the background. The same as docker volume create -d s4.

Example: s4 docker create db --size 20G --remote s4@nas:/volumes`
}

// Run does it.
func (c *DockerCreateCmd) Run(ctx context.Context, a *app) error {
	options := map[string]string{}
	maps.Copy(options, c.Option)
	from := c.From
	if from == "" && c.wantsContent {
		from = "latest" // without which an empty volume would do
	}
	for key, value := range map[string]string{"size": c.Size, "autogrow": c.Limit, "remote": c.Remote, "from": from} {
		if value != "" {
			options[key] = value
		}
	}
	return c.withHost(func(h *dockerctl.Host) error {
		if err := h.Create(ctx, c.Name, options, c.Label); err != nil {
			return err
		}
		if options["remote"] != "" {
			if err := h.WaitFilled(ctx, c.Name, a.filling()); err != nil {
				return err
			}
		}
		if a.JSON {
			return a.printJSON(struct {
				Name    string            `json:"name"`
				Options map[string]string `json:"options"`
			}{c.Name, options})
		}
		a.say("Docker volume %s is ready", c.Name)
		a.say("hint: docker run -v %s:/data …", c.Name)
		return nil
	})
}

// filling tells when a volume begins to be filled.
func (a *app) filling() func(state string) {
	told := false
	return func(state string) {
		if strings.HasPrefix(state, "filling") && !told {
			told = true
			a.say("Filling it from the remote; that goes on if this command is ended")
		}
	}
}

// DockerImportCmd is `s4 docker import`.
type DockerImportCmd struct {
	dockerFlags
	Name   string            `arg:"" help:"Docker volume of the driver local."`
	Size   string            `placeholder:"SIZE" help:"How large it is at first (default: what fits, at least 10G)."`
	Remote string            `placeholder:"URL" help:"Place for volumes that it is replicated to."`
	Option map[string]string `short:"o" placeholder:"K=V" help:"Any other option of the driver; may be repeated."`
	Yes    bool              `short:"y" help:"Delete the original, once the copy is complete and compared, without asking."`
}

// Help is the paragraph under --help.
func (DockerImportCmd) Help() string {
	return `Copies a docker volume into one of s4, compares the two to the last byte, asks, and then has the copy take the original's name and labels. Docker replaces a volume only when no container refers to it; docker compose up then makes the containers anew. Until it is confirmed the original is untouched.

Example: sudo s4 docker import shop_data --remote s4@nas:/volumes`
}

// Run does it.
func (c *DockerImportCmd) Run(ctx context.Context, a *app) error {
	options := map[string]string{}
	maps.Copy(options, c.Option)
	for key, value := range map[string]string{"size": c.Size, "remote": c.Remote} {
		if value != "" {
			options[key] = value
		}
	}
	return c.withHost(func(h *dockerctl.Host) error {
		done, err := h.Import(ctx, c.Name, dockerctl.ImportOptions{Options: options, Note: a.say, Confirm: func(ctx context.Context) (bool, error) {
			if c.Yes {
				return true, nil
			}
			answer, err := a.ask(ctx, fmt.Sprintf("The copy of %s is complete. Delete the original, and have the copy take its place? [y/N] ", c.Name))
			return err == nil && (answer == "y" || answer == "Y" || answer == "yes"), err
		}})
		switch {
		case err != nil:
			return err
		case !done:
			a.say("Docker volume %s is as it was, and its copy waits; go on with: s4 docker import --yes %s", c.Name, quote.Shell(c.Name))
		default:
			a.say("Docker volume %s is one of s4 now", c.Name)
		}
		return nil
	})
}

// DockerListCmd is `s4 docker list`.
type DockerListCmd struct{ dockerFlags }

// Run does it.
func (c *DockerListCmd) Run(ctx context.Context, a *app) error {
	return c.withHost(func(h *dockerctl.Host) error {
		list, err := h.List(ctx)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(list)
		}
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tSTATE\tSIZE\tON DISK\tSNAPSHOTS\tLAST PUSH\tREMOTE")
		for _, v := range list {
			columns := []string{v.Name}
			for _, field := range []string{"state", "size", "on_disk", "snapshots", "last_push", "remote"} {
				columns = append(columns, quote.Text(v.Text(field)))
			}
			fmt.Fprintln(w, strings.Join(columns, "\t"))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, v := range list {
			for _, field := range []string{"error", "replication", "history", "room"} {
				if text := v.Text(field); text != "-" {
					a.warn("%s: %s", v.Name, text)
				}
			}
		}
		return nil
	})
}

// DockerRestoreCmd is `s4 docker restore`.
type DockerRestoreCmd struct {
	dockerFlags
	What string `arg:"" name:"name[@time]" help:"Docker volume, and the moment to bring back (default: the newest snapshot)."`
	As   string `placeholder:"NEW" help:"Bring it back beside, as a docker volume of that name."`
}

// Help is the paragraph under --help.
func (DockerRestoreCmd) Help() string {
	return `Fills a new docker volume from the remote, and then has it change places with the volume: containers that refer to the volume find what came back. What was there before stays, under a name that is told. A volume without a remote is brought back to one of its snapshots on this host; as it was before is a snapshot then. With --as nothing changes places. Neither volume is replicated while it lies beside.

Examples:

  sudo s4 docker restore db@yesterday
  s4 docker restore db@2026-11-01 --as db-of-november`
}

// Run does it.
func (c *DockerRestoreCmd) Run(ctx context.Context, a *app) error {
	name, when, _ := strings.Cut(c.What, "@")
	return c.withHost(func(h *dockerctl.Host) error {
		r, err := h.Restore(ctx, name, dockerctl.RestoreOptions{When: when, As: c.As, Tell: a.filling()})
		if err != nil {
			return err
		}
		if a.JSON {
			out := struct {
				Name     string `json:"name"`               // of the volume that came back
				Before   string `json:"before"`             // of the one that was there
				Snapshot string `json:"snapshot,omitempty"` // or of its snapshot
			}{name, r.Beside, r.Snapshot}
			if c.As != "" {
				out.Name, out.Before = r.Beside, ""
			}
			return a.printJSON(out)
		}
		switch {
		case c.As != "":
			a.say("Docker volume %s is what came back", r.Beside)
		case r.Beside == "":
			a.say("Docker volume %s is as it was at %s; as it was before it is its snapshot %s", name, r.To, r.Snapshot)
			a.say("hint: to go back: s4 docker restore %s@%s", name, r.Snapshot)
		default:
			a.say("Docker volume %s is what came back; as it was before it is %s", name, r.Beside)
			a.say("hint: when all is well: docker volume rm %s", r.Beside)
		}
		return nil
	})
}

// DockerResizeCmd is `s4 docker resize`.
type DockerResizeCmd struct {
	dockerFlags
	Name string `arg:"" help:"Docker volume."`
	Size string `arg:"" help:"New size: 20G, +5G, max or min (and -- -5G)."`
}

// Help is the paragraph under --help.
func (DockerResizeCmd) Help() string {
	return `Changes the size of a docker volume while containers use it. It grows by itself before it is full, unless it was made with autogrow=off; the host's disk always keeps a reserve.

Example: sudo s4 docker resize db +5G`
}

// Run does it.
func (c *DockerResizeCmd) Run(ctx context.Context, a *app) error {
	return c.withHost(func(h *dockerctl.Host) error {
		v, err := h.Resize(ctx, c.Name, c.Size)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(v)
		}
		return a.print("%s: %s, %s of the host's disk\n", c.Name, v.Text("size"), v.Text("on_disk"))
	})
}

// agentFlags are of the verbs that start an agent.
type agentFlags struct {
	dockerFlags
	Name       string `arg:"" help:"Docker volume in which there is an s4 volume."`
	Image      string `placeholder:"IMAGE" default:"${agentImage}" help:"Image of the agent."`
	Key        string `placeholder:"FILE" help:"ssh key for the remote."`
	KnownHosts string `placeholder:"FILE" help:"File with the remote's host key."`
}

func (f agentFlags) run(ctx context.Context, a *app, job string) error {
	return f.withHost(func(h *dockerctl.Host) error {
		if err := needImage(ctx, h.Engine, f.Image); err != nil {
			return err
		}
		container, err := h.StartAgent(ctx, f.Name, dockerctl.AgentOptions{Image: f.Image, Job: job, Key: f.Key, KnownHosts: f.KnownHosts})
		if err != nil {
			return err
		}
		a.say("Container %s runs", container)
		a.say("hint: see: docker logs %s", container)
		return nil
	})
}

// DockerAgentReplicateCmd is `s4 docker agent replicate`.
type DockerAgentReplicateCmd struct{ agentFlags }

// Run does it.
func (c *DockerAgentReplicateCmd) Run(ctx context.Context, a *app) error {
	return c.run(ctx, a, "replicate")
}

// DockerAgentSyncCmd is `s4 docker agent sync`.
type DockerAgentSyncCmd struct{ agentFlags }

// Run does it.
func (c *DockerAgentSyncCmd) Run(ctx context.Context, a *app) error { return c.run(ctx, a, "sync") }

// DockerAgentStopCmd is `s4 docker agent stop`.
type DockerAgentStopCmd struct {
	dockerFlags
	Name string `arg:"" help:"Docker volume."`
}

// Run does it.
func (c *DockerAgentStopCmd) Run(ctx context.Context, a *app) error {
	return c.withHost(func(h *dockerctl.Host) error {
		stopped, err := h.StopAgent(ctx, c.Name)
		for _, container := range stopped {
			a.say("Container %s ended and is gone", container)
		}
		return err
	})
}
