package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/xdg"
	"github.com/s4-storage/s4/snapshot"
)

// How often a mount looks for snapshots made elsewhere.
const (
	pollLocal  = 2 * time.Second
	pollRemote = time.Minute
	pollState  = 500 * time.Millisecond // for a repository that was not met before
)

// MountOptions choose how to mount.
type MountOptions struct {
	Mountpoint string // for a volume, "" mounts over the volume itself
	At         string // TIME; a repository's root shows that snapshot and stays there
	AllowOther bool
	Options    []string // as after mount -o
	// Ready is called once the mount answers; an error ends it again.
	Ready  func() error
	Report Reporter
}

// Mount shows the live tree and the history at the mountpoint until it is
// unmounted or ctx ends.
//
// Errors: fs.ErrNotExist without a mountpoint or FUSE; snapshot.ErrRefused
// when something is in the way.
func (v *Volume) Mount(ctx context.Context, o MountOptions) error {
	mountpoint := o.Mountpoint
	if mountpoint == "" {
		mountpoint = v.Shown
	}
	if o.At != "" {
		return fmt.Errorf("%w: --at goes with a repository; a volume has all moments in %s/history", snapshot.ErrUsage, Dir)
	}
	if err := v.checkMountpoint(mountpoint, o.Report); err != nil {
		return err
	}
	live, err := os.Open(v.Root)
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	defer live.Close()
	// Where even that cannot be noted, nothing can be put in the root's place.
	if done, err := v.mounted(); err == nil {
		defer done()
	} else if errors.Is(err, snapshot.ErrLocked) {
		return err
	}
	past, err := v.Past(ctx)
	if err != nil {
		return err
	}
	v.unlockKeys(ctx, past, o.Report)
	// Its own name may lead to the mount soon.
	state := &stateFile{root: fmt.Sprintf("/proc/self/fd/%d", live.Fd())}
	return past.serve(ctx, mountpoint, o, fusefs.Options{Live: live, FSName: "s4:" + v.Name()}, state)
}

// unlockKeys opens the repositories whose passphrase has to be asked for,
// while there still is a terminal to ask on.
func (v *Volume) unlockKeys(ctx context.Context, past *Past, report Reporter) {
	if v.access.HasPassphrase() {
		return
	}
	for _, source := range past.sources {
		for id, r := range v.state.Repositories {
			if source.ID() != history.BorgSourceID(id) || r.Encryption == "none" {
				continue
			}
			if _, err := source.Repository(ctx); err != nil {
				report.warn("names will show, but not content from %s: %v", r.URL, err)
			}
		}
	}
}

// MountRepository shows a repository at the mountpoint, read-only: the newest
// or given snapshot at the root and all of them in .s4/history; with
// url::ARCHIVE that archive alone.
func MountRepository(ctx context.Context, url string, o MountOptions, a *reach.Access) error {
	past, loc, err := RepositoryPast(ctx, url, a)
	if err != nil {
		return err
	}
	defer past.Close()
	if err := apart(o.Mountpoint, loc, xdg.Cache()); err != nil {
		return err
	}
	if err := checkMountpoint(o.Mountpoint, o.Report); err != nil {
		return err
	}
	if err := past.Refresh(ctx); err != nil {
		return reach.Explain(err, loc)
	}
	fo := fusefs.Options{FSName: "s4:" + loc.String()}
	if o.At == "" && loc.Archive == "" {
		fo.Follow = true
	} else if fo.Snapshot, err = chosen(ctx, past, loc, o.At); err != nil {
		return err
	}
	fo.OneArchive = loc.Archive != ""
	if err := past.ensureRoot(ctx, fo.Snapshot, o.Report); err != nil {
		return err
	}
	return past.serve(ctx, o.Mountpoint, o, fo, nil)
}

// chosen is the snapshot that ::ARCHIVE or --at names.
func chosen(ctx context.Context, past *Past, loc borgio.Location, at string) (*snapshot.Info, error) {
	if loc.Archive == "" {
		s, err := past.Resolve(ctx, at)
		return &s, err
	}
	if at != "" {
		return nil, fmt.Errorf("%w: --at and ::ARCHIVE exclude each other", snapshot.ErrUsage)
	}
	line, err := past.Timeline(ctx)
	if err != nil {
		return nil, err
	}
	s, ok := newest(line, func(s snapshot.Info) bool { return s.Name == loc.Archive })
	if !ok {
		return nil, fmt.Errorf("no archive is named %q in %s: %w", loc.Archive, loc, fs.ErrNotExist)
	}
	return &s, nil
}

// ensureRoot indexes what the root is going to show, nil being the newest.
func (p *Past) ensureRoot(ctx context.Context, s *snapshot.Info, report Reporter) error {
	if s == nil {
		line, err := p.Timeline(ctx)
		if err != nil || len(line) == 0 {
			return err
		}
		last := line[len(line)-1]
		s = &last
	}
	return p.ensure(ctx, s, report)
}

// ensure indexes one snapshot before all others.
func (p *Past) ensure(ctx context.Context, s *snapshot.Info, report Reporter) error {
	if s.Indexed {
		return nil
	}
	report.note("Reading the names of %s", s.Name)
	err := p.Ensure(ctx, s.Num)
	s.Indexed = err == nil
	return err
}

// serve mounts and stays until the end, looking for news meanwhile.
func (p *Past) serve(ctx context.Context, mountpoint string, o MountOptions, fo fusefs.Options, known *stateFile) error {
	fo.History = p
	fo.AllowOther, fo.MountOptions, fo.Logger = o.AllowOther, o.Options, p.log
	server, err := fusefs.Mount(mountpoint, fo)
	if err != nil {
		return fmt.Errorf("mount at %s: %w", mountpoint, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	workers.Go(func() { p.follow(ctx, known) })
	workers.Go(func() {
		<-ctx.Done()
		err := server.Unmount()
		if errors.Is(err, syscall.EBUSY) {
			// Told to end, we leave the directory now; who has files open
			// in it is served until they are closed.
			err = fusefs.Unmount(mountpoint, true)
		}
		if err != nil {
			p.log.Warn("unmount", "mountpoint", mountpoint, "error", err)
		}
	})
	if o.Ready != nil {
		if err = o.Ready(); err != nil {
			cancel()
		}
	}
	server.Wait()
	cancel()
	workers.Wait()
	return err
}

// follow keeps the time line up to date while a mount lives.
func (p *Past) follow(ctx context.Context, known *stateFile) {
	tick := time.NewTicker(pollState)
	defer tick.Stop()
	trouble := ""
	var looked time.Time
	for {
		met, err := p.meetNew(known)
		if met || time.Since(looked) >= p.poll() {
			looked = time.Now()
			err = errors.Join(err, p.Refresh(ctx), p.fill(ctx, Reporter{}))
			if ctx.Err() != nil {
				return
			}
			// The same trouble every minute is said once.
			if now := fmt.Sprint(err); now != trouble {
				trouble = now
				if err != nil {
					p.log.Warn("look for news", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Past) poll() time.Duration {
	if p.Remote {
		return pollRemote
	}
	return pollLocal
}

// stateFile is a volume's state as another process may write it meanwhile.
type stateFile struct {
	root string      // the volume's
	seen os.FileInfo // when it was last read; nil before
}

// meetNew joins repositories that the volume has met since the mount began, and
// tells whether there are any.
func (p *Past) meetNew(known *stateFile) (bool, error) {
	if known == nil {
		return false, nil
	}
	local, err := p.meetLocal(known.root)
	if err != nil {
		return local, err
	}
	path := filepath.Join(known.root, LocalDir, "state.json")
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && known.seen != nil && os.SameFile(now, known.seen) && now.ModTime().Equal(known.seen.ModTime()) {
		return local, nil
	}
	if err != nil {
		return local, err
	}
	s, err := loadState(path)
	if err != nil {
		return local, err
	}
	known.seen = now
	met, err := p.meet(s, nil)
	return local || met, err
}

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
