package main

import (
	"context"
	"fmt"
	"io"
	"os"

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
		f, err := c.open(ctx, past, s, path)
		if err != nil {
			return err
		}
		defer f.Close()
		widenPipe(a.stdout)
		if _, err := f.WriteTo(a.stdout); err != nil {
			return fmt.Errorf("read %s: %w", c.When, err)
		}
		return nil
	})
}

func (c *CatCmd) open(ctx context.Context, past *volume.Past, s snapshot.Info, path string) (snapshot.File, error) {
	if f, err := past.Peek(ctx, s.Num, path); f != nil || err != nil {
		return f, err
	}
	e, err := find(ctx, past, s, path)
	if err != nil {
		return nil, err
	}
	if e.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, usage("%s is not a file", c.When)
	}
	return past.Open(ctx, s.Num, e)
}

// pipeBytes is how much a pipe is asked to hold: the most that the kernel
// grants to everybody. With its own 64 KiB, reader and writer wake each other
// up for each of these.
const pipeBytes = 1 << 20

// widenPipe makes a pipe hold more; whatever else it is stays as it is.
func widenPipe(w io.Writer) {
	if f, ok := w.(*os.File); ok {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeBytes)
	}
}
