package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/volume"
)

// StatusCmd is `s4 status`.
type StatusCmd struct{}

// Help is the paragraph under --help.
func (StatusCmd) Help() string {
	return `Shows what is not pushed yet and how the volume stands to each remote, as far as known since it was last reached: nothing is connected to.

Example: s4 status`
}

// maxShown bounds how many changed paths a person is shown.
const maxShown = 20

// Run does it.
func (c *StatusCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		if _, err := a.past(ctx, v); err != nil {
			return err
		}
		s, err := v.Status(ctx)
		if err != nil {
			return err
		}
		if a.JSON {
			var base *snapshotJSON
			if s.Base != nil {
				j := toJSON(*s.Base)
				base = &j
			}
			return a.printJSON(struct {
				*volume.Status
				Base *snapshotJSON `json:"base,omitempty"`
			}{s, base})
		}
		return a.printStatus(s)
	})
}

func (a *app) printStatus(s *volume.Status) error {
	w := &errWriter{w: a.stdout}
	where := shownName(a.stdout, s.Root)
	if s.Mounted {
		where += " (mounted)"
	}
	w.printf("Volume %s at %s\n", s.Name, where)
	switch {
	case s.Arriving:
		w.printf("A clone or pull was interrupted; run it again to carry on\n")
	case s.Base == nil:
		w.printf("Nothing pushed yet\n")
	case s.Pruned:
		w.printf("The snapshot it is on is kept nowhere any more; the newest before it: %s\n", s.Base.Dir)
	default:
		w.printf("On snapshot %s (%s)\n", s.Base.Dir, humanize.Time(s.Base.Time))
	}
	for _, r := range s.Remotes {
		w.printf("Remote %s: %s\n", r.Name, remoteLine(r))
	}
	if s.Snapshots > 0 {
		w.printf("%s kept here\n", count(int64(s.Snapshots), "btrfs snapshot"))
	}
	printJob(w, "Replicating", s.Replicate)
	printJob(w, "Syncing", s.Sync)
	if len(s.Remotes) == 0 {
		w.printf("No remote; add one with: s4 remote add origin URL\n")
	}
	if s.Clean {
		w.printf("Nothing to push, the volume is clean\n")
		return w.err
	}
	w.printf("%s not pushed:\n", count(int64(s.Changed), "change"))
	for i, c := range s.Changes {
		if i == maxShown {
			w.printf("  … and %d more\n", s.Changed-maxShown)
			break
		}
		w.printf("  %-9s %s\n", c.Kind, shownName(a.stdout, c.Path))
	}
	for _, u := range s.Unread {
		w.printf("  unreadable: %s\n", quote.Text(u))
	}
	return w.err
}

// printJob tells how replicate or sync is doing with each remote.
func printJob(w *errWriter, what string, r *volume.Replication) {
	if r == nil || !r.Running {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.Remotes)) {
		at := r.Remotes[name]
		text := "not yet"
		switch {
		case at.Error != "":
			text = "failing since " + humanize.Time(at.Failing) + ": " + quote.Text(at.Error)
		case !at.LastGood.IsZero():
			text = "in step " + humanize.Time(at.LastGood)
			if at.Lag > 0 {
				text += fmt.Sprintf(", %.1f s behind at the last change", at.Lag)
			}
		}
		w.printf("%s (process %d) %s: %s\n", what, r.PID, name, text)
	}
}

func remoteLine(r volume.RemoteStatus) string {
	if r.Repository == "" {
		return fmt.Sprintf("%s (encryption: %s), never reached", r.URL, r.Encryption)
	}
	text := fmt.Sprintf("%s (encryption: %s)", r.Repository, r.Encryption)
	if !r.LastPush.IsZero() {
		text += ", pushed " + humanize.Time(r.LastPush)
	}
	if r.Behind > 0 {
		text += fmt.Sprintf(", has %s not pulled", count(int64(r.Behind), "snapshot"))
	}
	if !r.Contact.IsZero() && time.Since(r.Contact) > time.Hour {
		text += ", last reached " + humanize.Time(r.Contact)
	}
	return text
}

// errWriter keeps the first error of many prints.
type errWriter struct {
	w   interface{ Write([]byte) (int, error) }
	err error
}

func (w *errWriter) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.w, format, args...)
	}
}
