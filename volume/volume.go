// Package volume is what a person does with s4: one file a verb.
//
// A volume is a directory tree that s4 looks after. At its root lies `.s4/`:
//
//	.s4/config          name, id and remotes; part of every archive, so without secrets
//	.s4/local/          this host's own; never part of an archive:
//	    config          what is different here (a remote's URL after a clone)
//	    state.json      what was last pushed or pulled, what was seen at each repository
//	    lock            held by the process that changes the volume
//	    replaced/       what restore --keep moved aside, by time
//	    mount.log       what a mount in the background had to say
//	.s4/snapshots/      btrfs snapshots, where the volume is a subvolume
//
// On btrfs the last two are subvolumes of their own: no snapshot contains them,
// and writing to them changes nothing in the volume.
//
// The index and the stamps lie outside the volume; see places.go for why.
//
// Invariants: the base snapshot in state.json is the one the live tree equals
// but for unpushed changes; it moves only after the remote has committed a
// push, or after a pull has brought every path. A repository's "seen" set
// holds every snapshot that the base was made in knowledge of; pushing onto
// others would fork the history and is refused.
package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/config"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// Names inside a volume.
const (
	Dir          = ".s4"
	LocalDir     = ".s4/local"
	SnapshotsDir = ".s4/snapshots"
	configKey    = ".s4/config"
)

// Configuration keys.
const (
	keyName          = "volume.name"
	keyID            = "volume.id"
	keyDefaultRemote = "volume.defaultremote"
)

// mountRootXattr is answered by a mounted volume's root with the path of the
// directory below the mount; package fusefs documents it.
const mountRootXattr = "user.s4.root"

// Volume is an open volume. It is not safe for concurrent use.
type Volume struct {
	Root    string // the real tree, also where a mount covers it
	Shown   string // its root as the person knows it
	Config  *config.File
	local   *config.File
	state   *state
	lock    *os.File
	access  *reach.Access
	reached map[string]*borgio.Repository // open, by id, until the time line takes them
	past    *Past
	log     *slog.Logger

	subvolume bool     // of btrfs, so that it can have snapshots
	pinned    *os.File // see Pin; may be nil
}

// Find returns the root of the volume that dir is in: dir or the nearest
// parent that has `.s4/config` or `.s4/local`. Errors: fs.ErrNotExist;
// one that [LostMount] tells of, with the mountpoint as root.
func Find(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(abs); err != nil {
		return abs, staleHint(abs, err)
	}
	// What is seen in .s4/history is the past of the volume around it.
	if live, _, found := strings.Cut(abs+"/", "/"+Dir+"/"); found && live != "" {
		abs = live
	}
	for at := abs; ; at = filepath.Dir(at) {
		is, err := isVolume(at)
		if is && errors.Is(unix.Access(at, unix.W_OK), unix.EROFS) {
			continue // the root of a repository's mount
		}
		if is || err != nil {
			return at, staleHint(at, err)
		}
		if at == "/" {
			return "", hint.With(fmt.Errorf("not a volume (nor any of the parent directories): %s: %w", abs, fs.ErrNotExist),
				"make it one with: s4 init")
		}
	}
}

func staleHint(path string, err error) error {
	if LostMount(err) {
		return hint.With(fmt.Errorf("the mount at %s has lost its process: %w", path, err), "repair it with: s4 umount "+path)
	}
	return err
}

// LostMount tells whether err comes from a mount that has lost its process.
func LostMount(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// isVolume gives an error only where a mount has lost its process.
func isVolume(dir string) (bool, error) {
	for _, name := range []string{configKey, LocalDir} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if err == nil {
			return true, nil
		}
		if LostMount(err) {
			return false, err
		}
	}
	return false, nil
}

// Open opens the volume whose root is root. Close it after use.
func Open(root string, access *reach.Access) (*Volume, error) {
	if real, ok := belowMount(root); ok {
		return openAt(real, root, access)
	}
	return openAt(root, root, access)
}

func openAt(root, shown string, access *reach.Access) (*Volume, error) {
	v := &Volume{Shown: shown, access: access, log: access.Log(), reached: map[string]*borgio.Repository{}}
	if err := v.moveTo(root); err != nil {
		return nil, err
	}
	return v, nil
}

// moveTo makes root the volume's root and reads what lies there.
func (v *Volume) moveTo(root string) (err error) {
	v.Root = root
	_, errInfo := btrfsvol.Info(root)
	if v.subvolume = errInfo == nil; v.subvolume {
		if err := rescue(root); err != nil {
			return err
		}
	}
	if v.Config, err = config.Load(v.path(configKey)); err != nil {
		return err
	}
	if v.local, err = config.Load(v.path(LocalDir, "config")); err != nil {
		return err
	}
	v.state, err = loadState(v.path(LocalDir, "state.json"))
	return err
}

// IsBtrfs tells whether dir is a btrfs subvolume, which a volume can have
// snapshots of. A directory that is not there is none.
func IsBtrfs(dir string) (bool, error) {
	_, err := btrfsvol.Info(dir)
	if errors.Is(err, btrfsvol.ErrNotBtrfs) || errors.Is(err, btrfsvol.ErrNotSubvolume) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, staleHint(dir, err)
}

// Pin keeps hold of the volume's real root as it is now, so that a mount which
// comes over it or ends meanwhile makes no difference. It holds until Close or
// the next Pin.
func (v *Volume) Pin() error {
	at := v.Shown
	if real, ok := belowMount(at); ok {
		at = real
	}
	root, err := os.Open(at)
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	if v.pinned != nil {
		v.pinned.Close()
	}
	v.pinned = root
	return v.moveTo(fmt.Sprintf("/proc/%d/fd/%d/.", os.Getpid(), root.Fd()))
}

// KeepConnections has all repositories that this process opens from now on share
// ssh connections; for one that reaches them again and again.
func (v *Volume) KeepConnections() { v.access.Keep() }

// Again opens the volume anew, with whatever others have changed since. It must
// be closed before v is.
func (v *Volume) Again() (*Volume, error) { return openAt(v.Root, v.Shown, v.access) }

// belowMount asks a mounted volume for the directory below it.
func belowMount(root string) (string, bool) {
	buf := make([]byte, 256)
	n, err := unix.Getxattr(root, mountRootXattr, buf)
	if err != nil || n == 0 {
		return "", false
	}
	// A trailing "/." opens the directory the link leads to.
	below := string(buf[:n]) + "/."
	if _, err := os.Stat(below); err != nil {
		return "", false
	}
	return below, true
}

// Close lets go of the volume's lock, index and connections.
func (v *Volume) Close() error {
	var err error
	if v.past != nil {
		err = v.past.Close()
		v.past = nil
	}
	for id, r := range v.reached {
		err = errors.Join(err, r.Close())
		delete(v.reached, id)
	}
	v.unlock()
	if v.pinned != nil {
		v.pinned.Close()
	}
	return err
}

// Name is the volume's name.
func (v *Volume) Name() string {
	name, _ := v.Config.Get(keyName)
	return name
}

// ID is the volume's id, a UUID.
func (v *Volume) ID() string {
	id, _ := v.Config.Get(keyID)
	return id
}

// Arrived tells whether all of some snapshot has been here: one was pushed, or
// a clone has ended.
func (v *Volume) Arrived() bool { return v.state.Base != nil && v.state.Arriving == nil }

func (v *Volume) path(elem ...string) string {
	return filepath.Join(append([]string{v.Root}, elem...)...)
}

// InitOptions choose what Init makes.
type InitOptions struct {
	Name   string            // default: the directory's name
	Labels map[string]string // kept in the configuration as label.KEY
}

// Init makes dir a volume and leaves its files alone. On a volume it only
// completes what is missing and reports so.
// Errors: fs.ErrNotExist; snapshot.ErrUsage for a name; snapshot.ErrRefused
// inside another volume.
func Init(dir string, o InitOptions, access *reach.Access) (v *Volume, existed bool, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, false, err
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Mkdir(abs, 0o755); err != nil {
			return nil, false, fmt.Errorf("make the volume's directory: %w", err)
		}
	case err != nil:
		return nil, false, staleHint(abs, err)
	case !info.IsDir():
		return nil, false, fmt.Errorf("%w: %s is not a directory", snapshot.ErrUsage, abs)
	}
	if existed, err = isVolume(abs); err != nil {
		return nil, false, staleHint(abs, err)
	}
	if !existed {
		if outer, err := Find(filepath.Dir(abs)); err == nil {
			return nil, false, hint.With(fmt.Errorf("%w: %s is inside the volume %s", snapshot.ErrRefused, abs, outer),
				"a volume inside a volume would be stored twice; choose another place")
		}
	}
	name := o.Name
	if name == "" {
		name = filepath.Base(abs)
	}
	if err := CheckName(name); err != nil {
		return nil, false, err
	}
	v, err = create(abs, name, uuid.NewString(), o.Labels, access)
	return v, existed, err
}

// layOut makes `.s4/` in root, keeping what is there, and opens the volume.
func layOut(root string, access *reach.Access) (*Volume, error) {
	err := makeLocal(root)
	if err == nil {
		err = openToAll(filepath.Join(root, Dir))
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", Dir, err)
	}
	return Open(root, access)
}

// openToAll gives .s4 its mode, where it has another: to set it is a change.
// Snapshots show .s4 to whoever may see the volume; only local is private.
func openToAll(dir string) error {
	const mode = 0o755
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() == mode {
		return err
	}
	return os.Chmod(dir, mode)
}

// create makes root a volume, keeping what is there.
func create(root, name, id string, labels map[string]string, access *reach.Access) (*Volume, error) {
	v, err := layOut(root, access)
	if err != nil {
		return nil, err
	}
	changed := false
	set := func(key, value string) {
		if old, ok := v.Config.Get(key); ok && old != "" {
			return
		}
		err = errors.Join(err, v.Config.Set(key, value))
		changed = true
	}
	set(keyName, name)
	set(keyID, id)
	for k, value := range labels {
		set("label."+strings.ToLower(k), value)
	}
	if err == nil && changed {
		err = v.Config.Save()
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}
