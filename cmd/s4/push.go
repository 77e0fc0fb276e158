package main

import (
	"context"

	"github.com/s4-storage/s4/volume"
)

// PushCmd is `s4 push`.
type PushCmd struct {
	Remote  string `arg:"" optional:"" help:"Remote to push to (default: the default remote)."`
	Message string `short:"m" help:"What to remember about this snapshot."`
	Force   bool   `help:"Push even if the remote has snapshots this volume has never seen."`
}

// Help is the paragraph under --help.
func (PushCmd) Help() string {
	return `Stores the volume as a new archive in the remote's borg repository, which is made on first use. When nothing changed since the last push, nothing is added. An interrupted push is carried on by the next one.

Example: s4 push origin -m "before the upgrade"`
}

// Run does it.
func (c *PushCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		report, done := a.reporter()
		r, err := v.Push(ctx, volume.PushOptions{Remote: c.Remote, Message: c.Message, Force: c.Force, Report: report})
		done()
		if r == nil || r.URL == "" || (err != nil && r.Snapshot.Handle == "") {
			return err
		}
		if a.JSON {
			if errPrint := a.printJSON(struct {
				*volume.PushResult
				Snapshot snapshotJSON `json:"snapshot"`
			}{r, toJSON(r.Snapshot)}); errPrint != nil {
				return errPrint
			}
			return err
		}
		if r.UpToDate {
			a.say("Everything up-to-date")
			return err
		}
		a.say("To %s", r.URL)
		a.say(" * %s  %s, %s (%s new)", r.Snapshot.Name, count(r.Files, "file"), size(r.Size), size(r.Added))
		return err
	})
}
