package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/watch"
)

// Replication is how replicate or sync is doing, kept in .s4/local/JOB.json.
type Replication struct {
	PID     int                     `json:"pid"`
	Running bool                    `json:"running"`
	Started time.Time               `json:"started"`
	Remotes map[string]*Replicating `json:"remotes"`
}

// Replicating is how it is doing with one remote.
type Replicating struct {
	// LastGood is when the remote last had all of the volume, or sync all
	// that is at the remote.
	LastGood time.Time `json:"last_good,omitzero"`
	LastPush time.Time `json:"last_push,omitzero"` // when something was last sent or brought
	Snapshot string    `json:"snapshot,omitempty"` // its ID
	// Lag is how long it took from noticing the change until it was durable.
	Lag     float64   `json:"lag"` // seconds
	Pending time.Time `json:"pending_since,omitzero"`
	Error   string    `json:"last_error,omitempty"` // "" when the last attempt went well
	Failing time.Time `json:"failing_since,omitzero"`
}

// Save keeps the state of job.
func (r *Replication) Save(v *Volume, job string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = atomicfile.Write(v.path(LocalDir, job+".json"), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note the state of %s: %w", job, err)
	}
	return nil
}

// Replication tells how job, "replicate" or "sync", is doing. Where it never
// ran the error is fs.ErrNotExist.
func (v *Volume) Replication(job string) (*Replication, error) {
	r := &Replication{}
	data, err := os.ReadFile(v.path(LocalDir, job+".json"))
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", job, err)
	}
	r.Running = v.runs(job)
	return r, nil
}

// runs tells whether a process has the job's lock.
func (v *Volume) runs(job string) bool {
	f, err := os.Open(v.path(LocalDir, job+".lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Watch watches the live tree for changes, looking that often.
func (v *Volume) Watch(ctx context.Context, every time.Duration) (watch.Watcher, error) {
	if v.subvolume {
		return watch.NewSubvolume(v.Root, every)
	}
	excluded, err := exclusionAt(v.Root)
	if err != nil {
		return nil, err
	}
	return watch.NewDirectory(ctx, v.Root, every, func(path string, dir bool) bool {
		if path == configKey { // which may be another now; a directory that is not left out any more gives hints when it is made anew
			if now, err := exclusionAt(v.Root); err == nil {
				excluded = now
			}
		}
		return ignored(path, dir) || leftOut(excluded, path, dir)
	}, v.log)
}

// ignored is what is this host's own.
func ignored(path string, dir bool) bool {
	return private(path, dir) || strings.HasPrefix(path, LocalDir+"/") || strings.HasPrefix(path, SnapshotsDir+"/")
}

// HasNews asks a remote whether it has a newer snapshot of this volume than the
// base. Errors: those of [Volume.Pull].
func (v *Volume) HasNews(ctx context.Context, remote string) (bool, error) {
	r, err := v.Remote(remote)
	if err != nil {
		return false, err
	}
	past, err := v.Past(ctx)
	if err != nil {
		return false, err
	}
	if v.state, err = loadState(v.state.path); err != nil {
		return false, err
	}
	id, known, ok := v.repositoryOf(r)
	if !ok || v.state.Base == nil || v.state.Arriving != nil {
		return true, nil // a pull has to look
	}
	source := history.BorgSourceID(id)
	if err := past.RefreshSource(ctx, source); err != nil {
		return false, err
	}
	target, err := v.pullTarget(ctx, past, known, source, "")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !v.state.Base.is(target), err
}

// repositoryOf finds the repository that a remote led to when it was last reached.
func (v *Volume) repositoryOf(r Remote) (id string, known *repositoryState, ok bool) {
	place, err := reach.ParseLocation(r.URL)
	if err != nil {
		return "", nil, false
	}
	return v.state.at(v.ownLocation(place).String(), place.String())
}

// Interval is how often replicate or sync looks, as configured. Errors:
// snapshot.ErrUsage.
func (v *Volume) Interval(job string, otherwise time.Duration) (time.Duration, error) {
	return v.duration(job+".interval", otherwise)
}

// duration is a setting that is a time.
func (v *Volume) duration(key string, otherwise time.Duration) (time.Duration, error) {
	value, err := GetSetting(v, v.access, key)
	if errors.Is(err, fs.ErrNotExist) {
		return otherwise, nil
	}
	if err != nil {
		return 0, err
	}
	if n, err := strconv.Atoi(value); err == nil && n > 0 { // seconds
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, hint.With(fmt.Errorf("%w: %s is %q, not a time", snapshot.ErrUsage, key, value), "such as: s4 config set "+key+" 5s")
	}
	return d, nil
}

// Readiness is how old what a remote has is.
type Readiness struct {
	Remote   string    `json:"remote"`
	LastGood time.Time `json:"last_good,omitzero"` // when it last had everything, or this volume had all of it
	Error    string    `json:"last_error,omitempty"`
}

func (r Readiness) String() string {
	text := r.Remote + ": never pushed or brought"
	if !r.LastGood.IsZero() {
		text = fmt.Sprintf("%s: last good %s ago", r.Remote, time.Since(r.LastGood).Round(time.Second))
	}
	if r.Error != "" {
		text += ", now: " + r.Error
	}
	return text
}

// Readiness tells about that remote, or with "" about every one, without asking
// any. Whatever pushed or pulled counts: replicate, sync, or a person.
func (v *Volume) Readiness(remote string) ([]Readiness, error) {
	remotes := v.Remotes()
	if remote != "" {
		r, err := v.Remote(remote)
		if err != nil {
			return nil, err
		}
		remotes = []Remote{r}
	}
	var all []Readiness
	for _, r := range remotes {
		one := Readiness{Remote: r.Name}
		if _, known, ok := v.repositoryOf(r); ok {
			one.LastGood = known.LastWhole
		}
		for _, job := range []string{"replicate", "sync"} {
			state, err := v.Replication(job)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if at := state.Remotes[r.Name]; at != nil {
				if at.LastGood.After(one.LastGood) {
					one.LastGood = at.LastGood
				}
				if at.Error != "" {
					one.Error = at.Error
				}
			}
		}
		all = append(all, one)
	}
	return all, nil
}
