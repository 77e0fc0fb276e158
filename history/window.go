package history

import (
	"context"
	"fmt"
	"slices"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Between gives the part of the time line from the moment since to the moment
// until, both included; "" leaves a side open. Where one is a time, there need
// be no snapshot at it: a day begins with its first and ends with its last
// moment. Else it is a TIME as [History.Resolve] knows it.
func (h *History) Between(ctx context.Context, since, until string) ([]snapshot.Info, error) {
	l, err := h.timeline(ctx)
	if err != nil {
		return nil, err
	}
	r := resolver{timeline: l, now: h.now(), loc: h.loc}
	from, to := 0, len(l.infos)
	if since != "" {
		if from, err = r.edge(since, false); err != nil {
			return nil, hint.With(fmt.Errorf("since: %w", err), listHint)
		}
	}
	if until != "" {
		if to, err = r.edge(until, true); err != nil {
			return nil, hint.With(fmt.Errorf("until: %w", err), listHint)
		}
	}
	if from >= to {
		return nil, nil
	}
	return slices.Clip(l.infos[from:to]), nil
}

// edge gives the place of the first snapshot not before what a TIME means, or
// with after that of the first after it.
func (r *resolver) edge(when string, after bool) (int, error) {
	isDir := slices.ContainsFunc(r.infos, func(s snapshot.Info) bool { return s.Dir == when })
	if sp, ok := parseSpan(when, r.now, r.loc); ok && !isDir {
		if after {
			return r.before(sp.end), nil
		}
		return r.before(sp.start), nil
	}
	i, err := r.resolve(when)
	if after {
		i++
	}
	return i, err
}
