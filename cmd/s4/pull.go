package main

import (
	"context"

	"github.com/s4-storage/s4/volume"
	"github.com/s4-storage/s4/worktree"
)

// PullCmd is `s4 pull`.
type PullCmd struct {
	Remote string `arg:"" optional:"" help:"Remote to pull from (default: the default remote)."`
	At     string `placeholder:"TIME" help:"Snapshot to bring the volume to (default: the newest)."`
	Force  bool   `help:"Give up changes that are not pushed."`
}

// Help is the paragraph under --help.
func (PullCmd) Help() string {
	return `Brings the volume to the remote's newest snapshot, fetching and changing only what differs. Changes that are not pushed are never overwritten without --force. An interrupted pull is carried on by the next one.

Example: s4 pull origin`
}

// Run does it.
func (c *PullCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		report, done := a.reporter()
		r, err := v.Pull(ctx, volume.PullOptions{Remote: c.Remote, At: c.At, Force: c.Force, Report: report})
		done()
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(struct {
				Remote   string           `json:"remote"`
				URL      string           `json:"url"`
				UpToDate bool             `json:"up_to_date"`
				Snapshot snapshotJSON     `json:"snapshot"`
				Changes  *worktree.Result `json:"changes,omitempty"`
			}{r.Remote, r.URL, r.UpToDate, toJSON(r.Snapshot), r.Changes})
		}
		if r.UpToDate {
			a.say("Already up to date.")
			return nil
		}
		a.say("Now at %s: %s", r.Snapshot.Dir, summary(r.Changes))
		return nil
	})
}

// summary is what an Apply did, in words.
func summary(r *worktree.Result) string {
	text := ""
	for _, part := range []struct {
		n    int
		verb string
	}{{r.Created, "created"}, {r.Replaced, "replaced"}, {r.Linked, "linked"}, {r.Metadata, "metadata only"}, {r.Deleted, "deleted"}} {
		if part.n > 0 {
			if text != "" {
				text += ", "
			}
			text += count(int64(part.n), "path") + " " + part.verb
		}
	}
	if text == "" {
		return "nothing to change"
	}
	return text + "; " + size(r.Fetched) + " fetched"
}
