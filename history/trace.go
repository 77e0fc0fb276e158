package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// Trace is what one path was over time in one series of snapshots, whichever
// sources hold them.
type Trace struct {
	Path     string
	Line     []snapshot.Info // the series' indexed part of the time line, oldest first; shared
	Versions []Version       // oldest first, never empty
	Gone     bool            // the series' newest snapshot lacks the path
}

// Version is one state of a path, in Line[From] to Line[To] of its trace and
// all between.
type Version struct {
	snapshot.Entry
	From, To int
}

// Newest is the last version.
func (t *Trace) Newest() *Version { return &t.Versions[len(t.Versions)-1] }

// Period is a part of a trace's Line in which the path was without a gap.
type Period struct{ From, To int }

// Periods are when the versions were there, oldest first.
func (t *Trace) Periods() (all []Period) {
	for _, v := range t.Versions {
		if n := len(all); n > 0 && all[n-1].To+1 == v.From {
			all[n-1].To = v.To
		} else {
			all = append(all, Period{v.From, v.To})
		}
	}
	return all
}

// Traces finds paths over all of time, as far as it is indexed, in the order of
// [index.Index.Search]; s.Gone keeps to those that the newest snapshot of their
// series lacks. Versions of two sources that are alike make one.
func (h *History) Traces(ctx context.Context, s index.Search) iter.Seq2[Trace, error] {
	return func(yield func(Trace, error) bool) {
		all, err := h.tracers(ctx)
		if err != nil {
			yield(Trace{}, err)
			return
		}
		gone := s.Gone
		for _, t := range all.series {
			s.Gone = s.Gone && t.chains == 1 // else a chain that ends early would hide some
		}
		var same []index.PathHistory // histories of one path
		flush := func() bool {
			for _, t := range all.merge(same) {
				if (!gone || t.Gone) && !yield(t, nil) {
					return false
				}
			}
			same = same[:0]
			return true
		}
		for found, err := range h.x.Search(ctx, s) {
			if err != nil {
				yield(Trace{}, err)
				return
			}
			if len(same) > 0 && same[0].Path != found.Path && !flush() {
				return
			}
			same = append(same, found)
		}
		flush()
	}
}

// Trace tells what a path was in each series that ever had it, as far as it is
// indexed, that with the newest snapshot first; fs.ErrNotExist where none had.
func (h *History) Trace(ctx context.Context, path string) ([]Trace, error) {
	all, err := h.tracers(ctx)
	if err != nil {
		return nil, err
	}
	var found []index.PathHistory
	for _, c := range all.chains {
		versions, err := h.x.Versions(ctx, c.order[0], path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			found = append(found, index.PathHistory{Path: path, Versions: versions})
		}
	}
	traces := all.merge(found)
	if len(traces) == 0 {
		return nil, fmt.Errorf("no snapshot has %q: %w", path, fs.ErrNotExist)
	}
	slices.SortFunc(traces, func(a, b Trace) int { return b.Line[len(b.Line)-1].Time.Compare(a.Line[len(a.Line)-1].Time) })
	return traces, nil
}

// tracers turn versions of chains into versions on the time line.
type tracers struct {
	series map[string]*tracer
	chains map[chainID]*chainPlaces
}

type chainID struct{ source, series string }

// tracer is one series.
type tracer struct {
	line   []snapshot.Info
	chains int
}

// chainPlaces tells where a chain's indexed snapshots stand on the line of
// their series.
type chainPlaces struct {
	order  []int64       // numbers, oldest first
	at     map[int64]int // place in order
	shown  []int         // place on the line; -1 for one that another source shows
	inLine bool          // the line is this chain, and nothing else
}

func (h *History) tracers(ctx context.Context) (*tracers, error) {
	line, err := h.timeline(ctx)
	if err != nil {
		return nil, err
	}
	known, err := h.x.Snapshots(ctx, "")
	if err != nil {
		return nil, err
	}
	all := &tracers{map[string]*tracer{}, map[chainID]*chainPlaces{}}
	places := map[int64]int{}
	for _, s := range line.infos {
		if !s.Indexed {
			continue
		}
		t := all.series[s.Series]
		if t == nil {
			t = &tracer{}
			all.series[s.Series] = t
		}
		places[s.Num] = len(t.line)
		t.line = append(t.line, s)
	}
	for _, s := range known {
		t := all.series[s.Series]
		if !s.Indexed || t == nil || h.source(s.Source) == nil {
			continue
		}
		id := chainID{s.Source, s.Series}
		c := all.chains[id]
		if c == nil {
			c = &chainPlaces{at: map[int64]int{}, inLine: true}
			all.chains[id] = c
			t.chains++
		}
		place, ok := places[s.Num]
		if !ok {
			place = -1
		}
		c.inLine = c.inLine && place == len(c.order)
		c.at[s.Num] = len(c.order)
		c.order = append(c.order, s.Num)
		c.shown = append(c.shown, place)
	}
	return all, nil
}

// merge makes a trace for each series of one path's histories.
func (all *tracers) merge(found []index.PathHistory) (traces []Trace) {
	done := map[string]bool{}
	for i, f := range found {
		series := f.Versions[0].First.Series
		t := all.series[series]
		if t == nil || done[series] {
			continue
		}
		done[series] = true
		trace := Trace{Path: f.Path, Line: t.line}
		if c := all.chains[chainID{f.Versions[0].First.Source, series}]; t.chains == 1 && c != nil && c.inLine {
			trace.Versions = c.versions(f.Versions)
		} else {
			trace.Versions = all.joined(t, series, found[i:])
		}
		if len(trace.Versions) > 0 {
			trace.Gone = trace.Newest().To < len(t.line)-1
			traces = append(traces, trace)
		}
	}
	return traces
}

// versions translates where the line is the chain.
func (c *chainPlaces) versions(of []index.PathVersion) []Version {
	out := make([]Version, 0, len(of))
	for _, v := range of {
		from, ok := c.at[v.First.Num]
		to, also := c.at[v.Last.Num]
		if ok && also { // else snapshots came or went meanwhile
			out = append(out, Version{v.Entry, from, to})
		}
	}
	return out
}

// joined lays the versions of several chains along the line.
func (all *tracers) joined(t *tracer, series string, found []index.PathHistory) (out []Version) {
	line := make([]*index.PathVersion, len(t.line))
	for _, f := range found {
		first := f.Versions[0].First
		c := all.chains[chainID{first.Source, series}]
		if first.Series != series || c == nil {
			continue
		}
		for i := range f.Versions {
			v := &f.Versions[i]
			from, ok := c.at[v.First.Num]
			to, also := c.at[v.Last.Num]
			for at := from; ok && also && at <= to; at++ {
				if place := c.shown[at]; place >= 0 {
					line[place] = v
				}
			}
		}
	}
	for i, v := range line {
		switch {
		case v == nil:
		case i > 0 && line[i-1] != nil && (line[i-1] == v || line[i-1].First.Source != v.First.Source && snapshot.Alike(&line[i-1].Entry, &v.Entry)):
			out[len(out)-1].To = i
		default:
			out = append(out, Version{v.Entry, i, i})
		}
	}
	return out
}
