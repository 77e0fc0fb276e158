package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
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
	detached    bool     // in a session of its own
	interactive bool     // ssh may ask the person at the terminal
	part        []string // has the shared connection end with its last session; nil: none is shared
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
		if more := shared(o.ControlDir, append(slices.Clone(words), o.User, o.Host, strconv.Itoa(o.Port))); more != nil {
			words = append(words, more...)
			c.part = append(slices.Clone(words), "-O", "stop", o.Host)
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

// connectionLinger is how long a shared connection stays when no session is left and
// nobody has parted from it: it keeps the directory busy that it was made in.
const connectionLinger = 10 * time.Second

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

// end lets a shared connection end. Others that use it have theirs for as long as
// they do, and make another one then.
func (c command) end() {
	if c.part == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.part[0], c.part[1:]...)
	cmd.Env = childEnvironment()
	_ = cmd.Run() // it may be gone already
}
