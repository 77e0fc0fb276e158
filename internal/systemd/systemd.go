// Package systemd writes units, and has systemd run them.
//
// The format is that of systemd.unit(5) and systemd.syntax(7), what may stand
// in a command line that of systemd.service(5).
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/xdg"
)

// Manager is the systemd that runs units: that of the system, or of one user.
type Manager struct {
	user bool
	dir  string // of units
}

// Ours is the manager of the system for root, and of the user for everybody else.
func Ours() Manager {
	if os.Geteuid() == 0 {
		return Manager{dir: "/etc/systemd/system"}
	}
	return Manager{user: true, dir: filepath.Join(filepath.Dir(xdg.Config()), "systemd", "user")}
}

// Target is what starts units at boot, or at login.
func (m Manager) Target() string {
	if m.user {
		return "default.target"
	}
	return "multi-user.target"
}

// Path is where the unit of that name belongs.
func (m Manager) Path(name string) string { return filepath.Join(m.dir, name) }

// Running tells whether there is a systemd to talk to.
func (m Manager) Running() bool {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	_, err := exec.LookPath("systemctl")
	return err == nil
}

// Enable writes a unit, and starts it now and at every boot.
func (m Manager) Enable(ctx context.Context, name, text string) error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("enable %s: %w", name, err)
	}
	if err := atomicfile.Write(m.Path(name), []byte(text), 0o644); err != nil {
		return fmt.Errorf("enable %s: %w", name, err)
	}
	if err := m.systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if err := m.systemctl(ctx, "enable", name); err != nil {
		return err
	}
	return m.systemctl(ctx, "restart", name) // also one that runs with an older text
}

// Disable stops a unit and takes it away. Errors: fs.ErrNotExist.
func (m Manager) Disable(ctx context.Context, name string) error {
	if _, err := os.Lstat(m.Path(name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no service %s: %w", name, fs.ErrNotExist)
	}
	if m.Running() {
		if err := m.systemctl(ctx, "disable", "--now", name); err != nil {
			return err
		}
	}
	if err := os.Remove(m.Path(name)); err != nil {
		return fmt.Errorf("disable %s: %w", name, err)
	}
	if !m.Running() {
		return nil
	}
	return m.systemctl(ctx, "daemon-reload")
}

func (m Manager) systemctl(ctx context.Context, args ...string) error {
	if m.user {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	if m.user {
		err = hint.With(err, "a user's services need a session of systemd's; log in, or try: loginctl enable-linger")
	}
	return err
}

// Word is s as one word of a unit's command line, taken as it is.
func Word(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '%' || c == '$': // a specifier or a variable
			b.WriteByte(c)
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Words is a whole command line. In its first word, the program, no variables are
// looked for.
func Words(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = Word(w); i == 0 {
			quoted[i] = Value(w)
		}
	}
	return strings.Join(quoted, " ")
}

// Value is s as the value, or one of the values, of a setting that is not a
// command line, such as a path.
func Value(s string) string { return strings.ReplaceAll(Word(s), "$$", "$") }

// Text is s as a setting that is shown to people.
func Text(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// EscapePath is an absolute path as a part of a unit's name, as
// systemd-escape --path gives it.
func EscapePath(path string) string {
	path = strings.Trim(filepath.Clean(path), "/")
	if path == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i > 0, c == '_', c == ':',
			'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}
