package history

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// TimeError says that a TIME names no snapshot, or more than one. It wraps
// fs.ErrNotExist.
type TimeError struct {
	When      string          // as it was typed
	Ambiguous bool            // it names all of Nearest, and perhaps more
	Nearest   []snapshot.Info // at most three candidates, oldest first
}

func (e *TimeError) Error() string {
	var names []string
	for _, s := range e.Nearest {
		names = append(names, s.Dir)
	}
	what := "no snapshot at "
	near := "nearest: "
	switch {
	case e.Ambiguous:
		what, near = "more than one snapshot is ", "among them: "
	case len(names) == 0:
		return what + strconv.Quote(e.When) + ": there are none yet"
	}
	return what + strconv.Quote(e.When) + " (" + near + strings.Join(names, ", ") + ")"
}

func (e *TimeError) Unwrap() error { return fs.ErrNotExist }

// listHint is what to do about a TIME that means none.
const listHint = "list the snapshots with: s4 log"

// Resolve finds the snapshot that a TIME means:
//
//	latest, latest~2              the newest, the second before it
//	2026-11-22T15-41-42Z          a directory's name, or its beginning (UTC)
//	2026-11-22, 2026-11-22 15:41  the newest in that day, hour, minute, …
//	2026-11-22T15:41:42+01:00     RFC 3339: the newest at or before it
//	2h, 3d, "2 weeks ago"         the newest at or before so long ago
//	today, yesterday              the newest at or before the end of that day
//	before:TIME, after:TIME       the last before, the first after TIME
//	archive name, archive id      or its beginning, 4 digits at least
//
// Dates without Z are in the user's time zone. For a day without a snapshot
// the newest before it is taken. The error is a [*TimeError].
func (h *History) Resolve(ctx context.Context, when string) (snapshot.Info, error) {
	l, err := h.timeline(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	r := resolver{timeline: l, now: h.now(), loc: h.loc}
	i, err := r.resolve(when)
	if err != nil {
		return snapshot.Info{}, hint.With(fmt.Errorf("resolve: %w", err), listHint)
	}
	return l.infos[i], nil
}

type resolver struct {
	*timeline
	now time.Time
	loc *time.Location
}

// resolve gives the place of the snapshot in infos.
func (r *resolver) resolve(when string) (int, error) {
	typed := when
	when = strings.TrimSpace(when)
	if i := slices.IndexFunc(r.infos, func(s snapshot.Info) bool { return s.Dir == when }); i >= 0 {
		return i, nil
	}
	if rest, ok := strings.CutPrefix(when, "before:"); ok {
		return r.beside(typed, rest, false)
	}
	if rest, ok := strings.CutPrefix(when, "after:"); ok {
		return r.beside(typed, rest, true)
	}
	if n, ok := parseLatest(when); ok {
		if i := len(r.infos) - 1 - n; i >= 0 {
			return i, nil
		}
		return 0, r.unknown(typed, time.Time{})
	}
	sp, isTime := parseSpan(when, r.now, r.loc)
	newest := -1
	if isTime {
		newest = r.before(sp.end) - 1
		if newest >= 0 && !r.infos[newest].Time.Before(sp.start) {
			return newest, nil
		}
	}
	// Nothing in the time itself: perhaps somebody called an archive so.
	if i, err := r.named(typed, when); i >= 0 || err != nil {
		return i, err
	}
	if isTime && sp.reach && newest >= 0 {
		return newest, nil
	}
	return 0, r.unknown(typed, sp.start)
}

// before counts the snapshots older than t.
func (r *resolver) before(t time.Time) int {
	i, _ := slices.BinarySearchFunc(r.infos, t, func(s snapshot.Info, t time.Time) int {
		if s.Time.Before(t) {
			return -1
		}
		return 1
	})
	return i
}

// beside finds the neighbour of what a TIME means. Where TIME is a time, it
// need not have a snapshot; where it is a snapshot, the one itself is left out.
func (r *resolver) beside(typed, when string, after bool) (int, error) {
	var older, newer int // the last before, the first after
	isDir := slices.ContainsFunc(r.infos, func(s snapshot.Info) bool { return s.Dir == when })
	if sp, ok := parseSpan(when, r.now, r.loc); ok && !isDir {
		older, newer = r.before(sp.start)-1, r.before(sp.end)
	} else {
		i, err := r.resolve(when)
		if err != nil {
			return 0, err
		}
		older, newer = i-1, i+1
	}
	switch {
	case after && newer < len(r.infos):
		return newer, nil
	case !after && older >= 0:
		return older, nil
	}
	at := time.Time{}
	if !after && len(r.infos) > 0 {
		at = r.infos[0].Time
	}
	return 0, r.unknown(typed, at)
}

func parseLatest(s string) (n int, ok bool) {
	rest, ok := strings.CutPrefix(s, "latest")
	if !ok || rest == "" {
		return 0, ok
	}
	digits, ok := strings.CutPrefix(rest, "~")
	if !ok {
		return 0, false
	}
	if digits == "" {
		return 1, true
	}
	v, err := strconv.ParseUint(digits, 10, 31)
	return int(v), err == nil
}

const minIDPrefix = 4

// named finds a snapshot by its archive's name or the beginning of an id; -1
// when there is none.
func (r *resolver) named(typed, when string) (int, error) {
	id := strings.ToLower(when)
	isID := len(id) >= minIDPrefix && strings.Trim(id, "0123456789abcdef-") == ""
	var byName, byID []int
	for i, group := range r.held {
		if slices.ContainsFunc(group, func(s snapshot.Info) bool { return s.Name == when }) {
			byName = append(byName, i)
		}
		if isID && slices.ContainsFunc(group, func(s snapshot.Info) bool {
			return strings.HasPrefix(s.Handle, id) || strings.HasPrefix(s.ID, id)
		}) {
			byID = append(byID, i)
		}
	}
	for _, found := range [][]int{byName, byID} {
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			e := &TimeError{When: typed, Ambiguous: true}
			for _, i := range found[max(0, len(found)-3):] {
				e.Nearest = append(e.Nearest, r.infos[i])
			}
			return -1, e
		}
	}
	return -1, nil
}

// unknown names the snapshots nearest to t, or without one the newest.
func (r *resolver) unknown(typed string, t time.Time) error {
	to := len(r.infos)
	if !t.IsZero() {
		to = min(to, r.before(t)+1)
	}
	return &TimeError{When: typed, Nearest: slices.Clone(r.infos[max(0, to-2):to])}
}
