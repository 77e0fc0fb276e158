package main

import (
	"context"

	"github.com/s4-storage/s4/volume"
)

// SnapshotCmd is `s4 snapshot`.
type SnapshotCmd struct {
	Message string `short:"m" help:"What to remember about this snapshot."`
}

// Help is the paragraph under --help.
func (SnapshotCmd) Help() string {
	return `Keeps the volume as it is now as a btrfs snapshot: atomic, in a moment, on this host. It shows in s4 log and in .s4/history at once, and is read from the disk. Old snapshots go by the rules snapshots.last, .hourly, .daily, .weekly, .monthly and .yearly (10, 24, 7, and none); one that a remote was last pushed from stays.

Example: s4 snapshot -m "before the upgrade"`
}

// Run does it.
func (c *SnapshotCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		r, err := v.Snapshot(ctx, c.Message)
		if r == nil {
			return err
		}
		if a.JSON {
			deleted := []snapshotJSON{}
			for _, s := range r.Deleted {
				deleted = append(deleted, toJSON(s))
			}
			if errPrint := a.printJSON(struct {
				Snapshot snapshotJSON   `json:"snapshot"`
				Deleted  []snapshotJSON `json:"deleted"`
			}{toJSON(r.Snapshot), deleted}); errPrint != nil {
				return errPrint
			}
			return err
		}
		a.say("Snapshot %s", r.Snapshot.Name)
		if n := len(r.Deleted); n > 0 {
			a.say("%s deleted by the retention rules", count(int64(n), "old snapshot"))
		}
		return err
	})
}
