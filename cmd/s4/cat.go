package main

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// CatCmd is `s4 cat`.
type CatCmd struct {
	lookFlags

	When string `arg:"" name:"time:path" help:"Moment and the file's path below the volume's root."`
}

// Help is the paragraph under --help.
func (CatCmd) Help() string {
	return `Writes a file as it was to stdout. Only the parts of the file are fetched, nothing else of the snapshot.

Examples:

  s4 cat yesterday:notes.txt
  s4 cat -r nas:/backups/repo latest:etc/fstab`
}

// Run does it.
func (c *CatCmd) Run(ctx context.Context, a *app) error {
	return a.withMoment(ctx, c.lookFlags, c.When, func(_ *volume.Volume, past *volume.Past, s snapshot.Info, path string) error {
		e, err := find(ctx, past, s, path)
		if err != nil {
			return err
		}
		if e.Mode&unix.S_IFMT != unix.S_IFREG {
			return usage("%s is not a file", c.When)
		}
		f, err := past.Open(ctx, s.Num, e)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteTo(a.stdout); err != nil {
			return fmt.Errorf("read %s: %w", c.When, err)
		}
		return nil
	})
}
