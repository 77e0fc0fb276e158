package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/query"
	"github.com/s4-storage/s4/snapshot"
)

// Past is a time line together with what it is read through.
type Past struct {
	query.Past
	sources []*history.BorgSource
	local   *localSource // nil where there are no btrfs snapshots
	access  *reach.Access
	log     *slog.Logger
	// Remote tells whether looking for news needs the network.
	Remote bool
}

// Close ends what the time line is read through.
func (p *Past) Close() error {
	err := p.History.Close()
	for _, s := range p.sources {
		err = errors.Join(err, s.Close())
	}
	if p.local != nil {
		p.local.dir.Close()
	}
	return errors.Join(err, p.Index.Close())
}

// Past opens the volume's time line from every repository it has met. It
// stays open until the volume is closed.
func (v *Volume) Past(ctx context.Context) (*Past, error) {
	if v.past != nil {
		return v.past, nil
	}
	ix, err := openIndex(ctx, v.indexPath(), v.log)
	if err != nil {
		return nil, err
	}
	p := newPast(ix, v.access)
	if _, err := p.meetLocal(v.Root); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if _, err := p.meet(v.state, v.reached); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	v.past = p
	return p, nil
}

// meetLocal joins the btrfs snapshots in the volume at root, once there are any
// to come, and tells whether it did.
func (p *Past) meetLocal(root string) (news bool, err error) {
	if p.local != nil {
		return false, nil
	}
	p.local, err = p.openLocalSource(root)
	if p.local != nil {
		p.Join(p.local)
	}
	return p.local != nil, err
}

// source is that of a repository which the volume has met; nil where there is none
// with that id.
func (p *Past) source(id string) *history.BorgSource {
	for _, s := range p.sources {
		if s.ID() == id {
			return s
		}
	}
	return nil
}

// holdings are the snapshots that a repository holds, by its source's id; with ask
// it is asked, else as the index knows.
func (v *Volume) holdings(ctx context.Context, source string, ask bool) (*Past, []snapshot.Info, error) {
	past, err := v.Past(ctx)
	if err != nil {
		return nil, nil, err
	}
	if ask {
		if err := past.RefreshSource(ctx, source); err != nil {
			return nil, nil, fmt.Errorf("look for news: %w", err)
		}
	}
	held, err := past.Index.Snapshots(ctx, source)
	return past, held, err
}

// refreshLocal looks for btrfs snapshots that were taken or deleted meanwhile.
func (p *Past) refreshLocal(ctx context.Context) error {
	if p.local == nil {
		return nil
	}
	return p.RefreshSource(ctx, p.local.ID())
}

// newPast makes a time line without sources.
func newPast(ix *index.Index, a *reach.Access) *Past {
	return &Past{
		Past:   query.Past{History: history.New(history.Options{Index: ix, Logger: a.Log()}), Index: ix},
		access: a, log: a.Log(),
	}
}

// meet joins the repositories that a volume knows and the time line does not,
// and tells whether there were any. What is open already is taken from ready.
func (p *Past) meet(known *state, ready map[string]*borgio.Repository) (news bool, err error) {
	for _, id := range slices.Sorted(maps.Keys(known.Repositories)) { // the same order each time
		if slices.ContainsFunc(p.sources, func(s *history.BorgSource) bool { return s.ID() == history.BorgSourceID(id) }) {
			continue
		}
		loc, err := reach.ParseLocation(known.Repositories[id].URL)
		if err != nil {
			return news, err
		}
		p.join(id, loc, ready[id])
		delete(ready, id)
		news = true
	}
	return news, nil
}

// join adds a repository; ready is it where it is open already.
func (p *Past) join(id string, loc borgio.Location, ready *borgio.Repository) {
	s := history.NewBorgSource(id, !loc.IsRemote(), opener(p.access, id, loc, ready), p.log)
	p.sources = append(p.sources, s)
	p.Remote = p.Remote || loc.IsRemote()
	p.Join(s)
}

// opener opens the repository with that id at loc, and none other. The first
// time it hands out the one that is open already, unless that is nil.
func opener(a *reach.Access, id string, loc borgio.Location, ready *borgio.Repository) func(context.Context) (*borgio.Repository, error) {
	return func(ctx context.Context) (*borgio.Repository, error) {
		if r := ready; r != nil { // a source opens once at a time
			ready = nil
			return r, nil
		}
		r, err := a.Open(ctx, loc)
		if err != nil {
			return nil, err
		}
		if r.ID().String() != id {
			r.Close()
			return nil, hint.With(fmt.Errorf("%w: another repository is at %s now", snapshot.ErrRefused, loc),
				"if that is meant, tell s4 with: s4 remote set-url, and push or pull")
		}
		return r, nil
	}
}

// RepositoryPast opens the time line of any repository, with an index in the
// user's cache directory.
func RepositoryPast(ctx context.Context, url string, a *reach.Access) (*Past, borgio.Location, error) {
	loc, err := reach.ParseLocation(url)
	if err != nil {
		return nil, loc, err
	}
	r, err := a.Open(ctx, loc)
	if err != nil {
		return nil, loc, missingRepository(err, loc)
	}
	id := r.ID().String()
	ix, err := openIndex(ctx, indexFile(id), a.Log())
	if err != nil {
		return nil, loc, errors.Join(err, r.Close())
	}
	p := newPast(ix, a)
	p.join(id, loc, r)
	return p, loc, nil
}

func missingRepository(err error, loc borgio.Location) error {
	if errors.Is(err, borgio.ErrUnfinished) {
		return hint.With(err, "nothing is in it; the next s4 push to it makes it anew")
	}
	if errors.Is(err, borgio.ErrNotRepository) && hint.Of(err) == "" {
		return hint.With(err, "s4 wants the repository's full URL, such as "+loc.String()+"/NAME")
	}
	return err
}

// newest is the last snapshot of the time line that pick accepts.
func newest(line []snapshot.Info, pick func(snapshot.Info) bool) (snapshot.Info, bool) {
	for _, s := range slices.Backward(line) {
		if pick(s) {
			return s, true
		}
	}
	return snapshot.Info{}, false
}

// newestIn is the last snapshot that pick accepts of those one source holds.
func (p *Past) newestIn(ctx context.Context, source string, pick func(snapshot.Info) bool) (snapshot.Info, bool, error) {
	held, err := p.Index.Snapshots(ctx, source)
	if err != nil {
		return snapshot.Info{}, false, err
	}
	s, ok := newest(held, pick)
	if !ok {
		return s, false, nil
	}
	line, err := p.Timeline(ctx)
	if err != nil {
		return s, false, err
	}
	if shown, ok := newest(line, markOf(s).is); ok {
		s.Dir = shown.Dir
	}
	return s, true, nil
}

// base finds the volume's base on the time line; where that was pruned, the
// newest seen one before it, which is the best there is to compare with.
func (v *Volume) base(ctx context.Context, p *Past) (snapshot.Info, bool, error) {
	if v.state.Base == nil {
		return snapshot.Info{}, false, nil
	}
	line, err := p.Timeline(ctx)
	if err != nil {
		return snapshot.Info{}, false, err
	}
	if s, ok := newest(line, v.state.Base.is); ok {
		return s, true, nil
	}
	s, ok := newest(line, func(s snapshot.Info) bool {
		for id, r := range v.state.Repositories {
			if s.Source == history.BorgSourceID(id) && r.hasSeen(s.ID) && r.holds(s, v.ID()) {
				return !s.Time.After(v.state.Base.Time)
			}
		}
		return false
	})
	return s, ok, nil
}

// Blank tells whether the index knows nothing of some source, as after it was
// lost.
func (p *Past) Blank(ctx context.Context) (bool, error) {
	for _, s := range p.sources {
		held, err := p.Index.Snapshots(ctx, s.ID())
		if err != nil || len(held) == 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// descends tells whether m was made on top of s, as far as parents are recorded.
func (p *Past) descends(ctx context.Context, m *mark, s snapshot.Info) (bool, error) {
	if m == nil {
		return false, nil
	}
	line, err := p.Timeline(ctx)
	if err != nil {
		return false, err
	}
	parents := make(map[string]string, len(line))
	for _, i := range line {
		parents[i.ID] = i.Parent
	}
	for id := parents[m.ID]; id != ""; {
		if id == s.ID {
			return true, nil
		}
		next := parents[id]
		delete(parents, id) // a forged circle ends
		id = next
	}
	return false, nil
}
