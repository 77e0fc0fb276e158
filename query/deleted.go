package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
)

// Held are paths that a snapshot holds and no newer one does.
type Held struct {
	Snapshot snapshot.Info
	Paths    []string
}

// LastHeld finds the newest snapshots that hold what is asked for, newest
// first: a path in the newest that has it; of a pattern everything that once
// matched, but for what is still there, which there tells unless it is nil. From
// snapshot to snapshot the work is proportional to what changed.
//
// Errors: fs.ErrNotExist when no snapshot ever had some of it.
func (p Past) LastHeld(ctx context.Context, specs []string, there func(path string) bool) ([]Held, error) {
	line, err := p.Timeline(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]*Held{}
	var all []*Held
	hold := func(s snapshot.Info, path string) {
		h := found[s.Dir]
		if h == nil {
			h = &Held{Snapshot: s}
			found[s.Dir] = h
			all = append(all, h)
		}
		h.Paths = append(h.Paths, path)
	}
	for _, spec := range specs {
		s, ok, err := p.lastWith(ctx, line, spec)
		switch {
		case err != nil:
			return nil, err
		case ok:
			hold(s, spec)
			continue
		case pathspec.IsPattern(spec):
			ok, err = p.lastMatching(ctx, line, spec, there, hold)
		}
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("no snapshot has %q, or it is there now: %w", spec, fs.ErrNotExist)
		}
	}
	slices.SortFunc(all, func(a, b *Held) int { return b.Snapshot.Time.Compare(a.Snapshot.Time) })
	out := make([]Held, len(all))
	for i, h := range all {
		out[i] = *h
	}
	return out, nil
}

// lastWith is the newest snapshot that has the very path.
func (p Past) lastWith(ctx context.Context, line []snapshot.Info, path string) (snapshot.Info, bool, error) {
	for _, s := range slices.Backward(line) {
		if err := p.Ensure(ctx, s.Num); err != nil {
			return s, false, err
		}
		_, err := p.Find(ctx, s.Num, path)
		if !errors.Is(err, fs.ErrNotExist) {
			return s, err == nil, err
		}
	}
	return snapshot.Info{}, false, nil
}

// lastMatching goes back in time and holds what a pattern matches in the
// newest snapshot, and what is gone from each to the next.
func (p Past) lastMatching(ctx context.Context, line []snapshot.Info, pattern string, there func(string) bool, hold func(snapshot.Info, string)) (any bool, err error) {
	set, err := pathspec.New([]string{pattern}, nil)
	if err != nil || len(line) == 0 {
		return false, err
	}
	seen := map[string]bool{}
	take := func(s snapshot.Info, path string) {
		if path == "" || seen[path] || !set.Match(path) || there != nil && there(path) {
			return
		}
		seen[path] = true
		hold(s, path)
		any = true
	}
	newest := line[len(line)-1]
	if err := p.Ensure(ctx, newest.Num); err != nil {
		return false, err
	}
	paths, err := p.Matching(ctx, newest, set)
	if err != nil {
		return false, err
	}
	for _, path := range paths {
		take(newest, path)
	}
	for i := len(line) - 2; i >= 0; i-- {
		if err := p.Ensure(ctx, line[i].Num); err != nil {
			return any, err
		}
		for c, err := range p.Changes(ctx, line[i].Num, line[i+1].Num) {
			if err != nil {
				return any, err
			}
			if c.New == nil {
				take(line[i], c.Path)
			}
		}
	}
	return any, nil
}
