package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// holder is a process that holds a lock.
type holder struct {
	host   string
	pid    int
	thread int
}

// name is a holder's file in the lock directory.
func (h holder) name() string { return fmt.Sprintf("%s.%d-%x", h.host, h.pid, h.thread) }

func (h holder) locked(reader bool) *fault.LockedError {
	return &fault.LockedError{Host: h.host, PID: h.pid, Reader: reader}
}

// parseName is the reverse of name.
func parseName(name string) (h holder, ok bool) {
	dash := strings.LastIndexByte(name, '-')
	dot := strings.LastIndexByte(name[:max(dash, 0)], '.')
	if dot < 0 {
		return h, false
	}
	pid, err := strconv.ParseInt(name[dot+1:dash], 10, 32)
	thread, err2 := strconv.ParseInt(name[dash+1:], 16, 64)
	return holder{name[:dot], int(pid), int(thread)}, err == nil && err2 == nil && pid > 0 && thread >= 0
}

// gone reports whether h is a process of the same host as me and does not live.
// One with my own number is not me, as far as the caller knows: it is gone.
func (h holder) gone(me holder) bool {
	if h.host != me.host || h.thread != 0 || h.pid <= 0 {
		return false
	}
	return h.pid == me.pid || errors.Is(unix.Kill(h.pid, 0), unix.ESRCH)
}

// roster lists who holds locks.
type roster struct {
	shared    []holder
	exclusive []holder
}

// maxRoster bounds the roster's file, in bytes: it is some thousand holders.
const maxRoster = 1 << 18

// readRoster reads the roster at path. One that is missing, or that a crash left
// half written, is empty; one that makes no sense is an error.
func readRoster(path string) (roster, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return roster{}, nil
	}
	if err != nil {
		return roster{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRoster+1))
	if err == nil && len(data) > maxRoster {
		err = errors.New("too long")
	}
	var r roster
	if err == nil {
		r, err = parseRoster(data)
	}
	if err != nil {
		return roster{}, fmt.Errorf("roster of locks %s: %w", path, err)
	}
	return r, nil
}

func parseRoster(data []byte) (r roster, err error) {
	if !json.Valid(data) {
		return r, nil
	}
	var lists struct {
		Shared    []json.RawMessage `json:"shared"`
		Exclusive []json.RawMessage `json:"exclusive"`
	}
	if err := json.Unmarshal(data, &lists); err != nil {
		return r, err
	}
	if r.shared, err = parseHolders(lists.Shared); err != nil {
		return roster{}, err
	}
	if r.exclusive, err = parseHolders(lists.Exclusive); err != nil {
		return roster{}, err
	}
	return r, nil
}

func parseHolders(entries []json.RawMessage) (found []holder, err error) {
	for _, entry := range entries {
		var h holder
		fields := []any{&h.host, &h.pid, &h.thread}
		if err := json.Unmarshal(entry, &fields); err != nil {
			return nil, err
		}
		if len(fields) != 3 || h.host == "" {
			return nil, fmt.Errorf("entry %.100q", []byte(entry))
		}
		found = append(found, h)
	}
	return found, nil
}

// prune takes out the holders who are gone.
func (r *roster) prune(me holder) {
	gone := func(h holder) bool { return h.gone(me) }
	r.shared = slices.DeleteFunc(r.shared, gone)
	r.exclusive = slices.DeleteFunc(r.exclusive, gone)
}

// pack is the reverse of parseRoster.
func (r *roster) pack() ([]byte, error) {
	lists := map[string][][]any{"shared": {}, "exclusive": {}}
	for key, list := range map[string][]holder{"shared": r.shared, "exclusive": r.exclusive} {
		for _, h := range list {
			lists[key] = append(lists[key], []any{h.host, h.pid, h.thread})
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(lists)
	return b.Bytes(), err
}

// write puts the roster where it was read, or removes it when it is empty: that
// works on a full disk too.
func (r *roster) write(path string) error {
	if len(r.shared)+len(r.exclusive) == 0 {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	data, err := r.pack()
	if err != nil {
		return err
	}
	tmp := path + ".tmp" // nobody else writes it meanwhile
	err = os.WriteFile(tmp, data, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // the first error tells more
	}
	return err
}
