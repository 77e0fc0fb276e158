package serve

import (
	"fmt"
	"os"
	"strconv"

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
// when nobody can answer.
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
