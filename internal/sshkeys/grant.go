// Package sshkeys makes and reads what ssh trusts: key pairs, lines of
// authorized_keys and known_hosts.
package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/snapshot"
)

// Grant is what one ssh key may do at a target: run `borg serve` for these
// repositories, and nothing else. It is one line of authorized_keys, see
// sshd(8).
type Grant struct {
	Key        ssh.PublicKey
	Comment    string
	Paths      []string // of repositories, or of directories of them
	AppendOnly bool     // what is stored can be added to, not deleted
}

// Line is the grant as a line of authorized_keys, without the line's end.
func (g Grant) Line() string {
	var b strings.Builder
	b.WriteString("borg serve")
	for _, p := range g.Paths {
		b.WriteString(" --restrict-to-path " + quote.Shell(p))
	}
	if g.AppendOnly {
		b.WriteString(" --append-only")
	}
	command := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(b.String())
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(g.Key)))
	return strings.TrimSpace(fmt.Sprintf(`command="%s",restrict %s %s`, command, key, g.Comment))
}

// ParseKey reads a public key as it stands in a .pub file: one line, without
// options. Errors: snapshot.ErrUsage.
func ParseKey(line string) (ssh.PublicKey, string, error) {
	wrong := func(why string) (ssh.PublicKey, string, error) {
		return nil, "", fmt.Errorf("%w: not an ssh public key: %s", snapshot.ErrUsage, why)
	}
	line = strings.TrimSpace(line)
	if strings.Contains(line, "PRIVATE KEY") {
		return wrong("it is the private one")
	}
	if strings.ContainsAny(line, "\n\r\x00") {
		return wrong("more than one line")
	}
	key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return wrong("no key in it")
	}
	if len(options) > 0 {
		return wrong("there are options before it")
	}
	return key, comment, nil
}

// parseGrant reads a line that Line wrote; of any other it gives at most the
// key, and ok is false.
func parseGrant(line string) (g Grant, ok bool) {
	key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return g, false
	}
	g = Grant{Key: key, Comment: comment}
	if len(options) != 2 || options[1] != "restrict" {
		return g, false
	}
	command, found := strings.CutPrefix(options[0], `command="borg serve `)
	if !found {
		return g, false
	}
	words := strings.Fields(strings.TrimSuffix(command, `"`))
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "--append-only":
			g.AppendOnly = true
		case words[i] == "--restrict-to-path" && i+1 < len(words):
			i++
			g.Paths = append(g.Paths, words[i])
		default:
			return g, false
		}
	}
	return g, g.Line() == strings.TrimSpace(line)
}

// AddGrant lets a key reach one more repository: it is added to the key's line
// in the file, since sshd looks at the first line only, or a line is made. It
// tells whether the file changed.
//
// Errors: snapshot.ErrRefused where the key has a line that s4 did not write,
// or one with other rights to delete.
func AddGrant(file string, g Grant) (changed bool, err error) {
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("add a key: %w", err)
	}
	var lines []string
	found := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		old, is := parseGrant(line)
		if old.Key == nil || !bytes.Equal(old.Key.Marshal(), g.Key.Marshal()) || found {
			lines = append(lines, line)
			continue
		}
		switch {
		case !is:
			return false, fmt.Errorf("%w: the key is in %s already, with options of another", snapshot.ErrRefused, file)
		case old.AppendOnly != g.AppendOnly:
			return false, fmt.Errorf("%w: the key is in %s already, with append-only %t: a key has the same rights everywhere", snapshot.ErrRefused, file, old.AppendOnly)
		}
		found = true
		for _, p := range g.Paths {
			if !slices.Contains(old.Paths, p) {
				old.Paths = append(old.Paths, p)
				changed = true
			}
		}
		lines = append(lines, old.Line())
	}
	if !found {
		lines = append(lines, g.Line())
		changed = true
	}
	if !changed {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return false, fmt.Errorf("add a key: %w", err)
	}
	return true, atomicfile.Write(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}
