package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/history"
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
	return p.Prepare(ctx, s, report.Note)
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
