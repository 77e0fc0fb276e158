package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// lockWait is how long a push waits for the repository's lock.
const lockWait = time.Minute

// PushOptions choose how to push.
type PushOptions struct {
	Remote  string // "" is the default remote
	Message string
	Force   bool // also onto snapshots never seen here
	// Patience is how long another s4 that is at work on the volume is waited
	// for, some seconds at least.
	Patience time.Duration
	// Connection is kept for the next push to the remote; nil: there is none.
	Connection *Connection
	// Captured is called, where it is not nil, as soon as what is pushed can no
	// longer change: a btrfs snapshot has it. It is never called where the files
	// are read as they stand.
	Captured func()
	Report   Reporter
}

// PushResult is what a push did.
type PushResult struct {
	Remote   string        `json:"remote"`
	URL      string        `json:"url"`               // the repository's
	Created  bool          `json:"created"`           // the repository was made
	UpToDate bool          `json:"up_to_date"`        // nothing had changed, nothing was added
	Snapshot snapshot.Info `json:"snapshot,omitzero"` // the new one, or the one that is up to date
	Files    int64         `json:"files"`
	Size     int64         `json:"size"`  // bytes in the volume's files
	Added    int64         `json:"added"` // bytes added to the repository
	Unread   []string      `json:"unread,omitempty"`

	Committed time.Time `json:"-"` // when the new snapshot was durable there
}

// Push stores the volume as an archive at a remote.
//
// Several remotes can be pushed to at once where the volume has btrfs snapshots:
// other work on the volume has to wait only while a snapshot is taken and while
// it is noted what became of it, not while anything is sent. A plain directory
// is locked from its first file to its last.
//
// Errors: snapshot.ErrRefused when the remote has snapshots that this volume
// has never seen, or belongs to another volume; snapshot.ErrLocked,
// snapshot.ErrUnreachable and snapshot.ErrKey as everywhere. When some files
// could not be read, the rest is pushed and the error is an *UnreadError.
func (v *Volume) Push(ctx context.Context, o PushOptions) (*PushResult, error) {
	result, err := v.push(ctx, o)
	if errors.Is(err, errOutdated) {
		result, err = v.push(ctx, o)
	}
	return result, err
}

func (v *Volume) push(ctx context.Context, o PushOptions) (result *PushResult, err error) {
	o.Patience = max(o.Patience, patience)
	remote, err := v.Remote(o.Remote)
	if err != nil {
		return nil, err
	}
	result = &PushResult{Remote: remote.Name}
	repo, before := o.Connection.to(remote)
	if o.Connection != nil {
		defer func() {
			if err != nil {
				if e := o.Connection.Close(); e != nil {
					v.log.Warn("let go of the remote", "error", e)
				}
			}
		}()
	}
	if repo == nil {
		if repo, err = v.reachOrCreate(ctx, remote, o, result); err != nil {
			return nil, err
		}
	}
	result.URL = repo.Location.String()
	done, err := v.onlyOneWithin(ctx, "push-"+repo.ID().String(), o.Patience)
	if err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	defer done()
	assumed := before != nil
	if !assumed {
		if before, err = repo.Manifest(ctx); err != nil {
			return nil, errors.Join(reach.Explain(err, repo.Location), repo.Close())
		}
	}
	if err := v.acquireWithin(ctx, o.Patience); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	defer v.unlock()
	known, err := v.meet(repo, remote, o.Force)
	if err != nil {
		return nil, err
	}
	// Only this remote is asked: another one may be away.
	past, held, err := v.holdings(ctx, history.BorgSourceID(repo.ID().String()), !assumed)
	if err != nil {
		return nil, err
	}
	if err := v.mayPush(known, held, remote, o.Force); err != nil {
		return nil, err
	}

	missed, err := v.unread(repo.ID())
	if err != nil {
		return nil, err
	}
	still, again, err := v.tryAgain(ctx, missed)
	if err != nil {
		return nil, err
	}
	view, err := v.view(ctx, o.Message, held, again, o.Report)
	if err != nil {
		return nil, err
	}
	if at, ok, err := v.current(ctx, past, held, view, again, still); err != nil {
		return nil, errors.Join(err, v.drop(view))
	} else if ok {
		result.UpToDate, result.Snapshot = true, at
		known.LastPush, v.state.Base = time.Now().UTC(), markOf(at)
		if err := errors.Join(v.drop(view), v.state.save(), o.Connection.keep(remote, repo, before)); err != nil {
			return result, err
		}
		return result, result.stillUnread(still, o.Report)
	}
	a := archiving{v: v, past: past, repo: repo, before: before, assumed: assumed, held: held, view: view, o: o, result: result, missed: missed}
	if a.info = v.newSnapshot(o.Message, held, o.Report); view.Snapshot != nil {
		a.info = *view.Snapshot
	}
	if err := v.sending(known, held, a.info.ID); err != nil {
		return nil, errors.Join(err, v.drop(view))
	}
	base := v.state.Base
	if view.Snapshot != nil {
		v.unlock()
		if o.Captured != nil {
			o.Captured()
		}
	}
	if err := a.run(ctx); err != nil {
		return nil, errors.Join(err, v.dropUnsent(ctx, view))
	}
	if err := v.settlePush(ctx, repo.ID().String(), base, held, result); err != nil {
		return result, err
	}
	v.unlock()
	if err := o.Connection.keep(remote, repo, a.tx.Manifest()); err != nil {
		v.log.Warn("the connection before is not closed", "error", err)
	}
	v.indexPushed(ctx, past, result, o.Report)
	if len(result.Unread) > 0 {
		return result, &UnreadError{Count: len(result.Unread)}
	}
	return result, nil
}

// sending notes what is about to be sent, so that it is known as this volume's
// own even if nobody lives to hear of its commit.
func (v *Volume) sending(known *repositoryState, held []snapshot.Info, id string) error {
	if slices.ContainsFunc(held, func(s snapshot.Info) bool { return s.ID == known.Pushing }) {
		known.see(known.Pushing)
	}
	known.Pushing = id
	return v.state.save()
}

// dropUnsent gives up a view that could not be sent, unless it is on its way to
// another remote.
func (v *Volume) dropUnsent(ctx context.Context, view *View) error {
	if view.Snapshot == nil || !view.Fresh {
		return nil
	}
	if err := v.acquire(context.WithoutCancel(ctx)); err != nil {
		v.log.Info("the snapshot that was not sent stays", "error", err)
		return nil
	}
	wanted := 0
	for _, r := range v.state.Repositories {
		if r.Pushing == view.Snapshot.ID {
			wanted++
		}
	}
	if wanted > 1 {
		return nil
	}
	return v.drop(view)
}

// current tells whether the remote has all that is in the view, and as what; but for
// what still cannot be read. Again tells that something can be read that it lacks.
func (v *Volume) current(ctx context.Context, past *Past, held []snapshot.Info, view *View, again bool, still map[string]error) (snapshot.Info, bool, error) {
	if again {
		return snapshot.Info{}, false, nil
	}
	if view.Snapshot != nil {
		if s, ok := newest(held, markOf(*view.Snapshot).is); ok {
			return s, true, nil
		}
	}
	base, ok := newest(held, v.state.Base.is)
	if !ok || view.Differs {
		return base, false, nil
	}
	changed, err := v.changedSinceBase(ctx, past, still)
	return base, !changed, err
}

// mayPush refuses a push that would fork the history or mix two volumes.
func (v *Volume) mayPush(known *repositoryState, held []snapshot.Info, remote Remote, force bool) error {
	var unseen, foreign []snapshot.Info
	own := false
	for _, s := range held {
		switch {
		case known.holds(s, v.ID()):
			own = own || s.Volume != ""
			if !known.hasSeen(s.ID) {
				unseen = append(unseen, s)
			}
		case s.Volume != "":
			foreign = append(foreign, s)
		}
	}
	switch {
	case force:
		return nil
	case len(foreign) > 0 && !own && !known.Adopted:
		return hint.With(fmt.Errorf("%w: the repository %s belongs to another volume (its newest snapshot: %s)",
			snapshot.ErrRefused, known.URL, foreign[len(foreign)-1].Name),
			"give this volume another name (s4 config set volume.name NAME) or another place, or clone that one")
	case len(unseen) > 0:
		return hint.With(fmt.Errorf("%w: %s has %d snapshot(s) this volume has never seen, the newest of %s",
			snapshot.ErrRefused, remote.Name, len(unseen), unseen[len(unseen)-1].Time.Format(time.RFC3339)),
			"bring them here first with: s4 pull "+remote.Name+" (or push over them with --force)")
	}
	return nil
}

// pushTime is the time of a new archive, to the second: now, but always after
// every archive that is there. The order of times is the order of history,
// even where two pushes share a second or a host's clock is ahead.
func pushTime(now time.Time, held []snapshot.Info, report Reporter) time.Time {
	const tolerable = time.Minute
	t := now.UTC().Truncate(time.Second)
	for _, s := range held {
		if next := s.Time.UTC().Truncate(time.Second).Add(time.Second); next.After(t) {
			t = next
		}
	}
	if ahead := t.Sub(now); ahead > tolerable {
		report.warn("the newest snapshot there is %s ahead of this host's clock; this one is dated after it", ahead.Round(time.Second))
	}
	return t
}

func (v *Volume) compression(remote string) string {
	if r, err := v.Remote(remote); err == nil {
		if c, ok := v.setting("remote." + r.Name + ".compression"); ok {
			return c
		}
	}
	return "lz4"
}

// settlePush records a committed push: base, what was seen. base is the one that
// there was when what was pushed was looked at.
func (v *Volume) settlePush(ctx context.Context, id string, base *mark, held []snapshot.Info, result *PushResult) error {
	if err := v.acquireWithin(context.WithoutCancel(ctx), lockWait); err != nil {
		return fmt.Errorf("pushed, but not noted: %w", err)
	}
	known := v.state.repository(id)
	known.see(result.Snapshot.ID)
	// What was pushed over with --force is no news any more.
	for _, s := range held {
		if known.holds(s, v.ID()) {
			known.see(s.ID)
		}
	}
	known.LastPush, known.Pushing = time.Now().UTC(), ""
	// A push to another remote, or a pull, may have moved it meanwhile.
	if now := v.state.Base; now == nil && base == nil || now != nil && base != nil && now.ID == base.ID {
		v.state.Base, v.state.Arriving = markOf(result.Snapshot), nil
	}
	if err := v.state.save(); err != nil {
		return fmt.Errorf("pushed, but not noted: %w", err)
	}
	// From here on the push is safe whatever happens.
	if v.subvolume {
		if _, err := v.retain(ctx); err != nil {
			v.log.Warn("old btrfs snapshots are still there", "error", err)
		}
	}
	return nil
}

// indexPushed brings the index up to what was pushed. The next who asks it does
// what could not be done here.
func (v *Volume) indexPushed(ctx context.Context, past *Past, result *PushResult, report Reporter) {
	err := past.Added(ctx, result.Snapshot)
	if _, errLocal := past.meetLocal(v.Root); errLocal == nil {
		err = errors.Join(err, past.refreshLocal(ctx))
	}
	if err != nil {
		v.log.Info("the index does not know of the push yet", "error", err)
	}
	if err := past.fill(ctx, report); err != nil {
		report.warn("pushed, but the index is behind: %v", err)
	}
	if s, ok, err := past.newestIn(ctx, result.Snapshot.Source, markOf(result.Snapshot).is); err == nil && ok {
		result.Snapshot = s
	}
}

// UnreadError says that a push went through without some paths.
type UnreadError struct{ Count int }

func (e *UnreadError) Error() string {
	return fmt.Sprintf("%d path(s) could not be read; everything else was pushed", e.Count)
}
