package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/quote"
)

// DockerCmd is `s4 docker`.
type DockerCmd struct {
	Create  DockerCreateCmd  `cmd:"" help:"Make a docker volume that backs itself up."`
	Import  DockerImportCmd  `cmd:"" help:"Make a docker volume that is there one of s4."`
	List    DockerListCmd    `cmd:"" help:"List the docker volumes of s4."`
	Restore DockerRestoreCmd `cmd:"" help:"Bring a docker volume back from its remote, or from its snapshots."`
	Resize  DockerResizeCmd  `cmd:"" help:"Change the size of a docker volume while it is used."`
	Add     DockerAddCmd     `cmd:"" help:"Add backups to a compose project."`
	Status  DockerStatusCmd  `cmd:"" help:"Show the last good backups of docker volumes."`
	Doctor  DockerDoctorCmd  `cmd:"" help:"Look at everything that the backups depend on."`
	Plugin  DockerPluginCmd  `cmd:"" help:"The volume driver for docker."`
	Agent   DockerAgentCmd   `cmd:"" help:"Containers that look after docker volumes."`
}

// withEngine connects to the docker engine for the time of do.
func withEngine(do func(*dockerapi.Client) error) error {
	engine, err := dockerapi.New("")
	if err != nil {
		return err
	}
	defer engine.Close()
	return do(engine)
}

// needImage fails early where an image is missing that no registry can have, as
// its name names none.
func needImage(ctx context.Context, engine *dockerapi.Client, image string) error {
	err := engine.HasImage(ctx, image)
	if !errors.Is(err, fs.ErrNotExist) || strings.Contains(image, "/") {
		return nil // whatever else is wrong shows when it is used
	}
	return hint.With(err, "in s4's own directory: make build && docker build -f docker/agent/Dockerfile -t "+quote.Shell(image)+" .")
}

// projectFlags choose a compose project.
type projectFlags struct {
	Project string `short:"p" placeholder:"NAME" help:"Compose project (default: that of the directory; all where there is no compose file)."`
}

// project is the one that is meant, "" for all.
func (f projectFlags) project(ctx context.Context, a *app, engine *dockerapi.Client) (string, error) {
	self := dockeragent.Self()
	switch {
	case f.Project != "":
		return f.Project, nil
	case self != "": // as for the health check of an agent
		return dockeragent.ProjectOf(ctx, engine, self)
	}
	name, err := dockeragent.Project(ctx, a.here())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return name, err
}

// DockerAgentCmd is `s4 docker agent`.
type DockerAgentCmd struct {
	Replicate DockerAgentReplicateCmd `cmd:"" help:"Have a container push a docker volume whenever it changes."`
	Sync      DockerAgentSyncCmd      `cmd:"" help:"Have a container keep a docker volume in step with its remote."`
	Stop      DockerAgentStopCmd      `cmd:"" help:"End that."`
	Run       DockerAgentRunCmd       `cmd:"" help:"Do the backups of a compose project; its agent service runs this."`
}

// DockerAgentRunCmd is `s4 docker agent run`.
type DockerAgentRunCmd struct {
	Project string `short:"p" placeholder:"NAME" help:"Compose project (default: that of the container this runs in)."`
	State   string `env:"S4_AGENT_DIR" placeholder:"DIR" default:"${agentDir}" help:"Where the agent keeps what it has held and done."`
	Remote  string `env:"S4_REMOTE" placeholder:"URL" help:"Place for volumes whose labels name none."`
	Once    bool   `help:"Back up every volume now, and end."`
}

// Help is the paragraph under --help.
func (DockerAgentRunCmd) Help() string {
	return `Backs up the docker volumes of a compose project as the labels s4.* of its services say. Services are paused or stopped only as their labels say, for five minutes at the most, and what was running before runs again however it ends. At its start it first brings back what a crash has left down.

Example: s4 docker agent run --project shop --remote s4@nas:/volumes`
}

// Run does it.
func (c *DockerAgentRunCmd) Run(ctx context.Context, a *app) error {
	return withEngine(func(engine *dockerapi.Client) (err error) {
		agent, err := dockeragent.New(ctx, dockeragent.Config{
			Engine: engine, Project: c.Project, Self: dockeragent.Self(), Dir: c.State,
			Backup: newDockerBackup(a), Defaults: dockeragent.Defaults{Remote: c.Remote},
			Log: newLogger(os.Stderr, max(a.Verbose, 1)),
		})
		if err != nil {
			return err
		}
		defer agent.Close() //nolint:errcheck // a lock ends with the process anyway
		if c.Once {
			return agent.Once(ctx)
		}
		return agent.Run(ctx)
	})
}
