package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// FreeNonce gives the next free counter block that the repository has noted; not
// ok: it has noted none.
func (w *Writer) FreeNonce() (next uint64, ok bool, err error) {
	f, err := os.OpenFile(filepath.Join(w.out.dir, "nonce"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 17))
	if err != nil {
		return 0, false, err
	}
	raw, err := hex.DecodeString(string(data))
	if err != nil || len(raw) != 8 {
		return 0, false, fmt.Errorf("%w: nonce file %.20q", fault.ErrIntegrity, data)
	}
	return binary.BigEndian.Uint64(raw), true, nil
}

// ReserveNonces notes durably that the blocks from start up to next are used. It
// never lowers what is noted.
func (w *Writer) ReserveNonces(next, start uint64) error {
	if w.err != nil {
		return w.err
	}
	if !w.lock.Held() {
		return fault.ErrLockLost
	}
	noted, ok, err := w.FreeNonce()
	if err != nil {
		return err
	}
	if ok && start < noted || next < start {
		return fmt.Errorf("reserve nonces from %d to %d: %d is the next free one", start, next, noted)
	}
	return spaceError(replaceFile(filepath.Join(w.out.dir, "nonce"), fmt.Appendf(nil, "%016x", next), w.out.mode&0o666))
}

// SaveKey keeps the base64 text of a key in the configuration, in place of the one
// there. It takes effect at once.
func (w *Writer) SaveKey(text string) error {
	if w.err != nil {
		return w.err
	}
	if !w.lock.Held() {
		return fault.ErrLockLost
	}
	path := filepath.Join(w.out.dir, "config")
	f, size, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if size > maxConfigBytes {
		return fmt.Errorf("config has %d bytes", size)
	}
	old, err := io.ReadAll(io.LimitReader(f, maxConfigBytes))
	if err != nil {
		return err
	}
	return spaceError(replaceFile(path, setKey(old, text), st.Mode().Perm()))
}

// setKey puts a key at the end of the section [repository] of a configuration.
func setKey(config []byte, text string) []byte {
	var out []string
	section, dropping := "", false
	key := "key = " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n\t")
	end := -1 // where in out the section ends
	for line := range strings.Lines(string(config)) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		continued := trimmed != "" && (line[0] == ' ' || line[0] == '\t')
		dropping = dropping && (continued || trimmed == "")
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(trimmed, "[]")
		} else if i := strings.IndexAny(line, "=:"); section == "repository" && !continued && i > 0 {
			dropping = strings.EqualFold(strings.TrimSpace(line[:i]), "key")
		}
		if dropping && trimmed != "" {
			continue
		}
		out = append(out, line)
		if section == "repository" && trimmed != "" {
			end = len(out)
		}
	}
	if end < 0 {
		end = len(out)
	}
	out = append(out[:end:end], append([]string{key}, out[end:]...)...)
	return []byte(strings.Join(out, "\n") + "\n")
}
