package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/volume"
)

// PushOptions say how to replicate.
type PushOptions struct {
	Remotes []string      // none means all that the volume has
	Every   time.Duration // how often to look for changes
	Once    bool          // push what there is and return
	Events  func(Event)   // called by one goroutine at a time; may be nil
	Report  volume.Reporter
	Log     *slog.Logger
}

// contact is how often a remote is asked for though nothing has changed, so
// that [volume.Replicating.LastGood] means something.
const contact = 5 * time.Minute

// patience is how long a push waits for another s4 that is at work on the volume:
// for a push to another remote, where the volume cannot be pushed to two at once.
const patience = time.Minute

// Push pushes the volume to its remotes whenever it changes, until ctx ends,
// which is no error.
//
// Errors: snapshot.ErrLocked when another does so already; those of
// [volume.Volume.Push] that trying again would not help.
func Push(ctx context.Context, v *volume.Volume, o PushOptions) error {
	done, err := v.OnlyOne(ctx, "replicate")
	if err != nil {
		return err
	}
	defer done()
	if err := v.Pin(); err != nil {
		return err
	}
	v.KeepConnections()
	names, err := remotes(v, o.Remotes)
	if err != nil {
		return err
	}
	book, err := newLedger(v, "replicate", os.Getpid(), o.Events, o.Log)
	if err != nil {
		return err
	}
	changes := newChanges()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	if !o.Once {
		// Begun before the first push, so that nothing is missed.
		w, err := v.Watch(ctx, o.Every)
		if err != nil {
			return fmt.Errorf("watch for changes: %w", err)
		}
		watching.Go(func() {
			defer w.Close() //nolint:errcheck // only listened to
			for ctx.Err() == nil {
				if err := w.Next(ctx); err != nil && ctx.Err() == nil {
					// The push that comes next tells what is wrong.
					o.Log.Warn("look for changes", "error", err)
					pause(ctx, firstRetry)
				}
				changes.add()
			}
		})
		book.note(Event{Kind: Watching}, nil)
	}
	errs := make([]error, len(names))
	var working sync.WaitGroup
	for i, name := range names {
		working.Go(func() {
			p := pusher{v: v, remote: name, o: o, book: book, changes: changes}
			errs[i] = errors.Join(p.run(ctx), p.connection.Close())
		})
	}
	working.Wait()
	return errors.Join(errs...)
}

// pause waits, but not beyond the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func remotes(v *volume.Volume, wanted []string) ([]string, error) {
	if len(wanted) > 0 {
		for _, name := range wanted {
			if _, err := v.Remote(name); err != nil {
				return nil, err
			}
		}
		return wanted, nil
	}
	var names []string
	for _, r := range v.Remotes() {
		names = append(names, r.Name)
	}
	if len(names) == 0 {
		return nil, hint.With(errors.New("there is no remote to replicate to"), "add one with: s4 remote add origin URL")
	}
	return names, nil
}

// changes counts what the watcher tells, for many to wait for.
type changes struct {
	mu    sync.Mutex // guards what follows
	count int
	more  chan struct{} // closed when the next one comes
}

// newChanges begins with one: nobody knows what happened before.
func newChanges() *changes {
	return &changes{count: 1, more: make(chan struct{})}
}

func (c *changes) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	close(c.more)
	c.more = make(chan struct{})
}

// now tells how many there were, and gives a channel that is closed at the next.
func (c *changes) now() (int, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count, c.more
}

// pusher keeps one remote up to date.
type pusher struct {
	v       *volume.Volume
	remote  string
	o       PushOptions
	book    *ledger
	changes *changes

	connection volume.Connection

	pushed   int       // of changes
	last     time.Time // that the last snapshot sent is of
	since    time.Time
	failures int
}

func (p *pusher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		count, more := p.changes.now()
		wait := contact
		if count != p.pushed {
			if p.since.IsZero() {
				p.since = time.Now()
			}
			began := time.Now()
			retry, err := p.attempt(ctx)
			switch {
			case ctx.Err() != nil:
				return nil //nolint:nilerr // whoever ended it wants no error of that
			case err != nil:
				return err
			case p.o.Once:
				return nil
			case retry == 0:
				p.pushed, p.since = count, time.Time{}
				// Leave the rest of the machine some room when changes never cease,
				// and let the clock pass the last snapshot, which has its second alone.
				took := time.Since(began)
				more, wait = nil, max(p.o.Every-took, took/2, time.Until(p.last.Add(time.Second)))
			default:
				more, wait = nil, retry
			}
		}
		select {
		case <-ctx.Done():
		case <-more:
		case <-time.After(wait):
			if wait == contact { // look there, though nothing is known to have changed here
				p.pushed--
				if err := p.connection.Close(); err != nil {
					p.o.Log.Warn("let go of the remote", "remote", p.remote, "error", err)
				}
			}
		}
	}
	return nil
}

// attempt pushes once. With an error there is no use in trying again, else
// after retry, unless that is 0.
func (p *pusher) attempt(ctx context.Context) (retry time.Duration, err error) {
	result, err := p.push(ctx)
	unread, ok := errors.AsType[*volume.UnreadError](err)
	if ok { // all else is there; the log has named them
		err = nil
	}
	if ctx.Err() != nil {
		return 0, nil //nolint:nilerr // whoever ended it wants no error of that
	}
	if err != nil {
		p.failures++
		if hopeless(err) || p.o.Once {
			p.book.failed(p.remote, err, 0)
			return 0, err
		}
		retry = backoff(p.failures)
		p.book.failed(p.remote, err, retry)
		return retry, nil
	}
	p.failures = 0
	s := result.Snapshot
	p.last = s.Time
	e := Event{Kind: Pushed, Remote: p.remote, Snapshot: s, ID: s.ID, Name: s.Name,
		Files: result.Files, Size: result.Size, Added: result.Added, Lag: result.Committed.Sub(p.since).Seconds()}
	if result.UpToDate {
		e.Kind, e.Lag = Current, 0
	}
	if unread != nil {
		e.Error = unread.Error()
	}
	p.book.good(e)
	return 0, nil
}

func (p *pusher) push(ctx context.Context) (*volume.PushResult, error) {
	v, err := p.v.Again()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return v.Push(ctx, volume.PushOptions{Remote: p.remote, Patience: patience, Connection: &p.connection, Report: p.o.Report})
}
