package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// state is what this host remembers of the volume, in .s4/local/state.json.
// Losing it loses no data: the next push or pull then has to be told --force.
type state struct {
	path string

	// Base is the snapshot the live tree equals but for unpushed changes.
	Base *mark `json:"base,omitempty"`
	// Arriving is the snapshot a clone or pull was bringing when it last
	// wrote this; nil when it ended well.
	Arriving *mark `json:"arriving,omitempty"`
	// Repositories by id.
	Repositories map[string]*repositoryState `json:"repositories,omitempty"`
}

// mark names one snapshot in one source.
type mark struct {
	ID     string    `json:"id"`
	Source string    `json:"source"`
	Handle string    `json:"handle"`
	Time   time.Time `json:"time"`
}

func markOf(s snapshot.Info) *mark {
	return &mark{ID: s.ID, Source: s.Source, Handle: s.Handle, Time: s.Time}
}

// is tells whether m names the moment s is of, in whichever source.
func (m *mark) is(s snapshot.Info) bool { return m != nil && m.ID == s.ID }

// repositoryState is what this host knows of one repository.
type repositoryState struct {
	URL        string    `json:"url"`
	Encryption string    `json:"encryption"`
	Adopted    bool      `json:"adopted,omitempty"` // its plain archives are not this volume's
	Series     string    `json:"series,omitempty"`  // of the plain archives that are, once one was brought here
	Seen       []string  `json:"seen,omitempty"`    // ids of snapshots, sorted
	Pushing    string    `json:"pushing,omitempty"` // id of the snapshot last sent there, which may not have come to its commit
	LastPush   time.Time `json:"last_push,omitzero"`
	LastWhole  time.Time `json:"last_whole,omitzero"` // of those pushes that left nothing behind
	Contact    time.Time `json:"contact,omitzero"`
}

// holds tells whether a snapshot there belongs to the volume with that id. Of
// plain archives, which do not say, those do that continue what was cloned.
func (r *repositoryState) holds(s snapshot.Info, volume string) bool {
	if s.Volume != "" {
		return s.Volume == volume
	}
	if r.Series != "" {
		return s.Series == r.Series
	}
	return !r.Adopted
}

// pushed notes when a push went through.
func (r *repositoryState) pushed(result *PushResult) {
	r.LastPush = time.Now().UTC()
	if len(result.Unread) == 0 {
		r.LastWhole = r.LastPush
	}
}

// hasSeen counts what a push sent that was killed before it could note the commit.
func (r *repositoryState) hasSeen(id string) bool {
	_, found := slices.BinarySearch(r.Seen, id)
	return found || id == r.Pushing
}

func (r *repositoryState) see(id string) {
	if i, found := slices.BinarySearch(r.Seen, id); !found {
		r.Seen = slices.Insert(r.Seen, i, id)
	}
}

// forget drops what the repository no longer holds.
func (r *repositoryState) forget(held map[string]bool) {
	r.Seen = slices.DeleteFunc(r.Seen, func(id string) bool { return !held[id] })
}

func loadState(path string) (*state, error) {
	s := &state{path: path, Repositories: map[string]*repositoryState{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, hint.With(fmt.Errorf("read state %s: %w", path, err),
			"it can be removed: then push or pull once with --force")
	}
	if s.Repositories == nil {
		s.Repositories = map[string]*repositoryState{}
	}
	return s, nil
}

func (s *state) save() error {
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := atomicfile.Write(s.path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// repository returns what is known of the repository id, making a place for it.
func (s *state) repository(id string) *repositoryState {
	r := s.Repositories[id]
	if r == nil {
		r = &repositoryState{}
		s.Repositories[id] = r
	}
	return r
}

// at finds the repository that was last reached at one of the URLs.
func (s *state) at(urls ...string) (id string, r *repositoryState, ok bool) {
	for id, r := range s.Repositories {
		if slices.Contains(urls, r.URL) {
			return id, r, true
		}
	}
	return "", nil, false
}
