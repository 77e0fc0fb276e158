package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/sshkeys"
	"github.com/s4-storage/s4/snapshot"
)

// TargetCmd is `s4 target`.
type TargetCmd struct {
	AddKey TargetAddKeyCmd `cmd:"" name:"add-key" help:"Let an ssh key store one volume here."`
}

// TargetAddKeyCmd is `s4 target add-key`.
type TargetAddKeyCmd struct {
	Volume     string `arg:"" help:"Name of the volume."`
	Key        string `arg:"" help:"The public key: its text, a file, or - for stdin."`
	AppendOnly bool   `help:"The key can add to the repository, not delete what it has."`
	Place      string `placeholder:"DIR" default:"/volumes" env:"S4_TARGET_DIR" help:"Where the repositories are."`
	File       string `name:"authorized-keys" env:"S4_AUTHORIZED_KEYS" placeholder:"FILE" help:"The file to write (default: ~/.ssh/authorized_keys)."`
}

// Help is the paragraph under --help.
func (TargetAddKeyCmd) Help() string {
	return `Adds a line to authorized_keys with which the key can do nothing but run borg for the volume's repository. A key that has such a line is let to one more repository.

Example: s4 target add-key photos "ssh-ed25519 AAAA… laptop" --append-only`
}

// maxKey bounds what is read as a key.
const maxKey = 64 << 10

// Run does it.
func (c *TargetAddKeyCmd) Run(a *app) error {
	text := c.Key
	if c.Key == "-" {
		data, err := io.ReadAll(io.LimitReader(a.stdin, maxKey))
		if err != nil {
			return err
		}
		text = string(data)
	} else if !strings.Contains(c.Key, " ") { // a key has its kind before it
		f, err := os.Open(c.Key)
		if err != nil {
			return fmt.Errorf("read the key: %w", err)
		}
		data, err := io.ReadAll(io.LimitReader(f, maxKey))
		f.Close()
		if err != nil {
			return fmt.Errorf("read the key: %w", err)
		}
		text = string(data)
	}
	key, comment, err := sshkeys.ParseKey(text)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(c.Place) {
		return hint.With(fmt.Errorf("%w: the place %q is no absolute path", snapshot.ErrUsage, c.Place), "borg serve starts in the user's home directory")
	}
	repository, err := dockeragent.RepositoryPath(c.Place, c.Volume)
	if err != nil {
		return err
	}
	if c.File == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		c.File = filepath.Join(home, ".ssh", "authorized_keys")
	}
	changed, err := sshkeys.AddGrant(c.File, sshkeys.Grant{Key: key, Comment: comment, Paths: []string{repository}, AppendOnly: c.AppendOnly})
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			Repository string `json:"repository"`
			File       string `json:"file"`
			Changed    bool   `json:"changed"`
		}{repository, c.File, changed})
	}
	if changed {
		a.say("The key may store %s", repository)
	} else {
		a.say("The key may store %s already", repository)
	}
	return nil
}
