package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/s4-storage/s4/borgio/internal/shlex"
)

// command is how to start "borg serve" on the other side.
type command struct {
	argv        []string
	detached    bool // in a session of its own
	interactive bool // ssh may ask the person at the terminal
}

// keepThroughInterrupt starts a program that Ctrl-C does not reach, and that
// can still ask for a password on the terminal, which one in another session
// could not.
const keepThroughInterrupt = `trap "" INT; exec "$@"`

// serveCommand is the command line that borg itself would use. Nothing in it
// overrides the user's ssh configuration, except that ssh is told not to ask
// when nobody can answer, and to share a connection where that is wanted.
func serveCommand(o Options) (command, error) {
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	c := command{detached: !terminal, interactive: terminal}
	if terminal {
		c.argv = append(c.argv, "/bin/sh", "-c", keepThroughInterrupt, "sh")
	}
	rsh, _ := o.Environ("BORG_RSH")
	words, err := shlex.Split(rsh)
	if err != nil {
		return c, fmt.Errorf("BORG_RSH: %w", err)
	}
	if len(words) == 0 {
		words = []string{"ssh"}
		if !terminal {
			words = append(words, "-o", "BatchMode=yes")
		}
	}
	if o.ControlDir != "" && filepath.Base(words[0]) == "ssh" {
		words = append(words, shared(o.ControlDir, append(slices.Clone(words), o.User, o.Host, strconv.Itoa(o.Port)))...)
	}
	c.argv = append(c.argv, words...)
	if o.Port != 0 {
		c.argv = append(c.argv, "-p", strconv.Itoa(o.Port))
	}
	host := o.Host
	if o.User != "" {
		host = o.User + "@" + host
	}
	remote, _ := o.Environ("BORG_REMOTE_PATH")
	if remote == "" {
		remote = "borg"
	}
	c.argv = append(c.argv, host, remote, "serve")
	return c, nil
}

// connectionLinger is how long a shared connection stays when no session is left.
const connectionLinger = 30 * time.Second

// shared are options of ssh(1) by which the sessions of the same ssh command go
// over one connection: the first makes it, and it outlives that one. A connection
// that has died is noticed, which others leave to whoever waits.
func shared(dir string, command []string) []string {
	sum := sha256.Sum256([]byte(strings.Join(command, "\x00")))
	path := filepath.Join(dir, hex.EncodeToString(sum[:8]))
	// ssh makes the socket under a longer name first, and reads % as more than that.
	if len(path)+len(".0123456789abcdef") >= len(unix.RawSockaddrUnix{}.Path) || strings.Contains(path, "%") {
		return nil
	}
	return []string{
		"-o", "ControlMaster=auto", "-o", "ControlPath=" + path,
		"-o", fmt.Sprintf("ControlPersist=%.0f", connectionLinger.Seconds()),
		"-o", "ServerAliveInterval=15",
	}
}
