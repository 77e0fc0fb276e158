package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// The copy that was compared with the original stays as it was in a snapshot. With
// that the original is compared once more when the two have changed places: what is
// written to the volume from then on is no reason to go back, and where the original
// was changed at the last moment, it tells what there is in the copy that is nowhere
// else.

// inPlace makes a subvolume beside the folder that shares its data, and lets
// the two change places, which is one step.
func (c *Converted) inPlace(ctx context.Context, o Options) error {
	verified := c.dir + ".s4-verified"
	if left, err := btrfsvol.Info(verified); err == nil && left.ReadOnly { // by a killed process
		if err := btrfsvol.Delete(verified); err != nil {
			return err
		}
	}
	if err := btrfsvol.Create(c.Original); err != nil {
		return err
	}
	err := c.fill(ctx, c.Original, "--reflink=always", o)
	if err == nil {
		err = btrfsvol.Snapshot(c.Original, verified, true)
	}
	if err != nil {
		return errors.Join(err, btrfsvol.Delete(c.Original))
	}
	exchange := func() error {
		return unix.Renameat2(unix.AT_FDCWD, c.Original, unix.AT_FDCWD, c.dir, unix.RENAME_EXCHANGE)
	}
	o.pass("compared")
	if err := exchange(); err != nil {
		return errors.Join(err, btrfsvol.Delete(c.Original), btrfsvol.Delete(verified))
	}
	o.pass("swapped")
	err = c.still(ctx, verified)
	if err != nil {
		if back := exchange(); back != nil {
			return errors.Join(err, fmt.Errorf("the folder stays at %s: %w", c.Original, back), btrfsvol.Delete(verified))
		}
		err = c.giveUp(context.WithoutCancel(ctx), err, verified)
	}
	dropVerified(verified, o)
	return err
}

// dropVerified deletes the snapshot, without which all is well, too.
func dropVerified(verified string, o Options) {
	if err := btrfsvol.Delete(verified); err != nil {
		o.Log.Warn("delete the snapshot that was compared with", "error", err)
	}
}

// giveUp deletes the copy that lies beside the folder, for the reason of err, but
// keeps it where something was or can be written to it.
func (c *Converted) giveUp(ctx context.Context, err error, verified string) error {
	used, errUse := inUse(c.Original)
	if errUse == nil && !used {
		used, errUse = written(ctx, verified, c.Original)
	}
	if errUse == nil && !used {
		return errors.Join(err, btrfsvol.Delete(c.Original))
	}
	aside, errAside := free(c.dir)
	if errAside == nil {
		errAside = os.Rename(c.Original, aside)
	}
	if errAside != nil {
		return errors.Join(err, errUse, fmt.Errorf("what was written meanwhile is in %s: %w", c.Original, errAside))
	}
	return keptAt(errors.Join(err, errUse), aside, "delete it")
}

// onImage copies the folder onto an image and mounts that in its place.
func (c *Converted) onImage(ctx context.Context, o Options) error {
	if o.Size == 0 {
		size, err := Fit(ctx, c.dir)
		if err != nil {
			return err
		}
		o.Size = size
	}
	r, err := create(ctx, c.dir, o)
	if err != nil {
		return err
	}
	top, done, err := r.mountTop(ctx, o.Log)
	if err != nil {
		return errors.Join(err, r.remove())
	}
	copied, verified := filepath.Join(top, Subvolume), filepath.Join(top, "verified")
	keep := false
	err = c.fill(ctx, copied, "--reflink=never", o)
	if err == nil {
		err = btrfsvol.Snapshot(copied, verified, true)
	}
	if err == nil {
		o.pass("compared")
		if err = os.Rename(c.dir, c.Original); err != nil {
			err = fmt.Errorf("put the volume in the folder's place: %w", err)
		} else if err = c.mountInPlace(ctx, r, verified, o); err != nil {
			keep, err = c.undo(ctx, err, r, copied, verified)
		}
		dropVerified(verified, o)
	}
	switch errDone := done(); {
	case err == nil:
		c.Record = r
		if errDone != nil { // the volume is in its place all the same
			o.Log.Warn("unmount the image's second mount", "error", errDone)
		}
		return nil
	case keep:
		return c.showAside(ctx, errors.Join(err, errDone), r, o)
	case errDone != nil:
		return errors.Join(err, errDone)
	}
	return errors.Join(err, r.remove())
}

func (c *Converted) mountInPlace(ctx context.Context, r *Record, verified string, o Options) error {
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return err
	}
	below, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer below.Close()
	o.pass("mounting")
	if err := r.Attach(ctx, o.Log); err != nil {
		return err
	}
	o.pass("swapped")
	if names, err := below.Readdirnames(1); len(names) > 0 {
		return hint.With(fmt.Errorf("%w: %s was made in %s while that changed places", snapshot.ErrRefused, names[0], c.dir),
			"stop what writes there, and try again")
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := c.still(ctx, verified); err != nil {
		return err
	}
	return r.Save()
}

// undo puts the folder back where it was, for the reason of err, and tells whether
// the image may have what is nowhere else.
func (c *Converted) undo(ctx context.Context, err error, r *Record, copied, verified string) (keep bool, _ error) {
	ctx = context.WithoutCancel(ctx)
	e := loop.Unmount(ctx, r.Dir)
	if errors.Is(e, unix.EBUSY) { // who has files open there may go on
		keep = true
		e = unix.Unmount(r.Dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if e != nil && !errors.Is(e, loop.ErrNotMounted) && !errors.Is(e, fs.ErrNotExist) { // else not got that far
		return true, errors.Join(err, e, fmt.Errorf("the folder stays at %s", c.Original))
	}
	if e := os.Remove(c.dir); e != nil && !errors.Is(e, fs.ErrNotExist) { // not empty
		aside, e := free(c.dir)
		if e == nil {
			e = os.Rename(c.dir, aside)
		}
		if e != nil {
			return true, errors.Join(err, fmt.Errorf("the folder stays at %s: %w", c.Original, e))
		}
		err = keptAt(err, aside, "delete it")
	}
	if e := os.Rename(c.Original, c.dir); e != nil {
		err = errors.Join(err, fmt.Errorf("the folder stays at %s: %w", c.Original, e))
	}
	if !keep {
		var e error
		if keep, e = written(ctx, verified, copied); e != nil {
			keep, err = true, errors.Join(err, e)
		}
	}
	return keep, err
}

// showAside mounts an image that is given up, for the reason of err, beside the
// folder, for what was written to it.
func (c *Converted) showAside(ctx context.Context, err error, r *Record, o Options) error {
	aside, e := free(c.dir)
	if e == nil {
		e = os.Mkdir(aside, 0o700)
	}
	if e == nil {
		r.Dir = aside
		e = r.Attach(context.WithoutCancel(ctx), o.Log)
	}
	if e == nil {
		e = r.Save()
	}
	if e != nil {
		r.end()
		return errors.Join(err, fmt.Errorf("what was written meanwhile is in the image %s: %w", r.Image, e))
	}
	return keptAt(err, aside, fmt.Sprintf("unmount it and delete %s and %s", r.Image, recordPath(r.Image)))
}

// keptAt adds to an error where the copy is.
func keptAt(err error, aside, remove string) error {
	return hint.With(fmt.Errorf("%w; what was written there meanwhile is in %s", err, aside),
		"stop what writes there, bring over what you need of it, "+remove+", and try again")
}

// free is a name beside the folder for what is kept of a copy.
func free(dir string) (string, error) {
	name := dir + ".s4-copy"
	for n := 2; ; n++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", err
		}
		name = fmt.Sprintf("%s.s4-copy-%d", dir, n)
	}
}

// still makes sure that nobody wrote to the original until it was replaced.
func (c *Converted) still(ctx context.Context, verified string) error {
	return compare(ctx, c.Original, verified, c.dir, worktree.Options{}, false)
}

// written tells whether a copy is not what it was when it was verified.
func written(ctx context.Context, verified, copied string) (bool, error) {
	if err := btrfsvol.Sync(copied); err != nil {
		return false, err
	}
	if same, err := btrfsvol.Untouched(copied, verified); err != nil || same {
		return false, err
	}
	// Perhaps it was only read.
	err := compare(ctx, verified, copied, copied, worktree.Options{}, true)
	if errors.Is(err, snapshot.ErrRefused) {
		return true, nil
	}
	return false, err
}

// inUse tells whether a process has something of the subvolume at dir open, or works
// in it. A subvolume has a device number of its own.
func inUse(dir string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return false, err
	}
	for _, what := range []string{"fd/*", "map_files/*", "cwd", "root"} {
		all, err := filepath.Glob("/proc/[0-9]*/" + what)
		if err != nil {
			return false, err
		}
		for _, link := range all {
			var at unix.Stat_t
			if err := unix.Stat(link, &at); err == nil && at.Dev == st.Dev { // who has ended has nothing open
				return true, nil
			}
		}
	}
	return false, nil
}
