package main

import "fmt"

// target is what a ratio to borg ought to be at least.
type target struct {
	Key   string  `json:"key"`
	Title string  `json:"title"`
	Least float64 `json:"least"`
	Ratio float64 `json:"ratio"`
	Holds bool    `json:"holds"`
}

// judge compares the results with the project's first targets.
func (r *report) judge() []target {
	var all []target
	for _, t := range []target{
		{Key: "first", Title: "first byte of a file in an old snapshot, indexed", Least: 5},
		{Key: "find", Title: "find over a snapshot, first", Least: 2},
		{Key: "again", Title: "find over it again", Least: 2},
		{Key: "another", Title: "find over another snapshot", Least: 2},
		{Key: "rss", Title: "memory after browsing", Least: 1},
		{Key: "peak", Title: "  its peak", Least: 1},
		{Key: "rssBig", Title: "memory after the big file", Least: 1},
		{Key: "peakBig", Title: "  its peak", Least: 1},
	} {
		for _, res := range r.Results {
			if res.Key == t.Key && res.Ratio > 0 {
				t.Ratio, t.Holds = res.Ratio, res.Ratio >= t.Least
				all = append(all, t)
			}
		}
	}
	return all
}

func (t target) String() string {
	verdict := "MISSED"
	if t.Holds {
		verdict = "holds"
	}
	return fmt.Sprintf("target %-50s at least %.0f × better than borg: %6.2f ×  %s", t.Title, t.Least, t.Ratio, verdict)
}
