package keys

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TAMRemembered reports whether borg has noted on this machine that the
// repository's manifest must be authenticated.
func TAMRemembered(env Environ, id [32]byte) bool {
	path, err := securityFile(env, id, "tam_required")
	if err == nil {
		_, err = os.Stat(path)
	}
	return err == nil
}

// ManifestRemembered gives the timestamp of the newest manifest of the
// repository that borg itself has met on this machine, as Borg writes it; "" if
// it has noted none.
func ManifestRemembered(env Environ, id [32]byte) string {
	text, err := readNote(env, id, "manifest-timestamp")
	if err != nil {
		return ""
	}
	return text
}

// securityFile is where borg notes something about the repository.
func securityFile(env Environ, id [32]byte, name string) (string, error) {
	dir, err := env.configDir("BORG_SECURITY_DIR", "security")
	return filepath.Join(dir, hex.EncodeToString(id[:]), name), err
}

// maxNote bounds what is read of a file in which borg notes something.
const maxNote = 4 << 10

// readNote gives what borg has noted, "" for nothing.
func readNote(env Environ, id [32]byte, name string) (string, error) {
	path, err := securityFile(env, id, name)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNote))
	return strings.TrimSpace(string(text)), err
}

// TypeRemembered tells the key type that borg has noted for the repository on
// this machine; known is false where it has noted none.
func TypeRemembered(env Environ, id [32]byte) (typ byte, known bool) {
	text, err := readNote(env, id, "key-type")
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 8)
	return byte(n), err == nil
}

// Note is what borg keeps on a machine about a repository.
type Note struct {
	Location string // as borg's canonical form has it
	Type     byte   // of the key
	Manifest string // timestamp of the newest manifest met, as Borg writes it
	TAM      bool   // manifests must be authenticated
}

// Remember notes for borg, and for later, what a writer knows of the repository;
// borg then neither asks whether it may be accessed nor takes an old manifest.
// Where the repository was known already, its place is left alone: borg asks
// before it goes on when it finds one at another place than it knows.
func Remember(env Environ, id [32]byte, n Note) error {
	dir, err := securityDir(env, id)
	if err != nil {
		return err
	}
	known, err := readNote(env, id, "location")
	if err == nil && known == "" {
		err = writeAtomic(filepath.Join(dir, "location"), n.Location, 0o600)
	}
	if err == nil {
		err = writeAtomic(filepath.Join(dir, "key-type"), strconv.Itoa(int(n.Type)), 0o600)
	}
	if err == nil && n.Manifest > ManifestRemembered(env, id) {
		err = writeAtomic(filepath.Join(dir, "manifest-timestamp"), n.Manifest, 0o600)
	}
	if err == nil && n.TAM && !TAMRemembered(env, id) {
		err = writeAtomic(filepath.Join(dir, "tam_required"), "", 0o600)
	}
	if err != nil {
		return fmt.Errorf("note the state of repository %x: %w", id, err)
	}
	return nil
}

// securityDir makes the directory of a repository's notes if it must.
func securityDir(env Environ, id [32]byte) (string, error) {
	path, err := securityFile(env, id, "")
	if err != nil {
		return "", err
	}
	path = filepath.Clean(path)
	return path, os.MkdirAll(path, 0o700)
}

// writeAtomic replaces a file, durably; whoever reads sees the old one or the
// new one.
func writeAtomic(path, text string, mode os.FileMode) error {
	tmp, err := writeTemp(path, text, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp) // the first error tells more
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeTemp writes a file beside path, durably, and gives its name.
func writeTemp(path, text string, mode os.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*.tmp")
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(f.Name()) // the first error tells more
		}
	}()
	if _, err := f.WriteString(text); err != nil {
		return "", err
	}
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
