package dockeragent

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/snapshot"
)

// State is what an agent knows of its project. It is in the agent's directory,
// for `s4 docker status` and for the next agent.
type State struct {
	Project  string                  `json:"project"`
	Updated  time.Time               `json:"updated"`
	Volumes  map[string]*VolumeState `json:"volumes"`
	Problems []string                `json:"problems"` // see Plan
	Left     []string                `json:"left"`     // see Plan
	Held     []Held                  `json:"held"`     // services that are down for a backup
}

// VolumeState is how the backups of one docker volume fare.
type VolumeState struct {
	Remote   string        `json:"remote"`
	Interval time.Duration `json:"interval"` // nanoseconds
	LastGood time.Time     `json:"last_good,omitzero"`
	LastTry  time.Time     `json:"last_try,omitzero"`
	Next     time.Time     `json:"next"`
	Running  bool          `json:"running"`
	Error    string        `json:"error,omitempty"` // why the last try failed; "" after a good one
	Failures int           `json:"failures"`        // since the last good one
	Empty    bool          `json:"empty"`           // at the last try
	Gone     bool          `json:"gone"`            // no service mounts it any more, or it is left out now
	Last     Result        `json:"last"`            // of the last good one

	LastPrune  time.Time `json:"last_prune,omitzero"`
	PruneError string    `json:"prune_error,omitempty"` // why old snapshots stay; "" when they went
}

func loadState(dir, project string) (*State, error) {
	s := &State{}
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err == nil {
		s, err = parseState(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s.Project = project
	if s.Volumes == nil {
		s.Volumes = map[string]*VolumeState{}
	}
	for _, v := range s.Volumes {
		v.Running = false // in a process that is no more
		if v.Failures > 0 {
			v.Next = time.Time{} // who starts an agent anew has put right what failed
		}
	}
	return s, nil
}

func parseState(data []byte) (*State, error) {
	s := &State{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%w: the agent's status: %w", snapshot.ErrDamaged, err)
	}
	maps.DeleteFunc(s.Volumes, func(_ string, v *VolumeState) bool { return v == nil })
	return s, nil
}

func (s *State) save(dir string) error {
	s.Updated = time.Now().UTC()
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("write the agent's status: %w", err)
	}
	return atomicfile.Write(filepath.Join(dir, stateFile), data, 0o600)
}

// follow brings the state in line with a plan.
func (s *State) follow(p *Plan, now time.Time) {
	s.Problems, s.Left = p.Problems, p.Left
	for name, st := range s.Volumes {
		st.Gone = !slices.ContainsFunc(p.Volumes, func(v Volume) bool { return v.Name == name })
		if st.Gone && st.LastGood.IsZero() && !st.Running {
			delete(s.Volumes, name)
		}
	}
	for _, v := range p.Volumes {
		st := s.Volumes[v.Name]
		if st == nil {
			st = &VolumeState{Next: now}
			s.Volumes[v.Name] = st
		}
		st.Remote, st.Interval = v.Remote, v.Interval
		if v.Keep.IsZero() {
			st.PruneError = ""
		}
		// The interval may have become shorter, or the clock have been set.
		if latest := now.Add(v.Interval); st.Next.After(latest) {
			st.Next = latest
		}
		if v.Err != nil {
			st.Error = v.Err.Error()
		}
	}
}

// begin notes that a backup starts.
func (st *VolumeState) begin(now time.Time) {
	st.Running, st.LastTry = true, now
}

// The waits after failures, which double each time.
const (
	retryWait     = 30 * time.Second
	retryWaitHeld = 5 * time.Minute // when each try takes services down
)

// end notes how a backup ended, and when the next one is due. Volumes that
// began together drift apart: each comes a bit earlier, by its name.
func (st *VolumeState) end(name string, r Result, held bool, err error, now time.Time) {
	st.Running = false
	st.Empty = errors.Is(err, ErrEmpty)
	if err == nil {
		st.LastGood, st.Last, st.Failures, st.Error = now, r, 0, ""
		h := fnv.New32a()
		_, _ = h.Write([]byte(name))
		st.Next = st.LastTry.Add(st.Interval - st.Interval/20*time.Duration(h.Sum32()%100)/100)
		return
	}
	st.Error = err.Error()
	if st.Empty && !st.LastGood.IsZero() {
		st.Error = fmt.Sprintf("the volume is empty, and had %d files at the last backup; nothing was pushed", st.Last.Files)
	}
	wait := retryWait
	if held {
		wait = retryWaitHeld
	}
	st.Failures++
	for i := 1; i < st.Failures && wait < st.Interval; i++ {
		wait *= 2
	}
	st.Next = now.Add(min(wait, st.Interval))
}

// pruned notes how pruning ended. Where it failed the next good backup tries again.
func (st *VolumeState) pruned(err error, now time.Time) {
	if err != nil {
		st.PruneError = err.Error()
		return
	}
	st.LastPrune, st.PruneError = now, ""
}
