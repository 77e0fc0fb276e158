package dockeragent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// What an agent does when it is not told otherwise.
const (
	DefaultInterval = time.Hour
	DefaultMaxHold  = 5 * time.Minute
	defaultParallel = 2
)

// look is how often the project is looked at when nothing seems to happen.
const look = time.Minute

// pruneInterval is how long after pruning a volume's remote is left alone.
const pruneInterval = 24 * time.Hour

// retryEngine is how long to wait for an engine that does not answer.
const retryEngine = 5 * time.Second

// Config is what an agent works with.
type Config struct {
	Engine   *dockerapi.Client
	Project  string // "": that of the container Self
	Self     string // id of the container that the agent runs in; "" on the host; see [Self]
	Dir      string // the agent's own; no two agents may share one
	Backup   Backup
	Defaults Defaults
	MaxHold  time.Duration // services are never down longer; 0 is DefaultMaxHold
	Parallel int           // backups at a time; 0 is two
	Log      *slog.Logger
}

// Agent backs up the volumes of one project.
type Agent struct {
	project, self string
	dir           string
	backup        Backup
	defaults      Defaults
	maxHold       time.Duration
	parallel      int
	log           *slog.Logger
	holder        *holder
	lock          *os.File

	// Of Run's and Once's own goroutine alone.
	state   *State
	running map[string]Volume // by name
}

// outcome is how a backup ended.
type outcome struct {
	volume string
	result Result
	held   bool
	err    error

	givenUp  bool // as the agent ends
	pruning  bool // it was tried
	pruned   Pruned
	pruneErr error
}

// New makes an agent, and its directory its own until Close.
// Errors: snapshot.ErrLocked when another agent has the directory;
// snapshot.ErrDamaged; snapshot.ErrUsage without a project.
func New(ctx context.Context, c Config) (_ *Agent, err error) {
	if c.Project == "" && c.Self != "" {
		if c.Project, err = ProjectOf(ctx, c.Engine, c.Self); err != nil {
			return nil, err
		}
	}
	if c.Project == "" {
		return nil, hint.With(fmt.Errorf("%w: of which compose project?", snapshot.ErrUsage), "name it with --project")
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	j, err := openJournal(c.Dir)
	if err != nil {
		return nil, err
	}
	state, err := loadState(c.Dir, c.Project)
	if err != nil {
		return nil, err
	}
	c.Defaults.Interval = cmp.Or(c.Defaults.Interval, DefaultInterval)
	return &Agent{
		project: c.Project, self: c.Self, dir: c.Dir, backup: c.Backup, defaults: c.Defaults,
		maxHold: cmp.Or(c.MaxHold, DefaultMaxHold), parallel: cmp.Or(c.Parallel, defaultParallel), log: c.Log,
		holder: &holder{engine: c.Engine, journal: j, log: c.Log}, lock: lock,
		state: state, running: map[string]Volume{},
	}, nil
}

// ProjectOf is the compose project of a container, "" for none.
func ProjectOf(ctx context.Context, engine *dockerapi.Client, id string) (string, error) {
	d, err := engine.Inspect(ctx, id)
	return d.Config.Labels[composeProject], err
}

// Close gives the directory free.
func (a *Agent) Close() error { return a.lock.Close() }

// Run backs up each volume whenever its time has come, until ctx ends; what is
// held then runs again when it returns. First of all it brings back what a
// crash has left down.
func (a *Agent) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	changed := make(chan struct{}, 1)
	workers.Go(func() { a.watch(ctx, changed) })
	ended := make(chan outcome)
	for ctx.Err() == nil {
		wait := a.step(ctx, func(v Volume, prune bool) {
			workers.Go(func() { ended <- a.run(ctx, v, prune) })
		})
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-changed:
		case o := <-ended:
			a.note(o)
		}
		timer.Stop()
	}
	for len(a.running) > 0 {
		a.note(<-ended)
	}
	return nil
}

// Once backs up every volume now, one after the other, and joins what failed.
func (a *Agent) Once(ctx context.Context) error {
	plan, err := a.discover(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range plan.Volumes {
		if err := v.Err; err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
			continue
		}
		o := a.run(ctx, v, a.begin(v))
		a.note(o)
		if o.err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, o.err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// discover brings back what was left down, and looks at the project.
func (a *Agent) discover(ctx context.Context) (*Plan, error) {
	if err := a.holder.recover(ctx, func(volume string) bool { _, ok := a.running[volume]; return ok }); err != nil {
		return nil, err
	}
	plan, err := Discover(ctx, a.holder.engine, a.project, a.self, a.defaults)
	if err != nil {
		return nil, err
	}
	a.state.follow(plan, time.Now())
	a.save()
	return plan, nil
}

// step starts what is due and can be started, and tells when to look again.
func (a *Agent) step(ctx context.Context, start func(v Volume, prune bool)) time.Duration {
	plan, err := a.discover(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Error("cannot look after the project", "error", err)
			a.state.Problems = []string{err.Error()}
			a.save()
		}
		return retryEngine
	}
	wait := look
	now := time.Now()
	for _, v := range plan.Volumes {
		st := a.state.Volumes[v.Name]
		if v.Err != nil || st.Running || a.busy(v) {
			continue // the end of a backup is reason to look again
		}
		if st.Next.After(now) {
			wait = min(wait, st.Next.Sub(now))
			continue
		}
		if len(a.running) >= a.parallel {
			continue
		}
		start(v, a.begin(v))
	}
	return wait
}

// busy tells whether a backup that runs has to do with a container that v's
// would pause, stop or make a dump in.
func (a *Agent) busy(v Volume) bool {
	for _, other := range a.running {
		for _, u := range v.Users {
			for _, o := range other.Users {
				if u.ID == o.ID && (u.touched() || o.touched()) {
					return true
				}
			}
		}
	}
	return false
}

func (u User) touched() bool { return u.Quiesce != QuiesceNone || u.Dump != DumpNone }

// begin notes that a backup starts, and tells whether it is time to prune after it.
func (a *Agent) begin(v Volume) (prune bool) {
	a.running[v.Name] = v
	st := a.state.Volumes[v.Name]
	st.begin(time.Now())
	a.save()
	return !v.Keep.IsZero() && time.Since(st.LastPrune) >= pruneInterval
}

func (a *Agent) run(ctx context.Context, v Volume, prune bool) outcome {
	o := outcome{volume: v.Name}
	o.result, o.held, o.err = a.backUp(ctx, v)
	o.givenUp = o.err != nil && ctx.Err() != nil
	if prune && o.err == nil && ctx.Err() == nil {
		o.pruned, o.pruneErr = a.prune(ctx, v)
		o.pruning = ctx.Err() == nil // else the next one does it
	}
	return o
}

// note writes down how a backup ended.
func (a *Agent) note(o outcome) {
	delete(a.running, o.volume)
	st := a.state.Volumes[o.volume]
	if o.givenUp {
		st.Running = false // and it stays due
		a.save()
		a.log.Info("given up, as the agent ends", "volume", o.volume)
		return
	}
	st.end(o.volume, o.result, o.held, o.err, time.Now())
	if o.pruning {
		st.pruned(o.pruneErr, time.Now())
	}
	a.save()
	p, panicked := errors.AsType[*panicError](o.err)
	switch {
	case o.err == nil:
		a.log.Info("backed up", "volume", o.volume, "snapshot", o.result.Snapshot, "files", o.result.Files, "added", o.result.Added)
	case panicked:
		a.log.Error("not backed up", "volume", o.volume, "error", p, "stack", string(p.stack), "next", st.Next)
	default:
		a.log.Error("not backed up", "volume", o.volume, "error", st.Error, "hint", hint.Of(o.err), "next", st.Next)
	}
	switch {
	case o.pruning && o.pruneErr != nil:
		a.log.Error("old snapshots stay", "volume", o.volume, "error", o.pruneErr, "hint", hint.Of(o.pruneErr))
	case o.pruned.Snapshots > 0:
		a.log.Info("old snapshots removed", "volume", o.volume, "snapshots", o.pruned.Snapshots, "freed", o.pruned.Freed)
	}
}

// save is not reason to stop: backups matter more than what is told of them.
func (a *Agent) save() {
	a.state.Held = a.holder.journal.list()
	if err := a.state.save(a.dir); err != nil {
		a.log.Error("the status is out of date", "error", err)
	}
}

// watch tells when containers came or went.
func (a *Agent) watch(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		err := a.holder.engine.Events(ctx, func(e dockerapi.Event) error {
			if e.Actor.Attributes[composeProject] != a.project || e.Action != "start" && e.Action != "destroy" {
				return nil
			}
			select {
			case changed <- struct{}{}:
			default: // it is known already
			}
			return nil
		})
		a.log.Debug("no events of the engine", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(retryEngine):
		}
	}
}
