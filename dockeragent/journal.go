package dockeragent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// The files in an agent's directory.
const (
	journalFile = "journal.json"
	stateFile   = "status.json"
	lockFile    = "agent.lock"
)

// Held is a container that the agent has paused or stopped.
type Held struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Quiesce Quiesce   `json:"quiesce"` // "pause" or "stop"
	Volume  string    `json:"volume"`  // for whose backup
	Since   time.Time `json:"since"`
	// Done tells that the engine has answered. Until then it may be about to
	// pause or stop the container still, whatever it looks like.
	Done bool `json:"done"`
}

// journal is the list of what is held, oldest first. It is on disk before it
// is true.
type journal struct {
	path string

	mu   sync.Mutex
	held []Held
}

func openJournal(dir string) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalFile)}
	data, err := os.ReadFile(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	if err := json.Unmarshal(data, &j.held); err != nil {
		return nil, hint.With(fmt.Errorf("%w: the journal %s: %w", snapshot.ErrDamaged, j.path, err),
			"see with docker ps -a which services are down, start them, and delete the file")
	}
	return j, nil
}

func (j *journal) list() []Held {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.held)
}

// add records a container that is about to be held.
func (j *journal) add(h Held) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.write(append(slices.Clone(j.held), h))
}

// done records that the engine has paused or stopped it.
func (j *journal) done(h Held) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	held := slices.Clone(j.held)
	for i := range held {
		if held[i].is(h) {
			held[i].Done = true
		}
	}
	return j.write(held)
}

// is tells whether both are the same hold.
func (h Held) is(o Held) bool { return h.ID == o.ID && h.Volume == o.Volume }

// remove forgets one that runs again.
func (j *journal) remove(h Held) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.write(slices.DeleteFunc(slices.Clone(j.held), h.is))
}

// write is called with the lock held: the order of the files is that of the
// changes. They are small, and a change is rare.
func (j *journal) write(held []Held) error {
	data, err := json.MarshalIndent(held, "", "\t")
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := atomicfile.Write(j.path, data, 0o600); err != nil {
		return err
	}
	j.held = held
	return nil
}

// lockDir makes the directory of an agent its own for as long as the file is
// open: a second agent would take for a crash's what the first one holds.
// Errors: snapshot.ErrLocked.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the agent's directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: another agent works with %s", snapshot.ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
