package replicate

import (
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// Kind is what happened.
type Kind string

// The kinds of events.
const (
	Watching Kind = "watching" // begun
	Pushed   Kind = "pushed"   // a snapshot is durable at the remote
	Brought  Kind = "brought"  // a snapshot of the remote is here
	Current  Kind = "current"  // there was nothing to do
	Failed   Kind = "failed"   // and will be tried again
	GivenUp  Kind = "given up" // trying again would not help
)

// Event is one thing that happened, for a person or a program to read.
type Event struct {
	Time     time.Time     `json:"time"`
	Kind     Kind          `json:"event"`
	Remote   string        `json:"remote,omitempty"`
	Snapshot snapshot.Info `json:"-"`
	ID       string        `json:"snapshot,omitempty"`
	Name     string        `json:"name,omitempty"`
	Files    int64         `json:"files,omitempty"`    // in the snapshot
	Size     int64         `json:"size,omitempty"`     // bytes in them
	Added    int64         `json:"added,omitempty"`    // bytes sent
	Lag      float64       `json:"lag,omitempty"`      // seconds
	Error    string        `json:"error,omitempty"`    // with Pushed and Current: what was left behind
	Retry    float64       `json:"retry_in,omitempty"` // seconds
}

// hopeless tells whether trying again would give the same error.
func hopeless(err error) bool {
	if errors.Is(err, snapshot.ErrUnreachable) {
		return false
	}
	return errors.Is(err, snapshot.ErrRefused) || errors.Is(err, snapshot.ErrKey) || errors.Is(err, snapshot.ErrUsage)
}

// Waiting times between attempts that fail.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)

// backoff is how long to wait after so many failures in a row.
func backoff(failures int) time.Duration {
	wait := firstRetry
	for range failures - 1 {
		if wait *= 2; wait >= lastRetry {
			return lastRetry
		}
	}
	return wait
}

// ledger keeps what every worker did in the job's state file, and passes events on.
type ledger struct {
	job  string
	tell func(Event)
	log  *slog.Logger

	mu    sync.Mutex // guards what follows
	v     *volume.Volume
	state volume.Replication
}

func newLedger(v *volume.Volume, job string, pid int, tell func(Event), log *slog.Logger) (*ledger, error) {
	l := &ledger{job: job, v: v, tell: tell, log: log}
	l.state = volume.Replication{PID: pid, Running: true, Started: time.Now().UTC(), Remotes: map[string]*volume.Replicating{}}
	before, err := v.Replication(job)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("begin a new state", "error", err)
	}
	if before != nil && before.Remotes != nil {
		l.state.Remotes = before.Remotes
	}
	return l, l.state.Save(v, job)
}

// note records an event of a remote; change is told what is known of it.
func (l *ledger) note(e Event, change func(*volume.Replicating)) {
	e.Time = time.Now().UTC()
	l.mu.Lock()
	defer l.mu.Unlock()
	if change != nil {
		r := l.state.Remotes[e.Remote]
		if r == nil {
			r = &volume.Replicating{}
			l.state.Remotes[e.Remote] = r
		}
		change(r)
		if err := l.state.Save(l.v, l.job); err != nil {
			l.log.Warn("the state is not kept", "error", err)
		}
	}
	if l.tell != nil && e.Kind != "" {
		l.tell(e)
	}
}

// failed records that an attempt went wrong.
func (l *ledger) failed(remote string, err error, retry time.Duration) {
	e := Event{Kind: Failed, Remote: remote, Error: err.Error(), Retry: retry.Seconds()}
	if retry == 0 {
		e.Kind = GivenUp
	}
	l.note(e, func(r *volume.Replicating) {
		if r.Error == "" {
			r.Failing = time.Now().UTC()
		}
		r.Error = err.Error()
	})
}

// good records that the remote and the volume are equal, but for what e says was
// left behind, and how long it took.
func (l *ledger) good(e Event) {
	l.note(e, func(r *volume.Replicating) {
		now := time.Now().UTC()
		r.Pending = time.Time{}
		switch {
		case e.Error == "":
			r.LastGood, r.Failing = now, time.Time{}
		case r.Error == "":
			r.Failing = now
		}
		r.Error = e.Error
		if e.Kind != Current {
			r.LastPush, r.Snapshot, r.Lag = now, e.ID, e.Lag
		}
	})
}
