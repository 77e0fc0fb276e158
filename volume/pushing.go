package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// lockWait is how long a push waits for the repository's lock.
const lockWait = time.Minute

// pushing is a push under way.
type pushing struct {
	v      *Volume
	o      PushOptions
	remote Remote
	result *PushResult

	repo    *repository
	before  *borgio.Manifest // in knowledge of which the push is allowed
	assumed bool             // it is not what was seen, but what the last push left
	known   *repositoryState
	past    *Past
	held    []snapshot.Info // what the repository holds, as the time line has it

	view   *View
	missed []string         // what could not be read when the last archive was made
	still  map[string]error // of that, what cannot be read now
}

func (v *Volume) push(ctx context.Context, o PushOptions) (result *PushResult, err error) {
	o.Patience = max(o.Patience, patience)
	remote, err := v.Remote(o.Remote)
	if err != nil {
		return nil, err
	}
	p := &pushing{v: v, o: o, remote: remote, result: &PushResult{Remote: remote.Name}}
	defer func() {
		if _, pushed := errors.AsType[*UnreadError](err); err != nil && !pushed && o.Connection != nil {
			if e := o.Connection.Close(); e != nil {
				v.log.Warn("let go of the remote", "error", e)
			}
		}
	}()
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	done, err := v.onlyOneWithin(ctx, "push-"+p.repo.ID().String(), o.Patience)
	if err != nil {
		return nil, errors.Join(err, p.repo.Close())
	}
	defer done()
	defer v.unlock()
	if err := p.allow(ctx); err != nil {
		return nil, err
	}
	at, current, err := p.look(ctx)
	switch {
	case err != nil:
		return nil, err
	case current:
		return p.settleCurrent(at)
	default:
		return p.send(ctx)
	}
}

// open opens the remote's repository, or takes the one that was kept open.
func (p *pushing) open(ctx context.Context) (err error) {
	p.repo, p.before = p.o.Connection.to(p.remote)
	p.assumed = p.before != nil
	if p.repo == nil {
		p.repo, err = p.v.reachOrCreate(ctx, p.remote, p.o, p.result)
	}
	if err == nil {
		p.result.URL = p.repo.Location.String()
	}
	return err
}

// allow takes the volume's lock and finds out whether the repository, as it is, may
// be pushed to. From here on the time line closes it.
func (p *pushing) allow(ctx context.Context) (err error) {
	v := p.v
	if !p.assumed {
		if p.before, err = p.repo.Manifest(ctx); err != nil {
			return errors.Join(reach.Explain(err, p.repo.Location), p.repo.Close())
		}
	}
	if err := v.acquireWithin(ctx, p.o.Patience); err != nil {
		return errors.Join(err, p.repo.Close())
	}
	if p.known, err = v.meet(p.repo, p.remote, p.o.Force); err != nil {
		return err
	}
	// Only this remote is asked: another one may be away.
	p.past, p.held, err = v.holdings(ctx, history.BorgSourceID(p.repo.ID().String()), !p.assumed)
	if err != nil {
		return err
	}
	return v.mayPush(p.known, p.held, p.remote, p.o.Force)
}

// look takes the view that is to be pushed. If the repository has all of it, it tells
// as what, and keeps no view.
func (p *pushing) look(ctx context.Context) (at snapshot.Info, current bool, err error) {
	v := p.v
	if p.missed, err = v.unread(p.repo.ID()); err != nil {
		return at, false, err
	}
	still, again, err := v.tryAgain(ctx, p.missed)
	if err != nil {
		return at, false, err
	}
	p.still = still
	if p.view, err = v.view(ctx, p.o.Message, p.held, again, p.o.Report); err != nil {
		return at, false, err
	}
	if !again {
		at, current, err = p.current(ctx)
	}
	if err != nil || current {
		err = errors.Join(err, v.drop(p.view))
	}
	return at, current, err
}

// current tells whether the remote has all that is in the view, and as what; but for
// what still cannot be read.
func (p *pushing) current(ctx context.Context) (snapshot.Info, bool, error) {
	if p.view.Snapshot != nil {
		if s, ok := newest(p.held, markOf(*p.view.Snapshot).is); ok {
			return s, true, nil
		}
	}
	base, ok := newest(p.held, p.v.state.Base.is)
	if !ok || p.view.Differs {
		return base, false, nil
	}
	changed, err := p.v.changedSinceBase(ctx, p.past, p.still)
	return base, !changed, err
}

// settleCurrent records a push of what the repository has as a snapshot already.
func (p *pushing) settleCurrent(at snapshot.Info) (*PushResult, error) {
	r := p.result
	r.UpToDate, r.Snapshot = true, at
	for _, path := range slices.Sorted(maps.Keys(p.still)) {
		r.unread(path, p.still[path], p.o.Report)
	}
	p.known.pushed(r)
	p.v.state.Base = markOf(at)
	if err := errors.Join(p.v.state.save(), p.o.Connection.keep(p.remote, p.repo, p.before)); err != nil {
		return r, err
	}
	return r, r.unreadError()
}

// send makes the view an archive of the repository. Other work on the volume may go
// on meanwhile where the view is a btrfs snapshot.
func (p *pushing) send(ctx context.Context) (*PushResult, error) {
	v := p.v
	a := archiving{pushing: p}
	if p.view.Snapshot != nil {
		a.info = *p.view.Snapshot
	} else {
		a.info = v.newSnapshot(p.o.Message, p.held, p.o.Report)
	}
	if err := v.sending(p.known, p.held, a.info.ID); err != nil {
		return nil, errors.Join(err, v.drop(p.view))
	}
	base := v.state.Base
	if p.view.Snapshot != nil {
		v.unlock()
		if p.o.Captured != nil {
			p.o.Captured()
		}
	}
	if err := a.run(ctx); err != nil {
		return nil, errors.Join(err, v.dropUnsent(ctx, p.view))
	}
	if err := p.settle(ctx, base); err != nil {
		return p.result, err
	}
	v.unlock()
	if err := p.o.Connection.keep(p.remote, p.repo, a.tx.Manifest()); err != nil {
		v.log.Warn("the connection before is not closed", "error", err)
	}
	v.indexPushed(ctx, p.past, p.result, p.o.Report)
	return p.result, p.result.unreadError()
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

// settle records a committed push: base, what was seen. base is the one that there
// was when what was pushed was looked at.
func (p *pushing) settle(ctx context.Context, base *mark) error {
	v, result := p.v, p.result
	if err := v.acquireWithin(context.WithoutCancel(ctx), lockWait); err != nil {
		return fmt.Errorf("pushed, but not noted: %w", err)
	}
	known := v.state.repository(p.repo.ID().String())
	known.see(result.Snapshot.ID)
	// What was pushed over with --force is no news any more.
	for _, s := range p.held {
		if known.holds(s, v.ID()) {
			known.see(s.ID)
		}
	}
	known.pushed(result)
	known.Pushing = ""
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
