package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/sshkeys"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// RemoteCmd is `s4 remote`.
type RemoteCmd struct {
	Add    RemoteAddCmd    `cmd:"" help:"Add a remote."`
	List   RemoteListCmd   `cmd:"" default:"withargs" help:"List the remotes."`
	Remove RemoteRemoveCmd `cmd:"" help:"Forget a remote; its repository stays."`
	Rename RemoteRenameCmd `cmd:"" help:"Rename a remote."`
	SetURL RemoteSetURLCmd `cmd:"" name:"set-url" help:"Change where a remote is."`
}

// RemoteAddCmd is `s4 remote add`.
type RemoteAddCmd struct {
	Name       string `arg:"" help:"Name of the remote; origin is the default one."`
	URL        string `arg:"" name:"url" help:"Place for volumes: user@host:/path, ssh://user@host:port/path or a local directory."`
	Encryption string `placeholder:"MODE" help:"Encryption of a repository that s4 makes there: none, repokey, keyfile, repokey-blake2, keyfile-blake2, authenticated, authenticated-blake2."`
	TrustHost  bool   `help:"Ask the host for its ssh key now, and accept it after its fingerprint was confirmed."`
	Yes        bool   `short:"y" help:"With --trust-host: accept it without asking."`
}

// Help is the paragraph under --help.
func (RemoteAddCmd) Help() string {
	return `The volume's repository will be URL/NAME; if URL is a borg repository itself, it is used as it is. Nothing is connected to yet. Without --encryption, repokey-blake2 is chosen where a passphrase is set (BORG_PASSPHRASE, BORG_PASSCOMMAND, core.passcommand in the global settings), else none.

Example: s4 remote add origin s4@nas:/volumes`
}

// Run does it.
func (c *RemoteAddCmd) Run(ctx context.Context, a *app) error {
	if c.TrustHost {
		if err := a.trustHost(ctx, c.URL, c.Yes); err != nil {
			return err
		}
	}
	return a.withVolume(func(v *volume.Volume) error {
		r, err := v.AddRemote(c.Name, c.URL, c.Encryption)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(r)
		}
		switch {
		case c.Encryption != "":
			a.say("Added remote %s (encryption: %s)", r.Name, r.Encryption)
		case r.Encryption == "none":
			a.say("Added remote %s (encryption: none, as no passphrase is set)", r.Name)
			a.say("hint: to encrypt, set BORG_PASSPHRASE and: s4 config set remote.%s.encryption repokey-blake2", r.Name)
		default:
			a.say("Added remote %s (encryption: %s, as a passphrase is set)", r.Name, r.Encryption)
			a.say("hint: choose another with --encryption")
		}
		return nil
	})
}

// trustHost pins the ssh host key of a remote.
func (a *app) trustHost(ctx context.Context, url string, yes bool) error {
	loc, err := reach.ParseLocation(url)
	if err != nil {
		return err
	}
	if !loc.IsRemote() {
		return usage("--trust-host is for remotes that are reached by ssh")
	}
	address := sshkeys.Address(loc)
	key, err := sshkeys.HostKey(ctx, address)
	if err != nil {
		return err
	}
	err = sshkeys.CheckPinned(reach.HostsFile(), address, key)
	if !errors.Is(err, sshkeys.ErrNotPinned) {
		return err
	}
	fingerprint := ssh.FingerprintSHA256(key)
	if !yes {
		answer, err := a.ask(ctx, fmt.Sprintf("The host key of %s is %s %s. Is it the right one? [y/N] ", address, key.Type(), fingerprint))
		if err != nil {
			return err
		}
		if answer != "y" && answer != "yes" {
			return fmt.Errorf("%w: the host key was not accepted", snapshot.ErrRefused)
		}
	}
	a.say("Accepted the host key of %s: %s %s", address, key.Type(), fingerprint)
	if err := os.MkdirAll(filepath.Dir(reach.HostsFile()), 0o700); err != nil {
		return err
	}
	return sshkeys.Pin(reach.HostsFile(), address, key)
}

// RemoteListCmd is `s4 remote list`.
type RemoteListCmd struct {
	Long bool `short:"l" help:"Show URLs and encryption too; so does -v."`
}

// Run does it.
func (c *RemoteListCmd) Run(a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		remotes := v.Remotes()
		if a.JSON {
			if remotes == nil {
				remotes = []volume.Remote{}
			}
			return a.printJSON(remotes)
		}
		w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
		for _, r := range remotes {
			if c.Long || a.Verbose > 0 {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.URL, r.Encryption)
			} else {
				fmt.Fprintln(w, r.Name)
			}
		}
		return w.Flush()
	})
}

// RemoteRemoveCmd is `s4 remote remove`.
type RemoteRemoveCmd struct {
	Name string `arg:"" help:"Remote to forget."`
}

// Run does it.
func (c *RemoteRemoveCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error { return v.RemoveRemote(ctx, c.Name) })
}

// RemoteRenameCmd is `s4 remote rename`.
type RemoteRenameCmd struct {
	Old string `arg:"" help:"Its name now."`
	New string `arg:"" help:"Its new name."`
}

// Run does it.
func (c *RemoteRenameCmd) Run(a *app) error {
	return a.withVolume(func(v *volume.Volume) error { return v.RenameRemote(c.Old, c.New) })
}

// RemoteSetURLCmd is `s4 remote set-url`.
type RemoteSetURLCmd struct {
	Name string `arg:"" help:"Remote to move."`
	URL  string `arg:"" name:"url" help:"Its new place."`
}

// Run does it.
func (c *RemoteSetURLCmd) Run(a *app) error {
	return a.withVolume(func(v *volume.Volume) error { return v.SetRemoteURL(c.Name, c.URL) })
}
