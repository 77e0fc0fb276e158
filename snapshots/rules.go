package snapshots

import (
	"fmt"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// Rules choose which snapshots are kept: the newest of each of so many hours,
// days and so on that have one, and so many of the newest. -1 means all.
type Rules struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	Within                                       time.Duration // all that are younger
}

// IsZero tells whether no rule keeps anything.
func (r Rules) IsZero() bool { return r == Rules{} }

// Default is what is kept where nothing else is said.
var Default = Rules{Last: 10, Hourly: 24, Daily: 7}

// period is one kind of rule: how many are kept, and what names the period that
// a time falls into.
type period struct {
	rule string
	keep int
	name func(time.Time) string
}

func (r Rules) periods() []period {
	layout := func(l string) func(time.Time) string {
		return func(t time.Time) string { return t.Format(l) }
	}
	return []period{
		{"hourly", r.Hourly, layout("2006-01-02T15Z07")},
		{"daily", r.Daily, layout("2006-01-02")},
		{"weekly", r.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-", w) }},
		{"monthly", r.Monthly, layout("2006-01")},
		{"yearly", r.Yearly, layout("2006")},
	}
}

// Reasons tells for each of infos, which are the oldest first, the rule that keeps it:
// "last", "hourly" and so on, or "within"; "" for one that none keeps. Days and the
// like are those of now's zone.
func (r Rules) Reasons(infos []snapshot.Info, now time.Time) []string {
	reasons := make([]string, len(infos))
	for i := range infos {
		switch n := len(infos) - 1 - i; {
		case r.Last < 0 || n < r.Last:
			reasons[i] = "last"
		case r.Within > 0 && now.Sub(infos[i].Time) < r.Within:
			reasons[i] = "within"
		}
	}
	for _, p := range r.periods() {
		last, left := "", p.keep
		for i := len(infos) - 1; i >= 0 && left != 0; i-- {
			if name := p.name(infos[i].Time.In(now.Location())); name != last {
				if last = name; reasons[i] == "" {
					reasons[i] = p.rule
				}
				left--
			}
		}
	}
	return reasons
}

// Choose parts infos, oldest first as [Store.List] gives them, into those to
// keep and those to delete. Days and the like are those of zone.
func (r Rules) Choose(infos []snapshot.Info, pinned func(snapshot.Info) bool, zone *time.Location) (keep, drop []snapshot.Info) {
	reasons := r.Reasons(infos, time.Now().In(zone))
	for i, info := range infos {
		if reasons[i] != "" || pinned(info) {
			keep = append(keep, info)
		} else {
			drop = append(drop, info)
		}
	}
	return keep, drop
}
