package reach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// offer makes text readable from a descriptor of this process, once.
func offer(t *testing.T, text string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = w.WriteString(text) // which fits the pipe
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(r.Fd())) // who reads it closes it
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(fd)
}

// TestPassphrase takes the passphrase from the first of the places that borg
// looks at, in borg's order, with the configured command and the person last.
func TestPassphrase(t *testing.T) {
	for _, c := range []struct {
		name       string
		env        map[string]string
		fd, config string
		answer     string // of the person
		passphrase string
		command    string
	}{
		{"variable", map[string]string{"BORG_PASSPHRASE": "", "BORG_PASSCOMMAND": "a"}, "", "c", "", "", "a"},
		{"variable before descriptor", map[string]string{"BORG_PASSPHRASE": "p"}, "q\n", "", "", "p", ""},
		{"command before descriptor", map[string]string{"BORG_PASSCOMMAND": "a"}, "q\n", "c", "", "-", "a"},
		{"descriptor", nil, "p q\n\n", "c", "", "p q", "c"},
		{"configuration", nil, "", "c", "", "-", "c"},
		{"person", nil, "", "", "p", "p", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			for _, name := range []string{"BORG_PASSPHRASE", "BORG_PASSCOMMAND", "BORG_PASSPHRASE_FD"} {
				t.Setenv(name, "") // to be set back
				if err := os.Unsetenv(name); err != nil {
					t.Fatal(err)
				}
			}
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			if c.fd != "" {
				t.Setenv("BORG_PASSPHRASE_FD", offer(t, c.fd))
			}
			a, err := NewAccess(nil, func(context.Context, string) (string, error) { return c.answer, nil })
			if err != nil {
				t.Fatal(err)
			}
			if c.config != "" {
				if err := a.Global.Set(KeyPassCommand, c.config); err != nil {
					t.Fatal(err)
				}
			}
			if a.HasPassphrase() != (c.answer == "") {
				t.Error("to be had without asking:", a.HasPassphrase())
			}
			if c.answer != "" {
				if _, err := a.ask(t.Context(), "?"); err != nil {
					t.Fatal(err)
				}
			}
			passphrase, ok := a.environ("BORG_PASSPHRASE")
			if !ok {
				passphrase = "-"
			}
			command, _ := a.environ("BORG_PASSCOMMAND")
			if passphrase != c.passphrase || command != c.command {
				t.Errorf("passphrase %q, command %q", passphrase, command)
			}
			if _, ok := a.environ("BORG_PASSPHRASE_FD"); ok {
				t.Error("the descriptor would be read again")
			}
		})
	}
}

func TestPassphraseDescriptorIsNone(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for value, want := range map[string]error{"x": snapshot.ErrUsage, "998": snapshot.ErrKey} {
		t.Setenv("BORG_PASSPHRASE_FD", value)
		if _, err := NewAccess(nil, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// TestExplain: whatever goes wrong has a kind, which decides the exit code,
// and a hint.
func TestExplain(t *testing.T) {
	loc := borgio.Location{Host: "h", User: "u", Port: 7, Path: "/r"}
	for from, want := range map[error]error{
		borgio.ErrHostKey:      snapshot.ErrUnreachable,
		borgio.ErrNoBorg:       snapshot.ErrUnreachable,
		borgio.ErrUnreachable:  snapshot.ErrUnreachable,
		borgio.ErrLocked:       snapshot.ErrLocked,
		borgio.ErrPassphrase:   snapshot.ErrKey,
		borgio.ErrNoPassphrase: snapshot.ErrKey,
		borgio.ErrKeyMissing:   snapshot.ErrKey,
		borgio.ErrKeyMismatch:  snapshot.ErrKey,
		borgio.ErrKeyDamaged:   snapshot.ErrKey,
		borgio.ErrKeyKind:      snapshot.ErrKey,
		borgio.ErrIntegrity:    snapshot.ErrDamaged,
		fs.ErrPermission:       fs.ErrPermission,
	} {
		err := Explain(fmt.Errorf("open: %w", from), loc)
		if !errors.Is(err, from) || !errors.Is(err, want) || hint.Of(err) == "" || err.Error() != "open: "+from.Error() {
			t.Errorf("%v: %v, hint %q", from, err, hint.Of(err))
		}
		if again := Explain(err, loc); again != err { //nolint:errorlint // the very same
			t.Errorf("%v is explained twice", from)
		}
	}
}
