package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/quote"
)

// DockerStatusCmd is `s4 docker status`.
type DockerStatusCmd struct {
	projectFlags
	MaxLag time.Duration `placeholder:"TIME" help:"Fail when a volume's last good backup is older."`
	Health bool          `help:"Fail when a volume's last good backup is older than three of its intervals."`
}

// Help is the paragraph under --help.
func (DockerStatusCmd) Help() string {
	return `Shows for each docker volume that an agent looks after when it was last backed up, and what went wrong since. With --max-lag or --health the exit code is 1 when something is not in order, for health checks and monitoring.

Example: s4 docker status --max-lag 3h`
}

// Run does it.
func (c *DockerStatusCmd) Run(ctx context.Context, a *app) error {
	var all []dockeragent.Status
	err := withEngine(func(engine *dockerapi.Client) error {
		project, err := c.project(ctx, a, engine)
		if err != nil {
			return err
		}
		all, err = dockeragent.Statuses(ctx, engine, project)
		return err
	})
	if err != nil {
		return err
	}
	var complaints []string
	for _, s := range all {
		complaints = append(complaints, s.Complaints(c.MaxLag, time.Now())...)
	}
	switch {
	case a.JSON:
		err = a.printJSON(all)
	case !a.Quiet && len(all) > 0:
		err = a.printDockerStatus(all)
	}
	switch {
	case err != nil:
		return err
	case len(all) == 0 && (c.Health || c.MaxLag > 0):
		return hint.With(errors.New("no agent"), "beside a compose file: s4 docker add --remote URL")
	case len(all) == 0:
		a.say("No agent; beside a compose file: s4 docker add --remote URL")
	case len(complaints) > 0 && (c.Health || c.MaxLag > 0):
		return hint.With(errors.New(strings.Join(complaints, "; ")), "see: s4 docker doctor")
	}
	return nil
}

func (a *app) printDockerStatus(all []dockeragent.Status) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PROJECT\tVOLUME\tLAST GOOD\tSTATE")
	for _, s := range all {
		for _, name := range s.Names() {
			v := s.Volumes[name]
			last := "never"
			if !v.LastGood.IsZero() {
				last = humanize.Time(v.LastGood)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Project, name, last, quote.Text(dockerVolumeState(v)))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range all {
		if !s.Running {
			a.warn("the agent %s does not run", s.Container)
		}
		for _, p := range s.Problems {
			a.warn("%s: %s", s.Project, p)
		}
		for _, h := range s.Held {
			a.say("%s is held (%s) for the backup of %s since %s", h.Name, h.Quiesce, h.Volume, humanize.Time(h.Since))
		}
	}
	return nil
}

func dockerVolumeState(v *dockeragent.VolumeState) string {
	switch {
	case v.Running:
		return "running"
	case v.Gone:
		return "no service mounts it any more"
	case v.Error != "":
		return v.Error
	case v.LastGood.IsZero():
		return "waiting"
	}
	text := "ok, " + count(v.Last.Files, "file") + ", " + size(v.Last.Size)
	if v.PruneError != "" {
		text += "; old snapshots stay: " + v.PruneError
	}
	return text
}

// DockerDoctorCmd is `s4 docker doctor`.
type DockerDoctorCmd struct {
	projectFlags
	MaxLag time.Duration `placeholder:"TIME" help:"How old a volume's last good backup may be (default: three of its intervals)."`
}

// Help is the paragraph under --help.
func (DockerDoctorCmd) Help() string {
	return `Looks at the engine, the agents, the labels, the last good backups, services that a crashed agent left down, the ssh key and the remote's host key. The exit code is 1 when something is bad.

Example: s4 docker doctor`
}

// Run does it.
func (c *DockerDoctorCmd) Run(ctx context.Context, a *app) error {
	var checks []dockeragent.Check
	if err := withEngine(func(engine *dockerapi.Client) error {
		project, err := c.project(ctx, a, engine)
		if err != nil {
			return err
		}
		checks = dockeragent.Doctor(ctx, engine, project, c.MaxLag)
		return nil
	}); err != nil {
		return err
	}
	bad := 0
	w := &errWriter{w: a.stdout}
	for _, check := range checks {
		if check.Verdict == dockeragent.Bad {
			bad++
		}
		if a.JSON || a.Quiet && check.Verdict != dockeragent.Bad {
			continue
		}
		w.printf("%-4s  %s: %s\n", check.Verdict, check.What, quote.Text(check.Text))
		if check.Hint != "" {
			w.printf("      hint: %s\n", quote.Text(check.Hint))
		}
	}
	if a.JSON {
		w.err = a.printJSON(checks)
	}
	if w.err != nil || bad == 0 {
		return w.err
	}
	return fmt.Errorf("%s not in order", count(int64(bad), "check"))
}
