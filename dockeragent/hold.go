package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
)

const (
	// releaseTries is how often one container is tried to be let go, each time
	// waiting longer; what is left then is tried again before the next backup.
	releaseTries = 5
	// releaseTime bounds a release: nothing may stop it, also not the end of
	// the process, but the engine may hang.
	releaseTime = 2 * time.Minute
	// stopTime bounds a stop, which takes as long as the container was given.
	stopTime = 10 * time.Minute
	// healthTime is how long dependents wait for a service to be healthy again.
	healthTime = time.Minute
)

// holder pauses and stops containers, and brings them back.
type holder struct {
	engine  *dockerapi.Client
	journal *journal
	log     *slog.Logger
}

// held is what was paused or stopped for one backup.
type held struct {
	h     *holder
	users []User // of what is held, in the order of the journal's entries
	list  []Held

	once sync.Once
	err  error
}

// hold quiesces the running users of a volume that can write to it, each as
// its rules say, dependents first. When one cannot be, those before it are let
// go again.
func (h *holder) hold(ctx context.Context, v Volume) (*held, error) {
	all := &held{h: h}
	for _, u := range v.Users {
		if u.Quiesce == QuiesceNone || !u.Writable {
			continue
		}
		one, err := h.holdOne(ctx, v.Name, u)
		if one != nil {
			all.list, all.users = append(all.list, *one), append(all.users, u)
		}
		if err != nil {
			return nil, errors.Join(err, all.release(ctx))
		}
	}
	return all, nil
}

// holdOne gives what has to be let go, also on error; nil when u was left alone.
func (h *holder) holdOne(ctx context.Context, volume string, u User) (*Held, error) {
	d, err := h.engine.Inspect(ctx, u.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // removed meanwhile
	}
	if err != nil {
		return nil, err
	}
	if !d.State.Running || d.State.Paused {
		return nil, nil
	}
	one := &Held{ID: u.ID, Name: u.Name, Quiesce: u.Quiesce, Volume: volume, Since: time.Now().UTC()}
	if err := h.journal.add(*one); err != nil {
		return nil, err
	}
	err = h.quiesce(ctx, *one)
	if errors.Is(err, fs.ErrNotExist) || dockerapi.Conflict(err) {
		// It ended by itself, or somebody else paused it: not ours.
		return nil, h.journal.remove(*one)
	}
	if err != nil {
		return one, fmt.Errorf("%s %s: %w", u.Quiesce, u.Name, err)
	}
	one.Done = true
	if err := h.journal.done(*one); err != nil {
		return one, err
	}
	h.log.Info("holding", "container", u.Name, "by", u.Quiesce, "for", volume)
	return one, nil
}

// quiesce goes on when ctx ends: the engine does, too, and only its answer
// tells when the container is down and can be brought back.
func (h *holder) quiesce(ctx context.Context, one Held) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if one.Quiesce == QuiesceStop {
		return h.engine.Stop(ctx, one.ID)
	}
	return h.engine.Pause(ctx, one.ID)
}

// release brings back what is held, the last first, whatever became of ctx.
// Only the first call does; the others wait for it and give the same error.
func (a *held) release(ctx context.Context) error {
	a.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
		defer cancel()
		for i, one := range slices.Backward(a.list) {
			if err := a.h.letGo(ctx, one); err != nil {
				a.err = errors.Join(a.err, err)
				continue
			}
			if slices.ContainsFunc(a.users[:i], func(u User) bool { return needsHealthy(u, a.users[i].Service) }) {
				if ok, err := a.h.engine.WaitHealthy(ctx, one.ID, healthTime); err != nil || !ok {
					a.h.log.Warn("not healthy again; its dependents are started anyway", "container", one.Name)
				}
			}
		}
	})
	return a.err
}

func needsHealthy(u User, service string) bool {
	return slices.Contains(u.DependsOn, Dependency{Service: service, Healthy: true})
}

// letGo makes a container run again that we paused or stopped, and forgets it.
func (h *holder) letGo(ctx context.Context, one Held) error {
	var err error
	wait := 100 * time.Millisecond
	for range releaseTries {
		if err = h.resume(ctx, one); err == nil {
			h.log.Info("let go", "container", one.Name, "after", time.Since(one.Since).Round(time.Millisecond))
			return h.journal.remove(one)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bring back %s: %w", one.Name, err)
		case <-time.After(wait):
			wait *= 4
		}
	}
	return fmt.Errorf("bring back %s: %w", one.Name, err)
}

// resume undoes what was done, unless somebody has done so already, or has
// gone further: what was paused and is stopped now was not stopped by us.
// What the engine may be about to do still is brought to its end first.
func (h *holder) resume(ctx context.Context, one Held) error {
	err := error(nil)
	if !one.Done {
		if err = h.quiesce(ctx, one); dockerapi.Conflict(err) {
			err = nil
		}
	}
	var d dockerapi.Details
	if err == nil {
		d, err = h.engine.Inspect(ctx, one.ID)
	}
	switch {
	case err != nil:
	case one.Quiesce == QuiescePause && d.State.Paused:
		err = h.engine.Unpause(ctx, one.ID)
	case one.Quiesce == QuiesceStop && !d.State.Running && !d.State.Restarting:
		err = h.engine.Start(ctx, one.ID)
	}
	if errors.Is(err, fs.ErrNotExist) { // removed
		return nil
	}
	return err
}

// recover brings back what the journal lists and mine does not claim: what a
// predecessor left down when it crashed, or what could not be let go.
func (h *holder) recover(ctx context.Context, mine func(volume string) bool) error {
	var errs []error
	for _, one := range slices.Backward(h.journal.list()) {
		if mine(one.Volume) {
			continue
		}
		h.log.Warn("was left down, bringing it back", "container", one.Name, "held by", one.Quiesce, "since", one.Since)
		if err := h.letGo(ctx, one); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
