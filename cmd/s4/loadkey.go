package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/sshkeys"
	"github.com/s4-storage/s4/snapshot"
)

// LoadKeyCmd is `s4 loadkey`.
type LoadKeyCmd struct {
	File   string `arg:"" optional:"" help:"File with the private key; - is stdin (default: S4_PRIV_KEY_FILE, or the key in S4_PRIV_KEY)."`
	Forget bool   `help:"Forget the key that was loaded."`
}

// Help is the paragraph under --help.
func (LoadKeyCmd) Help() string {
	return `Gives s4 an ssh private key of its own for remotes, and prints its public half, for authorized_keys there. It is kept in s4's configuration directory, readable by you alone, whatever the modes of the file it came from, and is used unless BORG_RSH says otherwise. It must have no passphrase.

Example: S4_PRIV_KEY_FILE=/run/secrets/s4_key s4 loadkey`
}

// Run does it.
func (c *LoadKeyCmd) Run(a *app) error {
	if c.Forget {
		if err := os.Remove(reach.KeyFile()); err != nil {
			return fmt.Errorf("forget the ssh key: %w", err)
		}
		return nil
	}
	from, data, err := c.read(a.stdin)
	if err != nil {
		return err
	}
	// A key out of a variable often lacks its last newline, and ssh wants it.
	data = append([]byte(strings.TrimSpace(string(data))), '\n')
	public, err := sshkeys.Public(from, data)
	if err != nil {
		return hint.With(err, "make one with: ssh-keygen -t ed25519 -N '' -f s4_key")
	}
	if err := os.MkdirAll(filepath.Dir(reach.KeyFile()), 0o700); err != nil {
		return fmt.Errorf("keep the ssh key: %w", err)
	}
	if err := atomicfile.Write(reach.KeyFile(), data, 0o600); err != nil {
		return err
	}
	return a.print("%s", ssh.MarshalAuthorizedKey(public))
}

// read gives the key, and where it comes from.
func (c *LoadKeyCmd) read(stdin io.Reader) (from string, data []byte, err error) {
	file := c.File
	if file == "" {
		file = os.Getenv("S4_PRIV_KEY_FILE")
	}
	switch text := os.Getenv("S4_PRIV_KEY"); {
	case file == "-":
		from = "stdin"
		data, err = io.ReadAll(io.LimitReader(stdin, 1<<20))
	case file != "":
		from = file
		data, err = os.ReadFile(file)
	case text != "":
		return "S4_PRIV_KEY", []byte(text), nil
	default:
		return "", nil, hint.With(fmt.Errorf("%w: there is no key to load: %w", snapshot.ErrUsage, fs.ErrNotExist),
			"name its file, or set S4_PRIV_KEY_FILE or S4_PRIV_KEY")
	}
	if err != nil {
		return from, nil, fmt.Errorf("read the ssh key: %w", err)
	}
	return from, data, nil
}
