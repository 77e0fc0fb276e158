package replicate

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// MirrorOptions say how to mirror.
type MirrorOptions struct {
	Remote string        // "" is the default remote
	Every  time.Duration // how often to ask for news
	Once   bool          // bring what there is and return
	Force  bool          // keep what was changed here in a snapshot, and go on
	Events func(Event)   // called by one goroutine at a time; may be nil
	Report volume.Reporter
	Log    *slog.Logger
}

// restful is how many times as long as a look takes there is none.
const restful = 4

// Mirror brings the volume to the remote's newest snapshot whenever there is
// one, until ctx ends, which is no error.
//
// Errors: snapshot.ErrLocked when another does so already;
// snapshot.ErrRefused when something was changed here.
func Mirror(ctx context.Context, v *volume.Volume, o MirrorOptions) error {
	done, err := v.OnlyOne(ctx, "sync")
	if err != nil {
		return err
	}
	defer done()
	if err := v.Pin(); err != nil {
		return err
	}
	v.KeepConnections()
	remote, err := v.Remote(o.Remote)
	if err != nil {
		return err
	}
	book, err := newLedger(v, "sync", os.Getpid(), o.Events, o.Log)
	if err != nil {
		return err
	}
	if !o.Once {
		book.note(Event{Kind: Watching, Remote: remote.Name}, nil)
	}
	looking, err := v.Again() // keeps the connection between one look and the next
	if err != nil {
		return err
	}
	defer func() { looking.Close() }()
	told := time.Time{}
	for failures := 0; ; {
		began := time.Now()
		e, exchanged, err := mirror(ctx, v, looking, remote.Name, o)
		if exchanged { // what we hold on to is not the volume any more
			looking.Close()
			if err := v.Pin(); err != nil {
				return err
			}
			if looking, err = v.Again(); err != nil {
				return err
			}
		}
		// A look through ssh starts borg there, each time.
		wait := max(o.Every, restful*time.Since(began))
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failures = 0
			// Saying every second that all is well is worth a line a minute.
			if e.Kind == Brought || time.Since(told) > time.Minute || o.Once {
				told = time.Now()
				book.good(e)
			}
		case hopeless(err) || o.Once:
			book.failed(remote.Name, err, 0)
			return err
		default:
			failures++
			wait = max(wait, backoff(failures))
			book.failed(remote.Name, err, wait)
			told = time.Time{}
		}
		if o.Once {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// mirror looks once, and brings what is new.
func mirror(ctx context.Context, v, looking *volume.Volume, remote string, o MirrorOptions) (e Event, exchanged bool, err error) {
	e = Event{Kind: Current, Remote: remote}
	began := time.Now()
	news, err := looking.HasNews(ctx, remote)
	if err != nil || !news {
		return e, false, err
	}
	fresh, err := v.Again()
	if err != nil {
		return e, false, err
	}
	defer fresh.Close()
	pull := volume.PullOptions{Remote: remote, Keep: true, Report: o.Report}
	result, err := fresh.Pull(ctx, pull)
	if o.Force && errors.Is(err, snapshot.ErrRefused) {
		if _, err := fresh.Snapshot(ctx, "before sync"); err != nil {
			return e, false, err
		}
		pull.Force = true
		result, err = fresh.Pull(ctx, pull)
	}
	if result == nil {
		return e, false, err
	}
	s := result.Snapshot
	e.Snapshot, e.ID, e.Name, e.Files, e.Size = s, s.ID, s.Name, s.Files, s.Size
	if !result.UpToDate {
		e.Kind, e.Lag = Brought, time.Since(began).Seconds()
	}
	return e, result.Exchanged, err
}
