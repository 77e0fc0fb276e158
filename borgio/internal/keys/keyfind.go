package keys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/shlex"
)

// Environ looks variables up.
type Environ func(string) (string, bool)

func (env Environ) get(name string) string {
	v, _ := env(name)
	return v
}

// configDir is where Borg keeps what belongs to a user: KEYS or SECURITY.
func (env Environ) configDir(override, sub string) (string, error) {
	if d := env.get(override); d != "" {
		return d, nil
	}
	if d := env.get("BORG_CONFIG_DIR"); d != "" {
		return filepath.Join(d, sub), nil
	}
	if d := env.get("BORG_BASE_DIR"); d != "" {
		return filepath.Join(d, ".config", "borg", sub), nil
	}
	if d := env.get("XDG_CONFIG_HOME"); d != "" {
		return filepath.Join(d, "borg", sub), nil
	}
	home := env.get("HOME")
	if home == "" { // as for a service
		u, err := user.Current()
		if name := env.get("USER"); name != "" {
			u, err = user.Lookup(name)
		}
		if err != nil {
			return "", fmt.Errorf("find the home directory: %w", err)
		}
		home = u.HomeDir
	}
	return filepath.Join(home, ".config", "borg", sub), nil
}

const keyfileMagic = "BORG_KEY "

// FindFile gives the text of the key file of repository id, without its
// first line. Errors: [fault.ErrKeyMissing], [fault.ErrKeyMismatch],
// [fault.ErrKeyDamaged].
func FindFile(env Environ, id [32]byte) (string, error) {
	if path := env.get("BORG_KEY_FILE"); path != "" {
		owner, text, err := readKeyfile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			return "", fmt.Errorf("%w: BORG_KEY_FILE: %w", fault.ErrKeyMissing, err)
		case err != nil:
			return "", fmt.Errorf("key file %s: %w", path, err)
		case owner != id:
			return "", fmt.Errorf("%w: %s is of repository %x", fault.ErrKeyMismatch, path, owner)
		}
		return text, nil
	}
	dir, err := env.configDir("BORG_KEYS_DIR", "keys")
	if err != nil {
		return "", err
	}
	_, text, err := findIn(dir, id)
	return text, err
}

// findIn gives the path of the key file of repository id in a directory, and its text.
func findIn(dir string, id [32]byte) (path, text string, err error) {
	var unreadable error
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("look for key files: %w", err)
	}
	for _, e := range entries {
		// What is not a key file is none of our business.
		name := filepath.Join(dir, e.Name())
		owner, text, err := readKeyfile(name)
		switch {
		case err == nil && owner == id:
			return name, text, nil
		case errors.Is(err, fs.ErrPermission):
			unreadable = err
		}
	}
	err = fmt.Errorf("%w: no file in %s is for repository %x", fault.ErrKeyMissing, dir, id)
	if unreadable != nil {
		err = fmt.Errorf("%w, but there is one that cannot be read: %w", err, unreadable)
	}
	return "", "", err
}

func readKeyfile(path string) (owner [32]byte, text string, err error) {
	// A pipe without a writer would keep us waiting.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return owner, "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return owner, "", err
	} else if !st.Mode().IsRegular() {
		return owner, "", fmt.Errorf("%w: not a regular file", fault.ErrKeyDamaged)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err != nil {
		return owner, "", err
	}
	return parseKeyfile(string(data))
}

// parseKeyfile takes a key file apart: a line that names the repository, and
// the key's text. What follows the id in the first line does not count.
func parseKeyfile(data string) (owner [32]byte, text string, err error) {
	first, text, _ := strings.Cut(data, "\n")
	hexID, ok := strings.CutPrefix(first, keyfileMagic)
	if !ok || len(data) > maxKeyBytes {
		return owner, "", fmt.Errorf("%w: not a borg key file", fault.ErrKeyDamaged)
	}
	if len(hexID) > 2*len(owner) {
		hexID = hexID[:2*len(owner)]
	}
	if n, err := hex.Decode(owner[:], []byte(hexID)); err != nil || n != len(owner) {
		return owner, "", fmt.Errorf("%w: not a repository's id: %q", fault.ErrKeyDamaged, hexID)
	}
	return owner, text, nil
}

// HasPassphraseEnv reports whether the Environ gives a passphrase, so that
// nobody needs to be asked. It runs nothing.
func HasPassphraseEnv(environ func(string) (string, bool)) bool {
	for _, name := range []string{"BORG_PASSPHRASE", "BORG_PASSCOMMAND", "BORG_PASSPHRASE_FD"} {
		if _, ok := environ(name); ok {
			return true
		}
	}
	return false
}

// passCommandDelay is how long the pass command's output is read after the
// command itself has ended: an agent that it started may hold it open for ever.
const passCommandDelay = 2 * time.Second

// passphraseFromEnv gets the passphrase as borg does: from BORG_PASSPHRASE
// (which may be empty), else the output of BORG_PASSCOMMAND, else what can be
// read from the file descriptor BORG_PASSPHRASE_FD, which is used up by it.
// ok is false when none is set.
func passphraseFromEnv(ctx context.Context, environ func(string) (string, bool)) (passphrase string, ok bool, err error) {
	if v, ok := environ("BORG_PASSPHRASE"); ok {
		return v, true, nil
	}
	if v, ok := environ("BORG_PASSCOMMAND"); ok {
		words, err := shlex.Split(v)
		if err != nil || len(words) == 0 {
			return "", true, fmt.Errorf("BORG_PASSCOMMAND is not a command: %q", v)
		}
		var said strings.Builder
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Stdin, cmd.Stderr = os.Stdin, &said
		cmd.WaitDelay = passCommandDelay
		out, err := cmd.Output()
		if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			return "", true, fmt.Errorf("run BORG_PASSCOMMAND: %w: %s", err, fault.OneLine(said.String()))
		}
		return strings.TrimRight(string(out), "\n"), true, nil
	}
	if v, ok := environ("BORG_PASSPHRASE_FD"); ok {
		fd, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return "", true, fmt.Errorf("BORG_PASSPHRASE_FD: %w", err)
		}
		f := os.NewFile(uintptr(fd), "BORG_PASSPHRASE_FD")
		if f == nil {
			return "", true, fmt.Errorf("BORG_PASSPHRASE_FD: no descriptor %d", fd)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxKeyBytes))
		if err != nil {
			return "", true, fmt.Errorf("BORG_PASSPHRASE_FD: %w", err)
		}
		return strings.TrimRight(string(b), "\n"), true, nil
	}
	return "", false, nil
}

// Unseal opens a key with the passphrase that the Environ or prompt gives.
// Errors: [fault.ErrNoPassphrase], [fault.ErrPassphrase], [fault.ErrKeyDamaged],
// [fault.ErrKeyKind], and ctx's.
func Unseal(ctx context.Context, k *Sealed, env Environ, prompt func(context.Context) (string, error)) (*Material, error) {
	pass, ok, err := passphraseFromEnv(ctx, env)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("%w: %w", fault.ErrNoPassphrase, err)
	case ok:
		return k.open(ctx, pass)
	}
	m, err := k.open(ctx, "")
	if !errors.Is(err, fault.ErrPassphrase) {
		return m, err
	}
	if prompt == nil {
		return nil, fault.ErrNoPassphrase
	}
	if pass, err = prompt(ctx); ctx.Err() != nil {
		return nil, ctx.Err()
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrNoPassphrase, err)
	}
	return k.open(ctx, pass)
}

// NewPassphrase gets the passphrase for a key that is to be made, as borg does:
// from BORG_NEW_PASSPHRASE, else where Unseal has it from, else from prompt.
// Errors: [fault.ErrNoPassphrase], and ctx's.
func NewPassphrase(ctx context.Context, env Environ, prompt func(context.Context) (string, error)) (string, error) {
	if v, ok := env("BORG_NEW_PASSPHRASE"); ok {
		return v, nil
	}
	pass, ok, err := passphraseFromEnv(ctx, env)
	if err == nil && !ok {
		if prompt == nil {
			return "", fault.ErrNoPassphrase
		}
		pass, err = prompt(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("%w: %w", fault.ErrNoPassphrase, err)
	}
	return pass, nil
}
