package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/xdg"
	"github.com/s4-storage/s4/snapshot"
)

// checkMountpoint refuses what would dead-lock or swallow the volume.
func (v *Volume) checkMountpoint(mountpoint string, report Reporter) error {
	inPlace := sameFile(mountpoint, v.Root) || mountpoint == v.Shown
	if v.Root != v.Shown && inPlace {
		return hint.With(fmt.Errorf("%w: %s is mounted already", snapshot.ErrRefused, v.Shown), "end it with: s4 umount "+v.Shown)
	}
	if inPlace {
		if err := v.mayCover(); err != nil {
			return err
		}
	} else {
		if err := checkMountpoint(mountpoint, report); err != nil {
			return err
		}
		if contains(v.Shown, mountpoint) {
			return hint.With(fmt.Errorf("%w: mountpoint %s is inside the volume", snapshot.ErrRefused, mountpoint),
				"mount over the volume itself with: s4 mount, or choose a place outside")
		}
		if contains(mountpoint, v.Shown) {
			return fmt.Errorf("%w: mountpoint %s would cover the volume", snapshot.ErrRefused, mountpoint)
		}
	}
	for _, r := range v.state.Repositories {
		loc, err := reach.ParseLocation(r.URL)
		if err != nil {
			return err
		}
		if err := apart(mountpoint, loc, ""); err != nil {
			return err
		}
	}
	return nil
}

// checkMountpoint wants an empty directory with nothing mounted on it; a
// mount that lost its process is cleared away first.
func checkMountpoint(mountpoint string, report Reporter) error {
	if err := ClearStale(mountpoint, report); err != nil {
		return err
	}
	state, err := fusefs.State(mountpoint)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch state {
	case fusefs.MountedAlive, fusefs.MountedOther:
		return hint.With(fmt.Errorf("%w: something is mounted at %s already", snapshot.ErrRefused, mountpoint),
			"end it with: s4 umount "+mountpoint)
	}
	names, err := os.ReadDir(mountpoint)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hint.With(fmt.Errorf("mountpoint %s is missing: %w", mountpoint, fs.ErrNotExist), "make it with: mkdir "+mountpoint)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: mountpoint %s is not a directory", snapshot.ErrUsage, mountpoint)
	case err != nil:
		return fmt.Errorf("mountpoint: %w", err)
	case len(names) > 0:
		return hint.With(fmt.Errorf("%w: mountpoint %s is not empty", snapshot.ErrRefused, mountpoint), "choose an empty directory")
	}
	return nil
}

// ClearStale takes away a mount of ours that has lost its process, and says so.
func ClearStale(mountpoint string, report Reporter) error {
	// Whatever else is there, others look at.
	if state, _ := fusefs.State(mountpoint); state != fusefs.MountedStale {
		return nil
	}
	if err := fusefs.Unmount(mountpoint, true); err != nil {
		return fmt.Errorf("clear the dead mount at %s away: %w", mountpoint, err)
	}
	report.note("Cleared away a mount at %s that had lost its process", mountpoint)
	return nil
}

// apart refuses a mountpoint that a local repository or cache lies below, and
// one inside a repository: reading would wait for itself.
func apart(mountpoint string, loc borgio.Location, cache string) error {
	if cache != "" && contains(mountpoint, cache) {
		return fmt.Errorf("%w: s4's cache %s is below the mountpoint %s", snapshot.ErrRefused, cache, mountpoint)
	}
	if loc.IsRemote() {
		return nil
	}
	if contains(loc.Path, mountpoint) {
		return fmt.Errorf("%w: mountpoint %s is inside the repository %s", snapshot.ErrRefused, mountpoint, loc.Path)
	}
	if contains(mountpoint, loc.Path) {
		return fmt.Errorf("%w: the repository %s is below the mountpoint %s", snapshot.ErrRefused, loc.Path, mountpoint)
	}
	return nil
}

// contains tells whether path is dir or below it, links resolved.
func contains(dir, path string) bool {
	rel, err := filepath.Rel(Resolved(dir), Resolved(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// Resolved is path absolute and without links as far as it exists.
func Resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if dir := filepath.Dir(abs); dir != abs {
		return filepath.Join(Resolved(dir), filepath.Base(abs))
	}
	return abs
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// LogFile is where a mount in the background logs: in its volume, or for a
// repository (v is nil) under the user's state directory by mountpoint.
func LogFile(v *Volume, mountpoint string) string {
	if v != nil {
		return v.path(LocalDir, "mount.log")
	}
	name := strings.ReplaceAll(strings.Trim(mountpoint, "/"), "/", "-")
	return filepath.Join(xdg.State(), "mount-"+name+".log")
}

// Umount ends the mount at mountpoint, also one that has lost its process.
// Errors: fs.ErrNotExist when nothing of ours is mounted there;
// snapshot.ErrLocked while it is in use.
func Umount(mountpoint string, lazy bool) error {
	state, err := fusefs.State(mountpoint)
	if err != nil {
		return err
	}
	switch state {
	case fusefs.NotMounted, fusefs.MountedOther:
		return hint.With(fmt.Errorf("no s4 mount is at %s: %w", mountpoint, fs.ErrNotExist), "see: findmnt -t fuse.s4")
	case fusefs.MountedStale:
		lazy = true
	}
	err = fusefs.Unmount(mountpoint, lazy)
	if errors.Is(err, syscall.EBUSY) {
		return hint.With(fmt.Errorf("%w: %s is in use", snapshot.ErrLocked, mountpoint),
			"leave the directory and close its files, or use: s4 umount --lazy "+mountpoint)
	}
	return err
}
