package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/snapshot"
)

// DockerAddCmd is `s4 docker add`.
type DockerAddCmd struct {
	Folder     string `arg:"" optional:"" name:"dir" help:"Where the compose file is (default: here)."`
	Remote     string `required:"" placeholder:"URL" help:"Place for volumes, such as s4@nas:/volumes."`
	Image      string `placeholder:"IMAGE" default:"${agentImage}" help:"Image of the agent."`
	Passphrase string `name:"passphrase-file" placeholder:"FILE" help:"Encrypt the repositories with the passphrase in the file (default: not encrypted)."`
	HostKey    string `placeholder:"SHA256:…" help:"Fingerprint that the remote's host key must have."`
	Yes        bool   `short:"y" help:"Accept the remote's host key as it is now."`
	Start      bool   `negatable:"" default:"true" help:"Start the agent."`
	Print      bool   `help:"Print the override, and change nothing."`
}

// Help is the paragraph under --help.
func (DockerAddCmd) Help() string {
	return `Writes an override beside the compose file with one more service, the agent, and starts it: it backs up the project's volumes every hour, or as labels of their services say (s4.enable, s4.volumes, s4.exclude, s4.quiesce, s4.dump, s4.interval, s4.keep, s4.remote). An ssh key is made for it; put the printed line into the target's authorized_keys. Run it again when volumes or the remote change.

Example: s4 docker add --remote s4@nas:/volumes`
}

// Run does it.
func (c *DockerAddCmd) Run(ctx context.Context, a *app) error {
	dir := c.Folder
	if dir == "" {
		dir = a.here()
	}
	return withEngine(func(engine *dockerapi.Client) error {
		o := dockeragent.AddOptions{Dir: dir, Remote: c.Remote, Image: c.Image, Socket: engine.Socket(), Passphrase: c.Passphrase, AcceptHost: c.acceptHost(a)}
		if c.Print {
			text, err := dockeragent.Override(ctx, o)
			if err != nil {
				return err
			}
			return a.print("%s", text)
		}
		if c.Start {
			if err := needImage(ctx, engine, c.Image); err != nil {
				return err
			}
		}
		added, err := dockeragent.Add(ctx, o)
		if err != nil {
			return err
		}
		if err := c.report(a, added); err != nil {
			return err
		}
		if !c.Start {
			a.say("hint: start it with: %s", added.Command("up -d s4-agent"))
			return nil
		}
		if err := added.Start(ctx); err != nil {
			return err
		}
		a.say("The agent runs; see: s4 docker status")
		if added.Authorized != "" {
			a.say("hint: it tries again by itself until its key is let in; at once after: %s", added.Command("restart s4-agent"))
		}
		return nil
	})
}

func (c *DockerAddCmd) report(a *app, added *dockeragent.Added) error {
	if a.JSON {
		return a.printJSON(added)
	}
	verb := "Wrote"
	if added.Updated {
		verb = "Updated"
	}
	a.say("%s %s", verb, added.Override)
	for _, v := range added.Volumes {
		a.say("  will be backed up: %s", v)
	}
	for _, l := range added.Left {
		a.say("  not backed up: %s", l)
	}
	if added.Authorized == "" {
		return nil
	}
	a.say("Pinned the host key %s", added.Fingerprint)
	a.say("Put this line into ~/.ssh/authorized_keys of the remote's user:")
	if err := a.print("%s\n", quote.Text(added.Authorized)); err != nil {
		return err
	}
	a.say("hint: in an s4-target, for each volume: s4 target add-key VOLUME \"$(cat %s.pub)\" --append-only", quote.Shell(added.Key))
	return nil
}

// acceptHost asks the person, unless a flag has the answer.
func (c *DockerAddCmd) acceptHost(a *app) func(context.Context, string, string) error {
	return func(ctx context.Context, address, fingerprint string) error {
		question := fmt.Sprintf("The host key of %s is %s", address, fingerprint)
		switch {
		case c.HostKey == fingerprint || c.HostKey == "" && c.Yes:
			a.say("%s", question)
			return nil
		case c.HostKey != "":
			return fmt.Errorf("%w: the host key of %s is %s, not %s", snapshot.ErrRefused, address, fingerprint, c.HostKey)
		}
		answer, err := ask(ctx, question+". Is it the right one (yes/no)? ")
		if err != nil {
			return hint.With(fmt.Errorf("%w: %s, which nobody has confirmed", snapshot.ErrRefused, question),
				"compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` tells there, and repeat with --host-key "+fingerprint)
		}
		if answer != "yes" {
			return fmt.Errorf("%w: the host key was not accepted", snapshot.ErrRefused)
		}
		return nil
	}
}

// ask gets a line from the terminal.
func ask(ctx context.Context, question string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	stop := context.AfterFunc(ctx, func() { tty.Close() })
	defer stop()
	fmt.Fprint(tty, question)
	answer, err := bufio.NewReader(tty).ReadString('\n')
	return strings.TrimSpace(answer), err
}
