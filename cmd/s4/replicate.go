package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/s4-storage/s4/replicate"
	"github.com/s4-storage/s4/volume"
)

// ReplicateCmd is `s4 replicate`.
type ReplicateCmd struct {
	Remotes  []string      `arg:"" optional:"" name:"remote" help:"Remotes to replicate to (default: all)."`
	Interval time.Duration `placeholder:"TIME" help:"How often to look for changes (default: replicate.interval, or 1s)."`
	Once     bool          `help:"Push what there is and end."`
	Enable   bool          `xor:"service" help:"Have systemd replicate this volume, from now on and at every boot."`
	Disable  bool          `xor:"service" help:"End that."`
}

// Help is the paragraph under --help.
func (ReplicateCmd) Help() string {
	return `Pushes the volume to its remotes whenever it changes, within seconds, until it is stopped. While a remote is away it goes on trying; what has changed by then goes in one snapshot. On a btrfs volume every push is of an atomic snapshot, and looking for changes costs next to nothing. With --enable it becomes a systemd service of the user, or of the system for root; without systemd the unit is printed.

Example: s4 replicate --enable`
}

// Run does it.
func (c *ReplicateCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		if c.Enable || c.Disable {
			return a.service(ctx, v, "replicate", c.Enable, c.Remotes)
		}
		every, err := interval(v, "replicate", c.Interval, time.Second)
		if err != nil {
			return err
		}
		report, done := a.reporter()
		defer done()
		defer a.keepingRoom(ctx, v)()
		return replicate.Push(ctx, v, replicate.PushOptions{
			Remotes: c.Remotes, Every: every, Once: c.Once, Events: a.event, Report: report, Log: a.log,
		})
	})
}

// SyncCmd is `s4 sync`.
type SyncCmd struct {
	Remote   string        `arg:"" optional:"" help:"Remote to follow (default: the default remote)."`
	Interval time.Duration `placeholder:"TIME" help:"How often to ask for news (default: sync.interval, or 1s)."`
	Once     bool          `help:"Bring what there is and end."`
	Force    bool          `help:"Go on where something was changed here: keep it as a btrfs snapshot first."`
	Enable   bool          `xor:"service" help:"Have systemd keep this volume in step, from now on and at every boot."`
	Disable  bool          `xor:"service" help:"End that."`
}

// Help is the paragraph under --help.
func (SyncCmd) Help() string {
	return `Keeps the volume a mirror of a remote: every snapshot that another host pushes there is brought here, changing only what differs, until it is stopped. Files that were changed here since end it, with exit code 4, rather than be lost.

Example: s4 sync origin`
}

// Run does it.
func (c *SyncCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		if c.Enable || c.Disable {
			var remote []string
			if c.Remote != "" {
				remote = []string{c.Remote}
			}
			return a.service(ctx, v, "sync", c.Enable, remote)
		}
		every, err := interval(v, "sync", c.Interval, time.Second)
		if err != nil {
			return err
		}
		report, done := a.reporter()
		defer done()
		defer a.keepingRoom(ctx, v)()
		return replicate.Mirror(ctx, v, replicate.MirrorOptions{
			Remote: c.Remote, Every: every, Once: c.Once, Force: c.Force, Events: a.event, Report: report, Log: a.log,
		})
	})
}

// interval is what was given, what is configured, or otherwise.
func interval(v *volume.Volume, job string, given, otherwise time.Duration) (time.Duration, error) {
	if given < 0 {
		return 0, usage("--interval %s is in the past", given)
	}
	if given > 0 {
		return given, nil
	}
	return v.Interval(job, otherwise)
}

// event shows what replicate or sync did: a line for a person, with --json one
// JSON document a line.
func (a *app) event(e replicate.Event) {
	if a.JSON {
		// Nobody reads on where it fails; there is more to do than to tell.
		_ = json.NewEncoder(a.stdout).Encode(e)
		return
	}
	switch e.Kind {
	case replicate.Watching:
		a.say("Watching for changes")
	case replicate.Pushed:
		a.say("%s  pushed to %s: %s, %s (%s new), %.1f s behind", clock(e.Time), e.Remote, count(e.Files, "file"), size(e.Size), size(e.Added), e.Lag)
	case replicate.Brought:
		a.say("%s  brought %s from %s", clock(e.Time), e.Name, e.Remote)
	case replicate.Current:
		a.log.Info("up to date", "remote", e.Remote)
	case replicate.Failed:
		a.say("%s  %s: %s; trying again in %s", clock(e.Time), e.Remote, e.Error, time.Duration(e.Retry*float64(time.Second)).Round(time.Second))
	case replicate.GivenUp: // the error that ends it tells
	}
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }
