package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/internal/hint"
	"golang.org/x/sys/unix"
)

const (
	defaultContentTimeout = time.Minute
	defaultPoll           = 500 * time.Millisecond

	// believed is how long the kernel, and this package, believe what the live
	// tree said of a name: others may change it below the mount.
	believed = time.Second

	fsType = "s4" // mountinfo shows fuse.s4

	requestSize   = 1 << 20 // bytes in one read or write, at most
	maxBackground = 64      // reads ahead and the like under way at once
)

// Server is a mounted file system. Its goroutines end when it is unmounted, by
// whomever.
type Server struct {
	mountpoint string
	done       chan struct{}
}

// Mount mounts and returns when the kernel has had its first answer. A missing
// /dev/fuse wraps fs.ErrNotExist; an option that is not known,
// snapshot.ErrUsage.
func Mount(mountpoint string, o Options) (*Server, error) {
	o.setDefaults()
	mountpoint, err := resolveMountpoint(mountpoint)
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	opts, err := o.fuseOptions()
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	if err := checkDevice(); err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	raw, history, err := o.fileSystem()
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	srv, err := attach(raw, mountpoint, opts)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	setReadAhead(mountpoint, o.Logger) // before anything can be opened
	s := &Server{mountpoint: mountpoint, done: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	var news sync.WaitGroup
	if !o.OneArchive {
		news.Go(func() { history.tellNews(ctx, srv, o.Poll, o.Logger) })
	}
	go func() {
		defer close(s.done)
		srv.Serve()
		stop()
		news.Wait()
	}()
	if err := srv.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", mountpoint, err), Unmount(mountpoint, true))
	}
	return s, nil
}

// Wait returns when the file system is unmounted and everything it started
// has ended.
func (s *Server) Wait() { <-s.done }

// Unmount unmounts and waits. While files in it are in use it fails with
// EBUSY. Once unmounted, by whomever, it does nothing.
func (s *Server) Unmount() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := Unmount(s.mountpoint, false); err != nil {
		return err
	}
	s.Wait()
	return nil
}

func (o *Options) setDefaults() {
	if o.ContentTimeout == 0 {
		o.ContentTimeout = defaultContentTimeout
	}
	if o.Poll == 0 {
		o.Poll = defaultPoll
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// fileSystem builds what is mounted.
func (o *Options) fileSystem() (fuse.RawFileSystem, *historyFS, error) {
	ctx, stop := context.WithTimeout(context.Background(), o.ContentTimeout)
	defer stop()
	history, err := newHistoryFS(ctx, o, o.Logger)
	if err != nil || o.Live == nil {
		return history, history, err
	}
	tree, err := newLiveTree(o.Live)
	if err != nil {
		return nil, nil, err
	}
	tree.habits = history.habits
	tree.hasPast = func(ctx context.Context, path string) bool {
		ever, err := o.History.EverAt(ctx, path)
		return err == nil && ever.Dir != 0
	}
	var st unix.Stat_t
	if err := unix.Fstatat(tree.root, dotS4, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, nil, fmt.Errorf("%s in the live tree: %w", dotS4, err)
	}
	keep := believed
	live, err := tree.rawFS(&gofs.Options{
		EntryTimeout: &keep, AttrTimeout: &keep,
		Logger: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	})
	if err != nil {
		return nil, nil, err
	}
	below := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), tree.root)
	return newMux(tree, live, history, below), history, nil
}

// attach mounts directly where this process may, else with fusermount3.
func attach(raw fuse.RawFileSystem, mountpoint string, opts *fuse.MountOptions) (*fuse.Server, error) {
	if os.Geteuid() == 0 {
		direct := *opts
		direct.DirectMountStrict = true
		srv, err := fuse.NewServer(raw, mountpoint, &direct)
		if err == nil || !errors.Is(err, fs.ErrPermission) {
			return srv, err
		}
	}
	return fuse.NewServer(raw, mountpoint, opts)
}

// checkDevice tells early and clearly that there is no FUSE here.
func checkDevice() error {
	_, err := os.Stat("/dev/fuse")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) {
		return hint.With(fmt.Errorf("no FUSE on this system: %w", err),
			"modprobe fuse (in a container: docker run --device /dev/fuse --cap-add SYS_ADMIN)")
	}
	return err
}

// readAheadKB is how far the kernel reads ahead of a sequential reader. Its
// own 128 KiB leave a source that needs a moment for each request idle.
const readAheadKB = "1024"

// setReadAhead raises the mount's read-ahead, which needs root; without, only
// speed is lost.
func setReadAhead(mountpoint string, log *slog.Logger) {
	table, err := os.ReadFile("/proc/self/mountinfo") // stat(2) would ask us, who do not answer yet
	if err == nil {
		device, _ := mountedAt(string(table), mountpoint)
		err = os.WriteFile("/sys/class/bdi/"+device+"/read_ahead_kb", []byte(readAheadKB), 0)
	}
	if err != nil {
		log.Debug("read-ahead stays as it is", "err", err)
	}
}
