package main

import (
	"context"

	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/snapshots"
	"github.com/s4-storage/s4/volume"
)

// PruneCmd is `s4 prune`.
type PruneCmd struct {
	Remote    string `arg:"" optional:"" help:"Remote to prune (default: the default remote)."`
	Last      string `name:"keep-last" placeholder:"N" help:"Keep the N newest snapshots."`
	Hourly    string `name:"keep-hourly" placeholder:"N" help:"Keep the newest of each of the last N hours that have one."`
	Daily     string `name:"keep-daily" placeholder:"N" help:"Likewise of days."`
	Weekly    string `name:"keep-weekly" placeholder:"N" help:"Likewise of weeks, which begin on Monday."`
	Monthly   string `name:"keep-monthly" placeholder:"N" help:"Likewise of months."`
	Yearly    string `name:"keep-yearly" placeholder:"N" help:"Likewise of years."`
	Within    string `name:"keep-within" placeholder:"AGE" help:"Keep all that are younger, such as 36h, 7d or 4w."`
	DryRun    bool   `help:"Only show what would be kept and removed."`
	NoCompact bool   `help:"Leave the room that becomes free to a later prune or borg compact."`
}

// Help is the paragraph under --help.
func (PruneCmd) Help() string {
	return `Removes snapshots of this volume from a remote, all but those that a rule keeps, and gives their room free. N is a number, or all. Without a rule those set as prune.keep-last, prune.keep-daily and so on count. The last snapshot and the one that the volume is on always stay, as do snapshots of other volumes in the same repository, and btrfs snapshots on this host.

Example: s4 prune --keep-daily 7 --keep-weekly 4 --keep-monthly 12`
}

// rules are those that were typed, none where there are none.
func (c *PruneCmd) rules() (snapshots.Rules, error) {
	values := map[string]string{}
	for name, value := range map[string]string{
		"last": c.Last, "hourly": c.Hourly, "daily": c.Daily, "weekly": c.Weekly,
		"monthly": c.Monthly, "yearly": c.Yearly, "within": c.Within,
	} {
		if value != "" {
			values[name] = value
		}
	}
	if len(values) == 0 {
		return snapshots.Rules{}, nil
	}
	return volume.PruneRules(values)
}

// Run does it.
func (c *PruneCmd) Run(ctx context.Context, a *app) error {
	rules, err := c.rules()
	if err != nil {
		return err
	}
	return a.withVolume(func(v *volume.Volume) error {
		report, done := a.reporter()
		r, err := v.Prune(ctx, volume.PruneOptions{Remote: c.Remote, Rules: rules, DryRun: c.DryRun, NoCompact: c.NoCompact, Report: report})
		done()
		if r == nil {
			return err
		}
		if a.JSON {
			if errPrint := a.printJSON(pruneToJSON(r)); errPrint != nil {
				return errPrint
			}
			return err
		}
		if errPrint := a.printPruned(r); errPrint != nil {
			return errPrint
		}
		return err
	})
}

func (a *app) printPruned(r *volume.PruneResult) error {
	w := &errWriter{w: a.stdout}
	verb := "remove"
	if !r.DryRun {
		verb = "removed"
	}
	for _, p := range r.Pruned {
		if p.Kept != "" {
			w.printf("%-8s %s  %s (%s)\n", "keep", p.Snapshot.Dir, quote.Text(p.Snapshot.Name), p.Kept)
		} else {
			w.printf("%-8s %s  %s\n", verb, p.Snapshot.Dir, quote.Text(p.Snapshot.Name))
		}
	}
	for _, name := range r.Unused {
		w.printf("%-8s %s (of a push that broke off)\n", verb, quote.Text(name))
	}
	switch gone := r.Gone(); {
	case gone+len(r.Unused) == 0:
		a.say("Nothing to remove at %s", r.URL)
	case r.DryRun:
		a.say("%s would be removed from %s", count(int64(gone), "snapshot"), r.URL)
	case r.Freed >= 0:
		a.say("%s removed from %s, %s freed", count(int64(gone), "snapshot"), r.URL, size(r.Freed))
	default:
		a.say("%s removed from %s, at least %s in them", count(int64(gone), "snapshot"), r.URL, size(r.Removed))
	}
	return w.err
}

// prunedJSON is what becomes of a snapshot.
type prunedJSON struct {
	snapshotJSON
	Kept string `json:"kept,omitempty"` // by which rule
	Gone bool   `json:"removed"`
}

// pruneToJSON is a result as --json shows it.
func pruneToJSON(r *volume.PruneResult) any {
	list := []prunedJSON{}
	for _, p := range r.Pruned {
		list = append(list, prunedJSON{toJSON(p.Snapshot), p.Kept, p.Kept == ""})
	}
	return struct {
		*volume.PruneResult
		Snapshots []prunedJSON `json:"snapshots"`
	}{r, list}
}
