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
}

// Default is what is kept where nothing else is said.
var Default = Rules{Last: 10, Hourly: 24, Daily: 7}

// period is one kind of rule: how many are kept, and what names the period that
// a time falls into.
type period struct {
	keep int
	name func(time.Time) string
}

func (r Rules) periods() []period {
	layout := func(l string) func(time.Time) string {
		return func(t time.Time) string { return t.Format(l) }
	}
	return []period{
		{r.Hourly, layout("2006-01-02T15Z07")},
		{r.Daily, layout("2006-01-02")},
		{r.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-", w) }},
		{r.Monthly, layout("2006-01")},
		{r.Yearly, layout("2006")},
	}
}

// Choose parts infos, oldest first as [Store.List] gives them, into those to
// keep and those to delete. Days and the like are those of zone.
func (r Rules) Choose(infos []snapshot.Info, pinned func(snapshot.Info) bool, zone *time.Location) (keep, drop []snapshot.Info) {
	kept := make([]bool, len(infos))
	for n := range infos {
		kept[len(infos)-1-n] = r.Last < 0 || n < r.Last
	}
	for _, p := range r.periods() {
		last, left := "", p.keep
		for i := len(infos) - 1; i >= 0 && left != 0; i-- {
			if name := p.name(infos[i].Time.In(zone)); name != last {
				kept[i], last = true, name
				left--
			}
		}
	}
	for i, info := range infos {
		if kept[i] || pinned(info) {
			keep = append(keep, info)
		} else {
			drop = append(drop, info)
		}
	}
	return keep, drop
}
