// Package reach is how repositories are reached on this host: with the
// environment that borg documents, the user's settings, and a person to ask;
// and what to tell that person when it fails.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/config"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/xdg"
	"github.com/s4-storage/s4/snapshot"
)

// Access is how repositories are reached on this host: the environment that
// borg documents, the global configuration, and a person to ask.
type Access struct {
	Global *config.File
	Logger *slog.Logger
	// Ask prompts on the terminal without echo; nil where there is none.
	Ask func(ctx context.Context, question string) (string, error)

	keep atomic.Bool

	mu         sync.Mutex
	passphrase *string // asked for, or read from BORG_PASSPHRASE_FD; either comes once only
}

// KeyPassCommand is the global configuration's BORG_PASSCOMMAND.
const KeyPassCommand = "core.passcommand"

// ConfigPath is where the user's settings for all volumes lie.
func ConfigPath() string { return filepath.Join(xdg.Config(), "config") }

// NewAccess reads the global configuration and, where BORG_PASSPHRASE_FD is
// set and neither of the variables that borg prefers to it, the passphrase
// from it.
func NewAccess(log *slog.Logger, ask func(context.Context, string) (string, error)) (*Access, error) {
	global, err := config.Load(ConfigPath())
	if err != nil {
		return nil, err
	}
	a := &Access{Global: global, Logger: log, Ask: ask}
	_, passphrase := os.LookupEnv("BORG_PASSPHRASE")
	_, command := os.LookupEnv("BORG_PASSCOMMAND")
	if text, ok := os.LookupEnv("BORG_PASSPHRASE_FD"); ok && !passphrase && !command {
		fd, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("%w: BORG_PASSPHRASE_FD is not a number: %q", snapshot.ErrUsage, text)
		}
		f := os.NewFile(uintptr(fd), "BORG_PASSPHRASE_FD")
		data, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%w: read BORG_PASSPHRASE_FD: %w", snapshot.ErrKey, err)
		}
		secret := strings.TrimRight(string(data), "\n")
		a.passphrase = &secret
	}
	return a, nil
}

// Log is the logger, never nil.
func (a *Access) Log() *slog.Logger {
	if a.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Logger
}

// environ is the process's environment with the configured pass command.
func (a *Access) environ(name string) (string, bool) {
	switch name {
	case "BORG_PASSPHRASE_FD":
		return "", false
	case "BORG_PASSPHRASE":
		if value, ok := os.LookupEnv(name); ok {
			return value, true
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.passphrase != nil {
			return *a.passphrase, true
		}
		return "", false
	case "BORG_PASSCOMMAND":
		if value, ok := os.LookupEnv(name); ok {
			return value, true
		}
		if a.Global != nil {
			return a.Global.Get(KeyPassCommand)
		}
		return "", false
	}
	if name == "BORG_RSH" {
		return remoteShell()
	}
	return os.LookupEnv(name)
}

// HasPassphrase tells whether a passphrase is to be had without asking.
func (a *Access) HasPassphrase() bool { return borgio.HasPassphraseEnv(a.environ) }

// ask prompts once and remembers the answer for borg, which runs later.
func (a *Access) ask(ctx context.Context, question string) (string, error) {
	if a.Ask == nil {
		return "", hint.With(fmt.Errorf("%w: a passphrase is needed and there is no terminal to ask on", snapshot.ErrKey),
			"set BORG_PASSPHRASE or BORG_PASSCOMMAND")
	}
	secret, err := a.Ask(ctx, question)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.passphrase = &secret
	return secret, nil
}

// NewPassphrase sees to it that there is a passphrase for a new repository.
func (a *Access) NewPassphrase(ctx context.Context, loc borgio.Location) error {
	if a.HasPassphrase() {
		return nil
	}
	first, err := a.ask(ctx, fmt.Sprintf("New passphrase for %s: ", loc))
	if err != nil {
		return err
	}
	again, err := a.Ask(ctx, "The same again: ")
	if err == nil && first != again {
		err = fmt.Errorf("%w: the passphrases differ", snapshot.ErrKey)
	}
	return err
}

// ParseLocation reads a repository's URL. Where it names no port,
// S4_REMOTE_PORT does. Errors wrap snapshot.ErrUsage.
func ParseLocation(url string) (borgio.Location, error) {
	loc, err := borgio.ParseLocation(url)
	if err != nil {
		return loc, fmt.Errorf("%w: %w", snapshot.ErrUsage, err)
	}
	if text := os.Getenv("S4_REMOTE_PORT"); text != "" && loc.IsRemote() && loc.Port == 0 {
		if loc.Port, err = strconv.Atoi(text); err != nil || loc.Port < 1 || loc.Port > 65535 {
			return loc, fmt.Errorf("%w: S4_REMOTE_PORT is not a port: %q", snapshot.ErrUsage, text)
		}
	}
	return loc, nil
}

// Keep tells that this process will open the same repositories again and again, or
// keep them open: from now on their sessions share one ssh connection, and one of
// them stands by for the next transaction.
func (a *Access) Keep() { a.keep.Store(true) }

// Open opens the repository at loc.
func (a *Access) Open(ctx context.Context, loc borgio.Location) (*borgio.Repository, error) {
	loc.Archive = ""
	o := a.options(loc)
	if a.keep.Load() && loc.IsRemote() {
		o.Keep, o.ControlDir = true, a.controlDir()
	}
	r, err := borgio.Open(ctx, loc, o)
	return r, Explain(err, loc)
}

// controlDir is where the sockets of shared ssh connections are, or "".
func (a *Access) controlDir() string {
	dir := filepath.Join(xdg.Runtime(), "ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		a.Log().Info("each session has an ssh connection of its own", "error", err)
		return ""
	}
	return dir
}

func (a *Access) options(loc borgio.Location) borgio.Options {
	return borgio.Options{
		Environ: a.environ,
		Passphrase: func(ctx context.Context) (string, error) {
			return a.ask(ctx, fmt.Sprintf("Passphrase for %s: ", loc))
		},
		Remember: a.remember,
		Logger:   a.Log(),
	}
}

// Create makes an empty repository at loc, with the directories above it. mode is
// one of borg's names for an encryption.
func (a *Access) Create(ctx context.Context, loc borgio.Location, mode string) error {
	_, err := borgio.Create(ctx, loc, mode, borgio.CreateOptions{Options: a.options(loc), Parents: true})
	return Explain(err, loc)
}

// kindError is an error that is also of a kind, which its text need not say.
type kindError struct{ err, kind error }

func (e *kindError) Error() string   { return e.err.Error() }
func (e *kindError) Unwrap() []error { return []error{e.err, e.kind} }

// Explain gives an error of borgio its kind and what to do about it.
func Explain(err error, loc borgio.Location) error {
	place := loc.String()
	kind := func(kind error, text string) error {
		return hint.With(&kindError{err, kind}, text)
	}
	switch {
	case err == nil, hint.Of(err) != "":
		return err
	case errors.Is(err, borgio.ErrHostKey):
		return kind(snapshot.ErrUnreachable, "look at the host's key and accept it once with: ssh "+sshTarget(loc))
	case errors.Is(err, borgio.ErrNoBorg):
		return kind(snapshot.ErrUnreachable, "install BorgBackup 1.2 or later there (package borgbackup), or set BORG_REMOTE_PATH")
	case errors.Is(err, borgio.ErrUnreachable):
		return kind(snapshot.ErrUnreachable, "try the connection with: ssh "+sshTarget(loc))
	case errors.Is(err, borgio.ErrLocked):
		return kind(snapshot.ErrLocked, "another borg or s4 is at work there; if none is, free it with: borg break-lock "+place)
	case errors.Is(err, borgio.ErrPassphrase):
		return kind(snapshot.ErrKey, "check BORG_PASSPHRASE or BORG_PASSCOMMAND")
	case errors.Is(err, borgio.ErrNoPassphrase):
		return kind(snapshot.ErrKey, "set BORG_PASSPHRASE or BORG_PASSCOMMAND")
	case errors.Is(err, borgio.ErrKeyMissing), errors.Is(err, borgio.ErrKeyMismatch):
		return kind(snapshot.ErrKey, "bring its key file with: borg key import "+place+" FILE")
	case errors.Is(err, borgio.ErrKeyDamaged):
		return kind(snapshot.ErrKey, "bring a copy of the key with: borg key import "+place+" FILE")
	case errors.Is(err, borgio.ErrKeyKind):
		return kind(snapshot.ErrKey, "s4 reads what borg 1.1 to 1.4 write; this key is of a later one")
	case errors.Is(err, borgio.ErrNoSpace), errors.Is(err, borgio.ErrQuota):
		return hint.With(err, "make room at the remote (s4 prune) and push again; nothing was lost")
	case errors.Is(err, borgio.ErrIntegrity):
		return kind(snapshot.ErrDamaged, "look at the repository with: borg check "+place)
	case errors.Is(err, fs.ErrPermission):
		return kind(fs.ErrPermission, "look at who owns the repository; s4 reads it as the user who runs it")
	}
	return err
}

func sshTarget(loc borgio.Location) string {
	target := loc.Host
	if loc.User != "" {
		target = loc.User + "@" + target
	}
	if loc.Port != 0 {
		target = fmt.Sprintf("-p %d %s", loc.Port, target)
	}
	return target
}
