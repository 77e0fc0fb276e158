package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/timespan"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/snapshots"
)

// PruneOptions choose what to prune.
type PruneOptions struct {
	Remote string          // "" is the default remote
	Rules  snapshots.Rules // the zero value: those configured as prune.keep-…
	DryRun bool            // only tell what would become of each
	// NoCompact leaves the room of what is removed to a later compaction.
	NoCompact bool
	Report    Reporter
}

// PruneResult is what pruning did, or would do.
type PruneResult struct {
	Remote  string   `json:"remote"`
	URL     string   `json:"url"` // the repository's
	DryRun  bool     `json:"dry_run"`
	Pruned  []Pruned `json:"snapshots"`   // of this volume at the remote, the oldest first
	Unused  []string `json:"checkpoints"` // names of archives of pushes that broke off, removed
	Objects int      `json:"objects"`     // removed
	Removed int64    `json:"removed"`     // bytes of these as stored, as far as known
	// Freed is by how many bytes the repository has become smaller; -1: not known.
	Freed int64 `json:"freed"`
}

// Pruned is what becomes of a snapshot.
type Pruned struct {
	Snapshot snapshot.Info
	Kept     string // by which rule; "base": the volume is on it; "": it is removed
}

// Gone counts the snapshots that are removed.
func (r *PruneResult) Gone() (n int) {
	for _, p := range r.Pruned {
		if p.Kept == "" {
			n++
		}
	}
	return n
}

const (
	keyKeep    = "prune.keep-"
	ruleWithin = "within"
	keptAsBase = "base"
)

// Prune removes the snapshots of this volume at a remote that no rule keeps, and
// the room that they take there. Those of other volumes in the same repository, and
// the last one, always stay, as does the one that the volume is on.
//
// Errors: snapshot.ErrUsage without a rule; fs.ErrNotExist where there is no
// repository; snapshot.ErrDamaged where a snapshot that stays cannot be read: then
// nothing is removed; those of [Volume.Push] for the remote. Where only compacting
// failed, the result comes with the error.
func (v *Volume) Prune(ctx context.Context, o PruneOptions) (*PruneResult, error) {
	remote, err := v.Remote(o.Remote)
	if err != nil {
		return nil, err
	}
	if o.Rules.IsZero() {
		if o.Rules, err = v.pruneRules(); err != nil {
			return nil, err
		}
	}
	repo, err := v.reach(ctx, remote)
	if err != nil {
		if repo != nil && errors.Is(err, borgio.ErrNotRepository) {
			err = fmt.Errorf("nothing to prune at %s: %w", repo.Location, err)
		}
		return nil, err
	}
	// A push builds on what there is.
	done, err := v.onlyOneWithin(ctx, "push-"+repo.ID().String(), patience)
	if err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	defer done()
	p := &pruning{v: v, repo: repo, rules: o.Rules, now: time.Now()}
	if err := p.look(ctx, remote); err != nil {
		return nil, err
	}
	result := &PruneResult{Remote: remote.Name, URL: repo.Location.String(), DryRun: o.DryRun, Unused: []string{}, Freed: -1}
	choose := func(m *borgio.Manifest) []borgio.ID {
		ids := p.choose(m)
		result.Pruned, result.Unused = p.pruned, p.unused
		return ids
	}
	if o.DryRun {
		m, err := repo.Manifest(ctx)
		if err != nil {
			return nil, reach.Explain(err, repo.Location)
		}
		choose(m)
		return result, nil
	}
	gone, err := repo.Delete(ctx, choose, borgio.DeleteOptions{LockWait: lockWait, Progress: func(d borgio.DeleteProgress) {
		o.Report.progress(deleting(d))
	}})
	if err != nil {
		return nil, reach.Explain(err, repo.Location)
	}
	o.Report.progress(Progress{Verb: "removing", Done: true})
	result.Objects, result.Removed = gone.Objects, gone.Bytes
	p.settle(result, gone.Archives)
	if err := p.note(ctx); err != nil {
		return result, fmt.Errorf("pruned, but not noted: %w", err)
	}
	if o.NoCompact || len(gone.Archives) == 0 {
		return result, nil
	}
	if result.Freed, err = repo.Compact(ctx, borgio.CompactOptions{LockWait: lockWait}); err != nil {
		return result, hint.With(reach.Explain(fmt.Errorf("pruned, but the room is not free yet: %w", err), repo.Location), "free it later with: borg compact "+repo.Location.String())
	}
	return result, nil
}

func deleting(d borgio.DeleteProgress) Progress {
	if d.TotalObjects == 0 {
		return Progress{Verb: "reading snapshots", Files: int64(d.Archives), TotalFiles: int64(d.TotalArchives)}
	}
	return Progress{Verb: "removing", Files: int64(d.Objects), TotalFiles: int64(d.TotalObjects)}
}

// pruneRules are the rules that are configured.
func (v *Volume) pruneRules() (snapshots.Rules, error) {
	values := map[string]string{}
	var r snapshots.Rules
	for name := range counts(&r) {
		values[name] = ""
	}
	values[ruleWithin] = ""
	for name := range values {
		value, err := GetSetting(v, v.access, keyKeep+name)
		if errors.Is(err, fs.ErrNotExist) {
			delete(values, name)
			continue
		} else if err != nil {
			return r, err
		}
		values[name] = value
	}
	return PruneRules(values)
}

// PruneRules reads rules as they are typed: by their names, "last", "hourly" and so
// on, a number or "all", and for "within" a time such as 36h, 7d or 4w. Errors:
// snapshot.ErrUsage, also where nothing would be kept.
func PruneRules(values map[string]string) (snapshots.Rules, error) {
	var r snapshots.Rules
	into := counts(&r)
	for name, value := range values {
		var err error
		good := "a number, or all"
		if name == ruleWithin {
			good = "a time such as 36h, 7d or 4w"
			if r.Within, err = timespan.Parse(value); err == nil && r.Within <= 0 {
				err = timespan.ErrUnknown
			}
		} else {
			*into[name], err = parseCount(value)
		}
		if err != nil {
			return r, hint.With(fmt.Errorf("%w: keep-%s is %q", snapshot.ErrUsage, name, value), "it is "+good)
		}
	}
	if r.IsZero() {
		return r, hint.With(fmt.Errorf("%w: no rule says which snapshots to keep", snapshot.ErrUsage),
			"such as: s4 prune --keep-daily 7 --keep-weekly 4, or once and for all: s4 config set "+keyKeep+"daily 7")
	}
	return r, nil
}

// pruning is one under way.
type pruning struct {
	v     *Volume
	repo  *repository
	rules snapshots.Rules
	now   time.Time

	id     string // of the repository
	past   *Past
	source string
	base   string                   // id of the snapshot that the volume is on
	held   map[string]snapshot.Info // of this volume, by handle
	broken []snapshot.Info          // checkpoints of this volume

	pruned []Pruned
	unused []string
}

// look finds out what of the repository is this volume's.
func (p *pruning) look(ctx context.Context, remote Remote) error {
	v := p.v
	if err := v.acquire(ctx); err != nil {
		return errors.Join(err, p.repo.Close())
	}
	defer v.unlock()
	known, err := v.meet(p.repo, remote, false)
	if err != nil {
		return err
	}
	if err := v.state.save(); err != nil {
		return err
	}
	p.id = p.repo.ID().String()
	p.source = history.BorgSourceID(p.id)
	past, held, err := v.holdings(ctx, p.source, true)
	if err != nil {
		return err
	}
	p.past = past
	line, err := past.Timeline(ctx)
	if err != nil {
		return err
	}
	p.held = map[string]snapshot.Info{}
	for _, s := range held {
		if known.holds(s, v.ID()) {
			if shown, ok := newest(line, markOf(s).is); ok {
				s.Dir = shown.Dir
			}
			p.held[s.Handle] = s
		}
	}
	if s := past.source(p.source); s != nil {
		all, err := s.Checkpoints(ctx)
		if err != nil {
			return fmt.Errorf("look for what pushes left behind: %w", err)
		}
		p.broken = slices.DeleteFunc(all, func(c snapshot.Info) bool { return !known.holds(c, v.ID()) })
	}
	if v.state.Base != nil {
		p.base = v.state.Base.ID
	}
	return nil
}

// choose gives what is to go of the archives that there are.
func (p *pruning) choose(m *borgio.Manifest) (ids []borgio.ID) {
	p.pruned, p.unused = []Pruned{}, []string{}
	there := map[string]borgio.ID{}
	var line []snapshot.Info
	for _, ref := range m.Archives {
		there[ref.ID.String()] = ref.ID
		if s, own := p.held[ref.ID.String()]; own {
			line = append(line, s)
		}
	}
	slices.SortStableFunc(line, func(a, b snapshot.Info) int { return a.Time.Compare(b.Time) })
	reasons := p.rules.Reasons(line, p.now)
	for i, s := range line {
		switch {
		case reasons[i] == "" && s.ID == p.base:
			reasons[i] = keptAsBase
		case reasons[i] == "" && i == len(line)-1: // such as with within alone
			reasons[i] = "last"
		}
		p.pruned = append(p.pruned, Pruned{s, reasons[i]})
		if reasons[i] == "" {
			ids = append(ids, there[s.Handle])
		}
	}
	for _, c := range p.broken {
		whole := func(s snapshot.Info) bool { return !s.Time.Before(c.Time) }
		if id, ok := there[c.Handle]; ok && slices.ContainsFunc(line, whole) {
			p.unused = append(p.unused, c.Name)
			ids = append(ids, id)
		}
	}
	return ids
}

// settle has the result tell what has gone: the last choice may be more than that.
func (p *pruning) settle(r *PruneResult, gone []borgio.ArchiveRef) {
	names := map[string]bool{}
	for _, ref := range gone {
		names[ref.ID.String()] = true
	}
	r.Pruned = slices.DeleteFunc(r.Pruned, func(s Pruned) bool { return s.Kept == "" && !names[s.Snapshot.Handle] })
	r.Unused = slices.DeleteFunc(r.Unused, func(name string) bool {
		return !slices.ContainsFunc(gone, func(ref borgio.ArchiveRef) bool { return ref.Name == name })
	})
}

// note has the index and the state forget what has gone.
func (p *pruning) note(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	_, held, err := p.v.holdings(ctx, p.source, true)
	if err != nil {
		return err
	}
	if err := p.v.acquireWithin(ctx, lockWait); err != nil {
		return err
	}
	defer p.v.unlock()
	there := map[string]bool{}
	for _, s := range held {
		there[s.ID] = true
	}
	p.v.state.repository(p.id).forget(there)
	return p.v.state.save()
}
