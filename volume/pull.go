package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// PullOptions choose what to pull.
type PullOptions struct {
	Remote string // "" is the default remote
	At     string // TIME; "" is the newest snapshot
	Force  bool   // give up unpushed changes
	// Keep has btrfs snapshots keep each version that is brought, and puts it in
	// place in one step where that can be done: where the volume is a subvolume
	// that is not the root of a mount and not mounted by s4.
	Keep   bool
	Report Reporter
}

// PullResult is what a pull did.
type PullResult struct {
	Remote   string           `json:"remote"`
	URL      string           `json:"url"`
	UpToDate bool             `json:"up_to_date"`
	Snapshot snapshot.Info    `json:"snapshot"`
	Changes  *worktree.Result `json:"changes,omitempty"`
	// Exchanged tells that the volume's root is another directory than before.
	Exchanged bool `json:"exchanged,omitempty"`
}

// Pull brings the volume to the remote's newest or given snapshot. Only what
// differs is fetched; files appear whole or not at all.
//
// Errors: snapshot.ErrRefused with unpushed changes; fs.ErrNotExist for a
// snapshot; those of [Volume.Push] for the remote.
func (v *Volume) Pull(ctx context.Context, o PullOptions) (*PullResult, error) {
	remote, err := v.Remote(o.Remote)
	if err != nil {
		return nil, err
	}
	if err := v.acquire(ctx); err != nil {
		return nil, err
	}
	defer v.unlock()
	repo, err := v.reach(ctx, remote)
	if err != nil {
		if repo != nil {
			err = hint.With(fmt.Errorf("nothing to pull at %s: %w", repo.Location, err), "make the first snapshot with: s4 push "+remote.Name)
		}
		return nil, err
	}
	result := &PullResult{Remote: remote.Name, URL: repo.Location.String()}
	known, err := v.meet(repo, remote, o.Force)
	if err != nil {
		return nil, err
	}
	past, err := v.Past(ctx)
	if err != nil {
		return nil, err
	}
	if err := past.Refresh(ctx); err != nil {
		v.log.Info("look for news", "error", err)
	}
	source := history.BorgSourceID(repo.ID().String())
	target, err := v.pullTarget(ctx, past, known, source, o.At)
	if err != nil {
		return nil, err
	}
	result.Snapshot = target
	upToDate := v.state.Base.is(target)
	if o.At == "" && !upToDate {
		if upToDate, err = past.descends(ctx, v.state.Base, target); err != nil {
			return nil, err
		}
	}
	if v.state.Arriving == nil && upToDate {
		result.UpToDate = true
		if !o.Force {
			return result, v.state.save()
		}
	}
	// Without a base nothing tells what is pushed: then what equals the target
	// already is no change, and the rest must not be in the way.
	careful := !o.Force && v.state.Arriving == nil
	if careful && v.state.Base != nil {
		if err := v.refuseChanges(ctx, past); err != nil {
			return nil, err
		}
		careful = false
	}
	keeps := false
	if o.Keep && v.subvolume {
		if keeps, err = btrfsvol.MayDelete(v.Root); err != nil {
			return nil, err
		}
	}
	if keeps {
		err = v.bringAndKeep(ctx, past, target, known, careful, o.Force, o.Report, result)
	} else {
		result.Changes, err = v.bring(ctx, past, target, known, careful, o.Force, nil, o.Report)
	}
	result.UpToDate = result.UpToDate && result.Changes != nil && result.Changes.Created+result.Changes.Replaced+
		result.Changes.Metadata+result.Changes.Linked+result.Changes.Deleted == 0
	return result, err
}

// pullTarget is the snapshot to pull: of those in source that are this
// volume's, the newest or the one that at names.
func (v *Volume) pullTarget(ctx context.Context, past *Past, known *repositoryState, source, at string) (snapshot.Info, error) {
	pick := func(s snapshot.Info) bool { return known.holds(s, v.ID()) }
	missing := fmt.Errorf("%s holds no snapshot of this volume: %w", known.URL, fs.ErrNotExist)
	if at != "" {
		wanted, err := past.Resolve(ctx, at)
		if err != nil {
			return wanted, err
		}
		pick = markOf(wanted).is
		missing = fmt.Errorf("snapshot %s is not at %s: %w", wanted.Dir, known.URL, fs.ErrNotExist)
	}
	s, ok, err := past.newestIn(ctx, source, pick)
	if err == nil && !ok {
		err = missing
	}
	return s, err
}

// refuseChanges gives snapshot.ErrRefused when something is not pushed yet.
func (v *Volume) refuseChanges(ctx context.Context, past *Past) error {
	count, first := 0, ""
	for c, err := range v.changes(ctx, past) {
		if err != nil && c.Path == "" {
			return err
		}
		if count++; count == 1 {
			first = c.Path
		}
		if count > 1 {
			break
		}
	}
	if count == 0 {
		return nil
	}
	more := ""
	if count > 1 {
		more = " and more"
	}
	return unpushed(first, more)
}

func unpushed(path, more string) error {
	return hint.With(fmt.Errorf("%w: the volume has changes that are not pushed: %q%s", snapshot.ErrRefused, path, more),
		"push them with: s4 push, see them with: s4 status, or give them up with --force")
}

// bringAndKeep is bring in one step, if possible, with the versions before and
// after it kept as btrfs snapshots.
func (v *Volume) bringAndKeep(ctx context.Context, past *Past, target snapshot.Info, known *repositoryState, careful, force bool, report Reporter, result *PullResult) error {
	if base, ok, err := v.base(ctx, past); err != nil {
		return err
	} else if ok && v.state.Base.is(base) && !careful {
		if err := v.keep(ctx, base); err != nil {
			return err
		}
	}
	var next *stage
	live, release, ok := v.exchangeable(ctx)
	if ok {
		defer release()
		var err error
		if next, err = v.newStage(live); err != nil {
			return err
		}
	}
	var err error
	result.Changes, err = v.bring(ctx, past, target, known, careful, force, next, report)
	if next != nil {
		result.Exchanged = v.Root == next.live
		dropped := next.drop()
		if errors.Is(err, errInPlace) && dropped == nil {
			result.Exchanged = false
			result.Changes, err = v.bring(ctx, past, target, known, careful, force, nil, report)
		}
		err = errors.Join(err, dropped)
	}
	if err != nil {
		return err
	}
	if result.Changes.Spared == 0 { // else more is here than is in it
		if err := v.keep(ctx, target); err != nil {
			return err
		}
	}
	_, err = v.retain(ctx)
	return err
}

// keep has a btrfs snapshot keep what is live now, which is s.
func (v *Volume) keep(ctx context.Context, s snapshot.Info) error {
	held, err := v.store().List(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(held, markOf(s).is) {
		return nil
	}
	_, err = v.store().Take(ctx, v.Root, s)
	return err
}

// errInPlace says that files which are left out are in the volume. A program may
// have them open, and what it writes must not go to a root that is deleted.
var errInPlace = errors.New("only in place")

// bring makes the live tree equal to target, but for what is left out, and records
// that it is the base. A careful one refuses to replace or delete anything, and
// without force none replaces what was left out until now. With a stage that is made
// equal instead, and then put in place; errInPlace says that this cannot be.
func (v *Volume) bring(ctx context.Context, past *Past, target snapshot.Info, known *repositoryState, careful, force bool, next *stage, report Reporter) (*worktree.Result, error) {
	if err := past.ensure(ctx, &target, report); err != nil {
		return nil, err
	}
	at := v.Root
	if next != nil {
		at = next.path
	}
	root, o, done, err := v.worktreeAt(ctx, at)
	if err != nil {
		return nil, err
	}
	defer done()
	t, err := past.withContent(ctx, target)
	if err != nil {
		return nil, err
	}
	if err := hideOwn(ctx, t, &o); err != nil {
		return nil, err
	}
	plan := worktree.PlanOptions{Options: o, Source: t, Delete: true}
	spared, err := arriving(ctx, at, t, &plan)
	if err != nil {
		return nil, err
	}
	if base, ok, err := past.newestIn(ctx, target.Source, v.state.Base.is); err != nil {
		return nil, err
	} else if ok && base.Indexed {
		plan.Base = tree{past: past, s: base}
	}
	actions, err := root.Plan(ctx, t, plan)
	if err != nil {
		return nil, err
	}
	for _, a := range actions.Actions {
		if careful && (a.Op == worktree.Replace || a.Op == worktree.Delete) {
			return nil, unpushed(a.Path, "")
		}
	}
	if !force {
		if err := spared.refuse(actions); err != nil {
			return nil, err
		}
	}
	if next != nil && (spared.met || actions.Spared > 0) {
		return nil, errInPlace
	}
	if next == nil {
		v.state.Arriving = markOf(target)
	}
	if err := v.state.save(); err != nil {
		return nil, err
	}
	result, err := root.Apply(ctx, actions, worktree.ApplyOptions{
		Source: t, Stamps: o.Stamps, Log: v.log,
		Progress: func(p worktree.Progress) {
			report.progress(Progress{Verb: "fetching", Files: int64(p.Done), TotalFiles: int64(p.Actions), Bytes: p.Bytes, TotalBytes: p.AllOfThem})
		},
	})
	if result.Unowned > 0 {
		report.warn("the owner of %d path(s) could not be set; run as root to keep owners", result.Unowned)
	}
	if err != nil && !onlyDamaged(err) {
		return &result, hint.With(err, "what arrived is kept; run the same command again to carry on")
	}
	// What is lost at the repository will not arrive by trying again.
	damage := hint.With(err, "everything else is here; look at the repository with: borg check "+known.URL)
	if next != nil {
		if err := v.exchange(next); err != nil {
			return &result, errors.Join(damage, err)
		}
		// What was known is read anew from where it lies now.
		known = v.state.repository(strings.TrimPrefix(target.Source, history.BorgSourceID("")))
	}
	if err := v.arrived(ctx, past, target, known); err != nil {
		return &result, errors.Join(damage, err)
	}
	return &result, errors.Join(damage, past.fill(ctx, report))
}

// onlyDamaged tells whether all that went wrong with single paths is damage.
func onlyDamaged(err error) bool {
	//nolint:errorlint // the list itself is wanted, not something inside it
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return errors.Is(err, snapshot.ErrDamaged)
	}
	return !slices.ContainsFunc(list.Unwrap(), func(e error) bool { return !errors.Is(e, snapshot.ErrDamaged) })
}

// arrived records that the live tree is target now, and which snapshots it
// was made in knowledge of: all up to it.
func (v *Volume) arrived(ctx context.Context, past *Past, target snapshot.Info, known *repositoryState) error {
	held, err := past.Index.Snapshots(ctx, target.Source)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, s := range held {
		there[s.ID] = true
		if !s.Time.After(target.Time) {
			known.see(s.ID)
		}
	}
	known.forget(there)
	if target.Volume == "" {
		known.Series = target.Series
	}
	v.state.Base, v.state.Arriving = markOf(target), nil
	// The configuration may have come with the snapshot.
	if err := v.Config.Reload(); err != nil {
		return err
	}
	return v.state.save()
}
