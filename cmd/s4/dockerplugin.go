package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/dockervol"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/systemd"
)

// DockerPluginCmd is `s4 docker plugin`.
type DockerPluginCmd struct {
	Serve     DockerPluginServeCmd     `cmd:"" help:"Serve docker's volumes; systemd runs this."`
	Install   DockerPluginInstallCmd   `cmd:"" help:"Have systemd serve docker's volumes, from now on and at boot."`
	Uninstall DockerPluginUninstallCmd `cmd:"" help:"Undo that."`
}

// DockerPluginServeCmd is `s4 docker plugin serve`.
type DockerPluginServeCmd struct {
	Socket      string `default:"/run/docker/plugins/s4.sock" placeholder:"FILE" help:"Socket that docker calls, unless systemd passes one; the driver's name is that of the file (default: ${default})."`
	State       string `placeholder:"DIR" help:"Where the volumes are (default: docker in $$S4_LOOP_DEV_PATH, or in /var/lib/s4)."`
	KeepRemoved int    `default:"7" placeholder:"DAYS" help:"How long a removed volume can be taken back from the trash; 0 keeps none (default: ${default})."`
}

// Help is the paragraph under --help.
func (DockerPluginServeCmd) Help() string {
	return `Serves the volume driver for docker until it is told to end. Volumes that containers use stay mounted then; the next start carries on with them.

Example: s4 docker plugin serve`
}

// Run does it.
func (c *DockerPluginServeCmd) Run(ctx context.Context, a *app) error {
	if c.KeepRemoved < 0 {
		return usage("--keep-removed is a number of days")
	}
	backend, err := a.dockerVolumes()
	if err != nil {
		return err
	}
	defer backend.Close()
	keep := time.Duration(c.KeepRemoved) * 24 * time.Hour
	if keep == 0 {
		keep = -1
	}
	driver, err := dockerplugin.Open(dockerplugin.Config{Dir: c.state(), Keep: keep, Log: a.log}, backend)
	if err != nil {
		return err
	}
	defer driver.Close()
	listener, err := dockerplugin.Listen(ctx, c.Socket)
	if err != nil {
		return err
	}
	return dockerplugin.NewServer(driver, a.log).Serve(ctx, listener)
}

func (c *DockerPluginServeCmd) state() string {
	if c.State != "" {
		return c.State
	}
	if dir := os.Getenv("S4_LOOP_DEV_PATH"); dir != "" {
		return filepath.Join(dir, "docker")
	}
	return dockerplugin.DefaultDir
}

// dockerVolumes is what stores docker's volumes.
func (a *app) dockerVolumes() (*dockervol.Backend, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	access, err := reach.NewAccess(a.log, nil) // there is nobody to ask, though started from a terminal
	if err != nil {
		return nil, err
	}
	return dockervol.New(dockervol.Config{Access: access, Program: program, Log: a.log}), nil
}

// DockerPluginInstallCmd is `s4 docker plugin install`.
type DockerPluginInstallCmd struct {
	Print bool `help:"Only show the two units."`
}

// Help is the paragraph under --help.
func (DockerPluginInstallCmd) Help() string {
	return `Writes the units s4-docker-plugin.socket and s4-docker-plugin.service, and starts them. The socket is there before docker is, so that containers find their volumes at boot.

Example: sudo s4 docker plugin install`
}

// Run does it.
func (c *DockerPluginInstallCmd) Run(ctx context.Context, a *app) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	o := dockerplugin.UnitOptions{Command: []string{self, "docker", "plugin", "serve"}, Home: home}
	m := systemd.Ours()
	if c.Print || !m.Running() {
		if !c.Print {
			a.say("There is no systemd here; this is what the units would hold:")
		}
		socket, service := dockerplugin.Units(o)
		return a.print("# /etc/systemd/system/%s\n%s\n# /etc/systemd/system/%s\n%s",
			dockerplugin.SocketUnit, socket, dockerplugin.ServiceUnit, service)
	}
	if os.Geteuid() != 0 {
		return hint.With(errors.New("docker's volume driver has to run as root"), "sudo s4 docker plugin install")
	}
	if err := dockerplugin.Install(ctx, m, o); err != nil {
		return err
	}
	a.say("docker's volume driver s4 is enabled and runs")
	a.say("hint: docker volume create -d s4 -o size=5G NAME")
	return nil
}

// DockerPluginUninstallCmd is `s4 docker plugin uninstall`.
type DockerPluginUninstallCmd struct{}

// Help is the paragraph under --help.
func (DockerPluginUninstallCmd) Help() string {
	return `Ends the volume driver and takes its two units away. Its docker volumes stay where they are, and containers that run keep them; none can be started with them until the driver is installed again.

Example: sudo s4 docker plugin uninstall`
}

// Run does it.
func (c *DockerPluginUninstallCmd) Run(ctx context.Context, a *app) error {
	if os.Geteuid() != 0 {
		return hint.With(errors.New("docker's volume driver is root's"), "sudo s4 docker plugin uninstall")
	}
	if err := dockerplugin.Uninstall(ctx, systemd.Ours()); err != nil {
		return err
	}
	a.say("docker's volume driver s4 is gone; its volumes are still in %s", dockerplugin.DefaultDir)
	return nil
}
