package keys

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/s4-storage/s4/borgio/internal/shlex"

	"github.com/s4-storage/s4/borgio/internal/fault"
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
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(home, ".config", "borg", sub), nil
}

const (
	keyfileMagic = "BORG_KEY "
	maxKeyBytes  = 64 << 10
)

// FindFile gives the text of the key file of repository id, without its
// first line.
func FindFile(env Environ, id [32]byte) (string, error) {
	if path := env.get("BORG_KEY_FILE"); path != "" {
		owner, text, err := readKeyfile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
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
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for key files: %w", err)
	}
	for _, e := range entries {
		// What is not a key file is none of our business.
		if owner, text, err := readKeyfile(filepath.Join(dir, e.Name())); err == nil && owner == id {
			return text, nil
		}
	}
	return "", fmt.Errorf("%w: no file in %s is for repository %x", fault.ErrKeyMissing, dir, id)
}

func readKeyfile(path string) (owner [32]byte, text string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return owner, "", err
	}
	defer f.Close()
	r := bufio.NewReader(io.LimitReader(f, maxKeyBytes))
	first, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return owner, "", err
	}
	hexID, ok := strings.CutPrefix(strings.TrimSpace(first), keyfileMagic)
	if !ok {
		return owner, "", errors.New("not a borg key file")
	}
	if n, err := hex.Decode(owner[:], []byte(hexID[:min(len(hexID), 2*len(owner))])); err != nil || n != len(owner) || len(hexID) != 2*n {
		return owner, "", fmt.Errorf("not a repository's id: %.70q", hexID)
	}
	rest, err := io.ReadAll(r)
	return owner, string(rest), err
}

// TAMRemembered reports whether borg has noted on this machine that the
// repository's manifest must be authenticated.
func TAMRemembered(env Environ, id [32]byte) bool {
	dir, err := env.configDir("BORG_SECURITY_DIR", "security")
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, hex.EncodeToString(id[:]), "tam_required"))
	return err == nil
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

// PassphraseFromEnv gets the passphrase as borg does: from BORG_PASSPHRASE
// (which may be empty), else the output of BORG_PASSCOMMAND, else what can be
// read from the file descriptor BORG_PASSPHRASE_FD, which is used up by it.
// ok is false when none is set.
func PassphraseFromEnv(ctx context.Context, environ func(string) (string, bool)) (passphrase string, ok bool, err error) {
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
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
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
func Unseal(ctx context.Context, k *Sealed, env Environ, prompt func(context.Context) (string, error)) (*Material, error) {
	pass, ok, err := PassphraseFromEnv(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrNoPassphrase, err)
	}
	if ok {
		return k.open(pass)
	}
	m, err := k.open("")
	if !errors.Is(err, fault.ErrPassphrase) {
		return m, err
	}
	if prompt == nil {
		return nil, fault.ErrNoPassphrase
	}
	if pass, err = prompt(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", fault.ErrNoPassphrase, err)
	}
	return k.open(pass)
}
