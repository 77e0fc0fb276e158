package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/volume"
)

// MountCmd is `s4 mount`.
type MountCmd struct {
	What       string   `arg:"" optional:"" name:"url" help:"A repository, with ::ARCHIVE for one archive alone; in a volume, the mountpoint."`
	Mountpoint string   `arg:"" optional:"" help:"Where to mount; in a volume the default is over the volume itself."`
	At         string   `placeholder:"TIME" help:"Snapshot of the repository to show at the root (default: the newest, as it moves on)."`
	Foreground bool     `help:"Stay in the foreground until unmounted."`
	AllowOther bool     `help:"Let other users in, each with their own rights."`
	Option     []string `short:"o" sep:"," placeholder:"OPT" help:"Mount option such as ro, nosuid, noexec, noatime or transform_symlinks."`
}

// Help is the paragraph under --help.
func (MountCmd) Help() string {
	return `In a volume: shows the live files, to read and write, plus .s4/history/ with a directory for every snapshot. With a repository's URL: shows that, read-only. Returns as soon as the mount answers and goes on in the background; end it with s4 umount.

Examples:

  s4 mount
  s4 mount /mnt/photos
  s4 mount nas:/backups/repo /mnt/backup --at yesterday`
}

// Run does it.
func (c *MountCmd) Run(ctx context.Context, a *app) error {
	url, mountpoint := c.What, c.Mountpoint
	if mountpoint == "" && url != "" {
		if looksLikeRepository(url) {
			return hint.With(usage("a repository needs a mountpoint"), "s4 mount "+url+" MOUNTPOINT")
		}
		url, mountpoint = "", url
	}
	if mountpoint != "" {
		if !filepath.IsAbs(mountpoint) {
			mountpoint = filepath.Join(a.here(), mountpoint)
		}
		abs, err := filepath.Abs(mountpoint)
		if err != nil {
			return err
		}
		mountpoint = abs
	}
	if !c.Foreground && os.Getenv(readyFD) == "" {
		err := a.startDaemon(ctx)
		if at, errHere := os.Getwd(); err == nil && errHere == nil && mountpoint == "" {
			if root, errFind := volume.Find(at); errFind == nil {
				a.say("Mounted over %s", root)
				a.say("hint: this shell still stands below the mount; enter it anew with: cd .")
			}
		}
		return err
	}
	report, done := a.reporter()
	defer done()
	o := volume.MountOptions{
		Mountpoint: mountpoint, At: c.At, AllowOther: c.AllowOther, Options: c.Option, Report: report,
		Ready: func() error { done(); roomForReaders(); return nil },
	}
	if url != "" {
		if err := a.daemonize(&o, volume.LogFile(nil, mountpoint)); err != nil {
			return err
		}
		return volume.MountRepository(ctx, url, o, a.access)
	}
	err := a.mountVolume(ctx, o, mountpoint)
	if !volume.LostMount(err) {
		return err
	}
	// What is mounted here has lost its process, perhaps only a moment ago.
	root, _ := volume.Find(a.here())
	if root == "" {
		return err
	}
	if err := volume.ClearStale(root, report); err != nil {
		return err
	}
	return a.mountVolume(ctx, o, mountpoint)
}

func (a *app) mountVolume(ctx context.Context, o volume.MountOptions, mountpoint string) error {
	return a.withVolume(func(v *volume.Volume) error {
		if err := a.daemonize(&o, volume.LogFile(v, mountpoint)); err != nil {
			return err
		}
		defer a.keepingRoom(ctx, v)()
		return v.Mount(ctx, o)
	})
}

// daemonize makes a process that was started to become a daemon do so once
// the mount answers. The log is opened now, as a mount may cover it.
func (a *app) daemonize(o *volume.MountOptions, logFile string) error {
	if os.Getenv(readyFD) == "" {
		return nil
	}
	log, err := openLog(logFile)
	if err != nil {
		return err
	}
	o.Ready = func() error {
		defer log.Close()
		roomForReaders()
		return becomeDaemon(log)
	}
	return nil
}

// roomForReaders lets Go run more at once than there are processors. As many
// threads and one more wait for the kernel's requests, and Go takes each of them
// for a running one for up to 10 ms: when the first has a request, it finds no
// room to go on in, and waits until Go looks after the others.
func roomForReaders() { runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 2) + 2) }

// looksLikeRepository tells a URL from a mountpoint.
func looksLikeRepository(arg string) bool {
	if loc, err := reach.ParseLocation(arg); err == nil && (loc.IsRemote() || loc.Archive != "") {
		return true
	}
	if strings.HasPrefix(arg, "file://") {
		return true
	}
	// Every borg repository has these.
	for _, name := range []string{"config", "data"} {
		if _, err := os.Stat(filepath.Join(arg, name)); err != nil {
			return false
		}
	}
	return true
}

// UmountCmd is `s4 umount`.
type UmountCmd struct {
	Mountpoint string `arg:"" optional:"" help:"Mount to end (default: the volume here)."`
	Lazy       bool   `short:"l" help:"Take it away now, also while something uses it."`
}

// Help is the paragraph under --help.
func (UmountCmd) Help() string {
	return `Ends a mount, also one that has lost its process ("Transport endpoint is not connected"). Files are never lost by it.

Example: s4 umount /mnt/photos`
}

// Run does it.
func (c *UmountCmd) Run(a *app) error {
	mountpoint := c.Mountpoint
	switch {
	case mountpoint == "":
		root, err := volume.Find(a.here())
		if err != nil && !volume.LostMount(err) {
			return err
		}
		mountpoint = root
	case !filepath.IsAbs(mountpoint):
		mountpoint = filepath.Join(a.here(), mountpoint)
	}
	abs, err := filepath.Abs(mountpoint)
	if err != nil {
		return err
	}
	state, err := fusefs.State(abs)
	if err != nil {
		return err
	}
	if err := volume.Umount(abs, c.Lazy); err != nil {
		return err
	}
	if state == fusefs.MountedStale {
		a.say("Cleared away a mount at %s that had lost its process", abs)
	}
	return nil
}
