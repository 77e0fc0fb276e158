package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// DefaultDir is where the driver keeps volumes unless told otherwise.
const DefaultDir = "/var/lib/s4/docker"

// Config are a driver's settings. The zero value of each is its default.
type Config struct {
	Dir      string        // DefaultDir
	Keep     time.Duration // how long a removed volume stays in the trash: 7 days; less than 0 keeps none
	FillWait time.Duration // how long a mount waits for a fill: 100 s
	Log      *slog.Logger  // discards
	BootID   string        // of the host: the kernel's
}

// Driver has volumes, remembers who uses them, and has the backend do the rest.
type Driver struct {
	dir     string
	keep    time.Duration
	wait    time.Duration
	boot    string
	log     *slog.Logger
	backend Backend
	lock    *os.File

	volumes locks         // one call at a time for each volume
	removed chan struct{} // there is something new in the trash

	mu      sync.Mutex
	records map[string]*record
	fills   map[string]*fill

	ctx    context.Context // of what runs in the background
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// Open takes up the volumes in the directory, and what was going on with them
// when the last driver ended, in the background. A second driver on the same
// directory is refused (snapshot.ErrLocked).
func Open(c Config, b Backend) (*Driver, error) {
	d := &Driver{dir: c.Dir, keep: c.Keep, wait: c.FillWait, boot: c.BootID, log: c.Log, backend: b,
		records: map[string]*record{}, fills: map[string]*fill{}, removed: make(chan struct{}, 1)}
	if d.dir == "" {
		d.dir = DefaultDir
	}
	if d.keep == 0 {
		d.keep = 7 * 24 * time.Hour
	}
	if d.wait == 0 {
		d.wait = 100 * time.Second
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.boot == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, err
		}
		d.boot = strings.TrimSpace(string(id))
	}
	for _, dir := range []string{d.dir, d.volumesDir(), d.trashDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if err := d.load(); err != nil {
		d.Close()
		return nil, err
	}
	d.recover()
	d.background(d.emptyTrash)
	return d, nil
}

func (d *Driver) takeLock() error {
	path := filepath.Join(d.dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w: another volume driver works in %s", snapshot.ErrLocked, d.dir)
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	d.lock = f
	return nil
}

// Close ends what runs in the background and waits for it. Volumes stay
// mounted, since containers go on; the next driver carries on with them.
func (d *Driver) Close() {
	d.cancel()
	d.tasks.Wait()
	d.lock.Close()
}

// background runs a task that ends with the driver.
func (d *Driver) background(task func(context.Context)) {
	d.tasks.Go(func() { task(d.ctx) })
}

// take is a volume that somebody may see, locked until unlock is called. Errors:
// fs.ErrNotExist; the context's.
func (d *Driver) take(ctx context.Context, name string) (r *record, unlock func(), err error) {
	if unlock, err = d.volumes.lock(ctx, name); err != nil {
		return nil, nil, err
	}
	if r, err = d.record(name); err != nil {
		unlock()
		return nil, nil, err
	}
	return r, unlock, nil
}

// Create makes a volume. To make one again with the same options does nothing;
// with other options it is refused (snapshot.ErrRefused). Errors:
// snapshot.ErrUsage, and the backend's.
func (d *Driver) Create(ctx context.Context, name string, given map[string]string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	options, err := ParseOptions(given)
	if err != nil {
		return err
	}
	unlock, err := d.volumes.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	d.mu.Lock()
	r := d.records[name]
	d.mu.Unlock()
	if r == nil && options.Volume != "" {
		if _, err := d.record(options.Volume); err != nil {
			return err
		}
	}
	switch {
	case r == nil:
	case r.State == creating:
		if err := d.undo(ctx, r); err != nil {
			return fmt.Errorf("clear away what an interrupted creation left: %w", err)
		}
	case r.options == options:
		return nil
	default:
		return fmt.Errorf("%w: volume %s exists with other options: %s", snapshot.ErrRefused, name, differing(r.Given, given))
	}
	if err := os.Mkdir(d.dirOf(name), 0o700); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s is in the way, and has no readable %s; see the driver's log", snapshot.ErrRefused, d.dirOf(name), recordName)
	} else if err != nil {
		return err
	}
	r = &record{Name: name, Created: time.Now().UTC(), Given: given, State: creating, options: options}
	fills := false
	if err = d.save(r); err == nil {
		fills, err = d.backend.Create(ctx, d.volume(r))
	}
	if err == nil {
		r = r.in(ready)
		if fills {
			r = r.in(filling)
		}
		err = d.save(r)
	}
	if err != nil {
		if errUndo := d.undo(context.WithoutCancel(ctx), r); errUndo != nil {
			d.log.Error("a volume that could not be created was not cleared away", "volume", name, "err", errUndo)
		}
		return err
	}
	if fills {
		d.startFill(r)
	}
	return nil
}

// undo takes away a volume that nobody has seen. It goes through the trash, so
// that no crash leaves a part of it under its name.
func (d *Driver) undo(ctx context.Context, r *record) error {
	if err := d.backend.Delete(ctx, d.volume(r)); err != nil {
		return err
	}
	if err := d.toTrash(r, time.Time{}); err != nil {
		return err
	}
	d.set(r.Name, nil)
	return nil
}

// Remove moves a volume into the trash. One that is mounted is refused
// (snapshot.ErrRefused). Errors: fs.ErrNotExist, and the backend's.
func (d *Driver) Remove(ctx context.Context, name string) error {
	r, unlock, err := d.take(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if len(r.Mounts) > 0 {
		// The engine does not ask while a container has the volume, but after
		// a crash of it some mounts were never ended.
		user, err := usedElsewhere(r.Mountpoint)
		if err != nil {
			return err
		}
		if user != "" {
			return fmt.Errorf("%w: volume %s is mounted: %s", snapshot.ErrRefused, name, user)
		}
		d.log.Warn("forgetting mounts that the engine never ended", "volume", name, "mounts", r.Mounts)
		r = r.unmounted()
		if err := d.save(r); err != nil {
			return err
		}
	}
	d.stopFill(name)
	if err = d.backend.Unmount(ctx, d.volume(r)); err == nil {
		err = d.toTrash(r, time.Now())
	}
	if err != nil {
		if r.State == filling {
			d.startFill(r)
		}
		return err
	}
	d.set(name, nil)
	return nil
}

// Mount makes the volume usable for the use id and tells where it is. It waits
// for a fill. Errors: fs.ErrNotExist, and the backend's.
func (d *Driver) Mount(ctx context.Context, name, id string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	if id == "" {
		return "", fmt.Errorf("%w: the request has no mount ID", snapshot.ErrUsage)
	}
	for {
		if err := d.waitFilled(ctx, name); err != nil {
			return "", err
		}
		at, again, err := d.mountFilled(ctx, name, id)
		if !again {
			return at, err
		}
	}
}

// mountFilled asks to be called again where the volume is filling.
func (d *Driver) mountFilled(ctx context.Context, name, id string) (at string, again bool, err error) {
	r, unlock, err := d.take(ctx, name)
	if err != nil {
		return "", false, err
	}
	defer unlock()
	if r.State == filling {
		return "", true, nil
	}
	at, err = d.backend.Mount(ctx, d.volume(r))
	if err != nil {
		return "", false, err
	}
	// A mount that nobody waits for any more is one that nobody will end.
	if err = ctx.Err(); err == nil {
		err = d.save(r.with(id, at, d.boot))
	}
	if err != nil {
		if len(r.Mounts) == 0 {
			err = errors.Join(err, d.backend.Unmount(context.WithoutCancel(ctx), d.volume(r)))
		}
		return "", false, err
	}
	return at, false, nil
}

// Unmount ends the use id. With the last one the volume is unmounted. Errors:
// fs.ErrNotExist, and the backend's.
func (d *Driver) Unmount(ctx context.Context, name, id string) error {
	r, unlock, err := d.take(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	r = r.without(id)
	if err := d.save(r); err != nil {
		// A full disk may not keep a container from ending.
		d.log.Error("the end of a mount was not recorded", "volume", name, "err", err)
		d.set(name, r)
	}
	if len(r.Mounts) > 0 || r.State == filling {
		return nil
	}
	return d.backend.Unmount(ctx, d.volume(r))
}

// Info is what the engine may know of a volume.
type Info struct {
	Name       string
	Mountpoint string         // "" when it is not mounted
	CreatedAt  time.Time      // to the second
	Status     map[string]any // nil in a list
}

// statusTime bounds how long the backend may think about a volume's status.
const statusTime = 5 * time.Second

// Get tells about one volume. Errors: fs.ErrNotExist.
func (d *Driver) Get(ctx context.Context, name string) (Info, error) {
	r, err := d.record(name)
	if err != nil {
		return Info{}, err
	}
	info := d.info(r)
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	info.Status, err = d.backend.Status(ctx, d.volume(r))
	if info.Status == nil {
		info.Status = map[string]any{}
	}
	if err != nil {
		info.Status["error"] = oneLine(err)
	}
	info.Status["state"] = d.stateText(r)
	info.Status["mounts"] = len(r.Mounts)
	return info, nil
}

// List tells about all volumes, by name.
func (d *Driver) List() []Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []Info{}
	for _, r := range d.records {
		if r.State != creating {
			list = append(list, d.info(r))
		}
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (d *Driver) info(r *record) Info {
	return Info{Name: r.Name, Mountpoint: r.Mountpoint, CreatedAt: r.Created.Truncate(time.Second)}
}
