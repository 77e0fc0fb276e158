package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/volume"
)

// ReadyCmd is `s4 ready`.
type ReadyCmd struct {
	Remote string        `arg:"" optional:"" help:"The remote that matters (default: every one)."`
	MaxLag time.Duration `default:"15m" placeholder:"TIME" help:"How old the last good push or sync may be."`
}

// Help is the paragraph under --help.
func (ReadyCmd) Help() string {
	return `Tells by its exit code whether the volume is being backed up, or kept in step: 0 only if every remote had all of it, or it had all of the remote, less than --max-lag ago. For health checks: a service that runs is not one that works.

Example: s4 ready --max-lag 10m`
}

// Run does it.
func (c *ReadyCmd) Run(_ context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		r, err := v.Readiness(c.Remote)
		if err != nil {
			return err
		}
		late := []string{}
		for _, one := range r {
			if one.LastGood.IsZero() || time.Since(one.LastGood) > c.MaxLag {
				late = append(late, one.String())
			}
		}
		if a.JSON {
			if err := a.printJSON(struct {
				Ready   bool               `json:"ready"`
				Remotes []volume.Readiness `json:"remotes"`
			}{len(late) == 0 && len(r) > 0, r}); err != nil {
				return err
			}
		}
		switch {
		case len(r) == 0:
			return hint.With(errors.Join(errors.New("not ready: the volume has no remote")), "add one with: s4 remote add origin URL")
		case len(late) > 0:
			return hint.With(fmt.Errorf("not ready: %s", strings.Join(late, "; ")), "see: s4 status")
		}
		for _, one := range r {
			a.say("%s", one)
		}
		return nil
	})
}
