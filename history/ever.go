package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// The methods below answer for the series of the newest indexed snapshot.

// Ever gives at most limit names, bytewise after the given one, that the
// directory at path ever held, as far as it is indexed. A path that never was a
// directory is fs.ErrNotExist.
func (h *History) Ever(ctx context.Context, path, after string, limit int) ([]snapshot.Ever, error) {
	var all []snapshot.Ever
	err := h.inEachChain(ctx, path, func(num int64) error {
		more, err := h.x.Ever(ctx, num, path, after, limit)
		all = append(more, all...) // the first chain's come last
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b snapshot.Ever) int { return cmp.Compare(a.Name, b.Name) })
	joined := all[:0]
	for _, e := range all {
		if n := len(joined); n > 0 && joined[n-1].Name == e.Name {
			joined[n-1] = index.Join(joined[n-1], e)
		} else {
			joined = append(joined, e)
		}
	}
	return joined[:min(limit, len(joined))], nil
}

// EverAt tells what was at a path.
func (h *History) EverAt(ctx context.Context, path string) (ever snapshot.Ever, err error) {
	found := false
	err = h.inEachChain(ctx, path, func(num int64) error {
		e, err := h.x.EverAt(ctx, num, path)
		switch {
		case err != nil:
		case found:
			ever = index.Join(e, ever)
		default:
			ever, found = e, true
		}
		return err
	})
	return ever, err
}

// Distinct gives every version of a path, oldest first, each with the first
// snapshot that has it.
func (h *History) Distinct(ctx context.Context, path string) ([]snapshot.Moment, error) {
	newest, err := h.newestIndexed(ctx)
	if err != nil {
		return nil, err
	}
	traces, err := h.Trace(ctx, path)
	if err != nil {
		return nil, err
	}
	var all []snapshot.Moment
	for _, t := range traces {
		if t.Line[0].Series != newest.Series {
			continue
		}
		for _, v := range t.Versions {
			all = append(all, snapshot.Moment{Info: t.Line[v.From], Entry: v.Entry})
		}
	}
	return all, nil
}

// Holding gives the indexed snapshots that have a directory at path, oldest
// first; none is no error.
func (h *History) Holding(ctx context.Context, path string) ([]snapshot.Info, error) {
	traces, err := h.Trace(ctx, path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	held := map[int64]bool{}
	for _, t := range traces {
		for _, v := range t.Versions {
			for _, s := range t.Line[v.From : v.To+1] {
				held[s.Num] = v.Dir != 0
			}
		}
	}
	line, err := h.timeline(ctx)
	if err != nil {
		return nil, err
	}
	var all []snapshot.Info
	for _, s := range line.infos {
		if held[s.Num] {
			all = append(all, s)
		}
	}
	return all, nil
}

// DirPath gives the path of a directory, by its number.
func (h *History) DirPath(ctx context.Context, dir int64) (string, error) {
	return h.x.DirPath(ctx, dir)
}

// Path gives the path of a version.
func (h *History) Path(ctx context.Context, version int64) (string, error) {
	return h.x.Path(ctx, version)
}

func (h *History) newestIndexed(ctx context.Context) (snapshot.Info, error) {
	line, err := h.timeline(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	for _, s := range slices.Backward(line.infos) {
		if s.Indexed {
			return s, nil
		}
	}
	return snapshot.Info{}, fmt.Errorf("no snapshot is indexed: %w", fs.ErrNotExist)
}

// inEachChain calls f with a snapshot of each chain of the newest series, that
// of the source with the newest snapshot first. A path that one of them lacks
// does no harm.
func (h *History) inEachChain(ctx context.Context, path string, f func(num int64) error) error {
	newest, err := h.newestIndexed(ctx)
	if err != nil {
		return err
	}
	line, err := h.timeline(ctx)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	found := false
	for _, group := range slices.Backward(line.held) {
		for _, s := range group {
			if done[s.Source] || !s.Indexed || s.Series != newest.Series {
				continue
			}
			done[s.Source] = true
			err := f(s.Num)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			found = found || err == nil
		}
		if len(done) == len(h.joined()) {
			break
		}
	}
	if !found {
		return fmt.Errorf("no snapshot has %q: %w", path, fs.ErrNotExist)
	}
	return nil
}

// Gone gives the names in the directory at path that the newest snapshot
// lacks, as the last one that had each did, and those of directories that it
// has but that something is gone below. The work is that of a search for all
// that is gone there.
func (h *History) Gone(ctx context.Context, path string) ([]snapshot.Gone, error) {
	newest, err := h.newestIndexed(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]snapshot.Gone{}
	for t, err := range h.Traces(ctx, index.Search{Below: path, Gone: true}) {
		if err != nil {
			return nil, err
		}
		if t.Line[0].Series != newest.Series {
			continue
		}
		below := t.Path
		if path != "" {
			below = below[len(path)+1:]
		}
		name, _, deeper := strings.Cut(below, "/")
		switch _, known := names[name]; {
		case !deeper:
			if names[name], err = h.goneOf(ctx, &t); err != nil {
				return nil, err
			}
		case !known:
			names[name] = snapshot.Gone{Entry: snapshot.Entry{Name: name}}
		}
	}
	all := make([]snapshot.Gone, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		all = append(all, names[name])
	}
	return all, nil
}

// GoneAt is what Gone has for one path, or the directory that is there. Any
// other path is fs.ErrNotExist.
func (h *History) GoneAt(ctx context.Context, path string) (g snapshot.Gone, err error) {
	newest, err := h.newestIndexed(ctx)
	if err != nil {
		return g, err
	}
	traces, err := h.Trace(ctx, path)
	if err != nil {
		return g, err
	}
	for _, t := range traces {
		switch {
		case t.Line[0].Series != newest.Series:
			continue
		case t.Gone:
			return h.goneOf(ctx, &t)
		}
		if ever, err := h.EverAt(ctx, path); err != nil || ever.Dir != 0 {
			return snapshot.Gone{Entry: snapshot.Entry{Name: ever.Name}}, err
		}
	}
	return g, fmt.Errorf("%q is not gone: %w", path, fs.ErrNotExist)
}

// goneOf is what a trace ended with.
func (h *History) goneOf(ctx context.Context, t *Trace) (snapshot.Gone, error) {
	v := t.Newest()
	last, e := t.Line[v.To], v.Entry
	if !slices.ContainsFunc(t.Line[v.From:v.To], func(s snapshot.Info) bool { return s.Source != last.Source }) {
		return snapshot.Gone{Last: last, Entry: e}, nil
	}
	e, err := h.x.Find(ctx, last.Num, t.Path) // another source numbers it differently
	return snapshot.Gone{Last: last, Entry: e}, err
}
