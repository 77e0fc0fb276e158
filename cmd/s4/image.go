package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/image"
	"github.com/s4-storage/s4/internal/bytesize"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/systemd"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// ImportCmd is `s4 import`.
type ImportCmd struct{ InitCmd }

// Help is the paragraph under --help.
func (ImportCmd) Help() string {
	return `Makes a volume of a folder or btrfs subvolume with files in it. It is s4 init but that a plain folder is put on btrfs, unless --no-btrfs is said.

Example: s4 import /srv/photos`
}

// Run does it.
func (c *ImportCmd) Run(ctx context.Context, a *app) error {
	c.Btrfs = c.Btrfs || !c.NoBtrfs
	return c.InitCmd.Run(ctx, a)
}

// ResizeCmd is `s4 resize`.
type ResizeCmd struct {
	Size  string `arg:"" optional:"" help:"New size: 20G, +5G, max or min (and -- -5G); auto lets it grow by itself, fixed does not."`
	Limit string `placeholder:"SIZE" help:"With auto: how far."`
	Trim  bool   `help:"Give the space of deleted files back to the host's disk now."`
}

// Help is the paragraph under --help.
func (ResizeCmd) Help() string {
	return `Changes the size of a volume that has an image of its own, while it is in use. A volume grows by itself before it is full, while replicate, sync or a mount of it runs; the host's disk always keeps a reserve. Without a size it tells how full the volume and its host are.

Example: s4 resize +5G`
}

// Run does it.
func (c *ResizeCmd) Run(ctx context.Context, a *app) error {
	return a.withVolume(func(v *volume.Volume) error {
		r, err := image.Of(v.Shown)
		if err != nil {
			return err
		}
		var given int64
		if c.Trim {
			if given, err = loop.Trim(ctx, v.Root); err != nil {
				return err
			}
		}
		switch {
		case c.Limit != "" && c.Size != "auto":
			return usage("--limit goes with auto")
		case c.Size == "auto" || c.Size == "fixed":
			r.Grow, r.Limit = c.Size == "auto", 0
			if c.Limit != "" {
				if r.Limit, err = bytesize.Parse(c.Limit); err != nil {
					return usage("--limit: %w", err)
				}
			}
			if err := r.Save(); err != nil {
				return err
			}
			if _, err := r.KeepRoom(ctx, a.log); err != nil {
				return err
			}
		case c.Size != "":
			to, err := loop.ParseTarget(c.Size)
			if err != nil {
				return usage("%w", err)
			}
			if _, err := loop.Resize(ctx, v.Root, to, loop.ResizeOptions{Log: a.log}); err != nil {
				return sizeError(err)
			}
		}
		u, err := loop.ReadUsage(v.Root)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(spaceOf(r, u))
		}
		if c.Trim {
			a.say("%s given back", size(given))
		}
		grows := "has a fixed size"
		if r.Grow {
			grows = "grows by itself"
			if r.Limit > 0 {
				grows += " up to " + humanize.IBytes(uint64(r.Limit))
			}
		}
		return a.print("%s, %s used, %s free; %s\nimage %s takes %s of a disk with %s free\n", humanize.IBytes(uint64(u.Size)),
			humanize.IBytes(uint64(u.Used)), humanize.IBytes(uint64(u.Free)), grows, shownName(a.stdout, u.Image), humanize.IBytes(uint64(u.Allocated)), humanize.IBytes(uint64(u.HostFree)))
	})
}

// spaceJSON is how full a volume with an image is, in bytes.
type spaceJSON struct {
	Image     string `json:"image"`
	UUID      string `json:"uuid"`
	Size      int64  `json:"size"`
	Used      int64  `json:"used"`
	Free      int64  `json:"free"`
	Allocated int64  `json:"allocated"` // of the host's disk
	HostFree  int64  `json:"host_free"`
	Grow      bool   `json:"grow"`
	Limit     int64  `json:"limit,omitempty"`
}

func spaceOf(r *image.Record, u loop.Usage) spaceJSON {
	return spaceJSON{u.Image, u.UUID, u.Size, u.Used, u.Free, u.Allocated, u.HostFree, r.Grow, r.Limit}
}

// sizeError is a size that cannot be as what it is: refused.
func sizeError(err error) error {
	if small, ok := errors.AsType[*loop.TooSmallError](err); ok {
		return hint.With(fmt.Errorf("%w: %w", snapshot.ErrRefused, small), "the smallest that is safe: s4 resize min")
	}
	if full, ok := errors.AsType[*loop.HostFullError](err); ok {
		return hint.With(fmt.Errorf("%w: %w", snapshot.ErrRefused, full), "the largest there is room for: s4 resize max")
	}
	return err
}

// AttachCmd is `s4 attach`.
type AttachCmd struct {
	Paths []string `arg:"" optional:"" name:"path" help:"A volume's folder, or an image and a folder (default: all there are)."`
	UUID  string   `name:"uuid" placeholder:"UUID" help:"Of the file system that must be on the image."`
}

// Help is the paragraph under --help.
func (AttachCmd) Help() string {
	return `Mounts volumes that have an image of their own where they belong, as is done at boot. The image is known by its path and its file system's UUID, whichever loop device it gets. One that is mounted already stays as it is.

Example: s4 attach`
}

// Run does it.
func (c *AttachCmd) Run(ctx context.Context, a *app) error {
	switch len(c.Paths) {
	case 0:
		all, err := image.Records()
		for _, r := range all {
			if e := r.Attach(ctx, a.log); e != nil {
				err = errors.Join(err, e)
				continue
			}
			a.say("%s is mounted", r.Dir)
		}
		return err
	case 1:
		r, err := image.Of(c.Paths[0])
		if err != nil {
			return err
		}
		return r.Attach(ctx, a.log)
	case 2:
		r := image.Record{Image: c.Paths[0], Dir: c.Paths[1], UUID: c.UUID}
		return r.Attach(ctx, a.log)
	}
	return usage("attach takes a folder, or an image and a folder")
}

// DetachCmd is `s4 detach`.
type DetachCmd struct {
	Folder string `arg:"" name:"dir" help:"The volume's folder."`
}

// Help is the paragraph under --help.
func (DetachCmd) Help() string {
	return `Unmounts a volume that has an image of its own. Its files stay in the image, and come back with s4 attach.

Example: s4 detach /srv/photos`
}

// Run does it.
func (c *DetachCmd) Run(ctx context.Context, _ *app) error {
	err := loop.Unmount(ctx, c.Folder)
	if errors.Is(err, unix.EBUSY) {
		return hint.With(fmt.Errorf("%w: %s is in use", snapshot.ErrLocked, c.Folder), "leave the directory and close its files")
	}
	return err
}

// atBoot sees to it that an image is mounted at boot.
func (a *app) atBoot(ctx context.Context, r *image.Record) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	unit, err := loop.NewUnit(loop.UnitOptions{Image: r.Image, Dir: r.Dir, UUID: r.UUID, Program: self})
	if err != nil {
		return err
	}
	m := systemd.Ours()
	if !m.Running() {
		a.say("There is no systemd here: have s4 attach run at boot")
		return nil
	}
	if err := m.Enable(ctx, unit.Name, unit.Text); err != nil {
		return err
	}
	a.say("%s mounts it at boot", unit.Name)
	return nil
}

// lookForRoom is how often a volume that grows by itself is looked at.
const lookForRoom = 5 * time.Second

// keepingRoom lets a volume with an image grow while a command runs for long,
// until stop is called.
func (a *app) keepingRoom(ctx context.Context, v *volume.Volume) (stop func()) {
	r, err := image.Of(v.Shown)
	if err != nil || !r.Grow {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { a.keepRoom(ctx, r) })
	return func() { cancel(); work.Wait() }
}

func (a *app) keepRoom(ctx context.Context, r *image.Record) {
	said := ""
	for tick := time.NewTicker(lookForRoom); ; {
		g, err := r.KeepRoom(ctx, a.log)
		text := ""
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			text = fmt.Sprintf("the volume cannot grow: %v", err)
		case g.To > g.From:
			a.say("The volume grew from %s to %s", humanize.IBytes(uint64(g.From)), humanize.IBytes(uint64(g.To)))
		}
		if text != said && text != "" {
			a.warn("%s", text)
		}
		said = text
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}
