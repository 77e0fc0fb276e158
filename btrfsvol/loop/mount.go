package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MountOptions are the options of [Mount].
type MountOptions struct {
	UUID      string       // of the file system that is expected; "" takes any
	Compress  string       // btrfs's compress=, such as "zstd:1"; "" does not ask for it
	Subvolume string       // path from the file system's root; "" is its default one
	Log       *slog.Logger // nil discards
}

// Mounted is a mount that [Mount] made or found.
type Mounted struct {
	Device string // such as /dev/loop3; true only while it is mounted
	Dir    string // without symbolic links
	Found  bool   // it was mounted before
	Superblock
}

var compressForm = regexp.MustCompile(`^[a-z0-9:-]*$`)

// data returns the options as mount(2) takes them. Deleted data go back to the
// host by and by.
func (o MountOptions) data() (string, error) {
	data := "discard=async"
	if !compressForm.MatchString(o.Compress) {
		return "", fmt.Errorf("%q is no way to compress; zstd or zstd:3 are", o.Compress)
	}
	if o.Compress != "" {
		data += ",compress=" + o.Compress
	}
	if strings.ContainsAny(o.Subvolume, ",\x00") {
		return "", fmt.Errorf("subvolume %q: mount(2) takes none with a comma", o.Subvolume)
	}
	if o.Subvolume != "" {
		data += ",subvol=" + o.Subvolume
	}
	return data, nil
}

// Mount attaches an image and mounts it at dir, which must be a directory,
// without access times. Where it is mounted there already nothing is done. It
// may be mounted elsewhere, too. After an error no device and no mount of this
// call is left.
//
// Errors: those of [Attach], [ErrOccupied], [ErrDuplicate].
func Mount(ctx context.Context, image, dir string, o MountOptions) (Mounted, error) {
	i, err := open(ctx, image)
	if err != nil {
		return Mounted{}, err
	}
	defer i.close()
	m, err := i.mount(ctx, dir, o)
	if err != nil {
		return m, fmt.Errorf("mount at %s: %w", dir, err)
	}
	return m, nil
}

func (i *image) mount(ctx context.Context, dir string, o MountOptions) (Mounted, error) {
	data, err := o.data()
	if err != nil {
		return Mounted{}, err
	}
	super, err := i.check(o.UUID)
	if err != nil {
		return Mounted{}, err
	}
	p, err := openPlace(dir)
	if err != nil {
		return Mounted{}, err
	}
	defer p.close()
	if p.mount != nil {
		return i.mountedAt(p, super, o)
	}
	d, err := i.attach(logger(o.Log))
	if err != nil {
		return Mounted{}, err
	}
	defer d.Close() // the mount holds the device from then on
	if err := d.onlyOne(super.UUID); err != nil {
		return Mounted{}, fmt.Errorf("image %s: %w", i.path, err)
	}
	if err := ctx.Err(); err != nil {
		return Mounted{}, err
	}
	if err := unix.Mount(d.Path, p.link(), "btrfs", unix.MS_NOATIME, data); err != nil {
		switch {
		case errors.Is(err, unix.EEXIST):
			err = ErrDuplicate
		case errors.Is(err, unix.ENOENT) && o.Subvolume != "":
			err = fmt.Errorf("subvolume %s: %w", o.Subvolume, err)
		case errors.Is(err, unix.ENODEV):
			err = fmt.Errorf("this kernel has no btrfs: %w", err)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EIO), errors.Is(err, unix.EUCLEAN):
			err = fmt.Errorf("%w (the kernel's log says more)", err)
		}
		return Mounted{}, fmt.Errorf("image %s: %w", i.path, err)
	}
	return Mounted{Device: d.Path, Dir: p.dir, Superblock: super}, nil
}

// mountedAt answers for a place where something is mounted.
func (i *image) mountedAt(p *place, super Superblock, o MountOptions) (Mounted, error) {
	d, err := i.attached()
	if err != nil {
		return Mounted{}, err
	}
	if d != nil {
		defer d.Close()
		if n, ok := loopOf(p.mount); ok && n == d.number {
			if o.Subvolume != "" && p.mount.Root != path.Join("/", o.Subvolume) {
				return Mounted{}, fmt.Errorf("%w: subvolume %s of the same image", ErrOccupied, p.mount.Root)
			}
			return Mounted{Device: d.Path, Dir: p.dir, Found: true, Superblock: super}, nil
		}
	}
	return Mounted{}, fmt.Errorf("%w: %s from %s", ErrOccupied, p.mount.Type, p.mount.Source)
}

// onlyOne refuses a copy of a file system that is mounted. Some kernels do so,
// some mount it under another UUID, and with some the two would be mixed up.
func (d *Device) onlyOne(uuid string) error {
	devices, err := os.ReadDir("/sys/fs/btrfs/" + uuid + "/devices")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, other := range devices {
		if other.Name() != filepath.Base(d.Path) {
			return fmt.Errorf("%w: %s shows one", ErrDuplicate, other.Name())
		}
	}
	return nil
}

// Unmount unmounts the loop-backed file system that is mounted exactly at dir,
// and waits a moment for its device to go. The device stays where the file
// system is mounted elsewhere as well, also in a container, and where it was
// attached by hand. Files in use are an error, EBUSY.
//
// Errors: [ErrNotMounted].
func Unmount(ctx context.Context, dir string) error {
	if err := needRoot(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := openPlace(dir)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	p.close() // it would keep the mount busy
	if p.mount == nil {
		return fmt.Errorf("unmount %s: %w", dir, ErrNotMounted)
	}
	number, ok := loopOf(p.mount)
	if !ok {
		return fmt.Errorf("unmount %s: %w: it is %s from %s", dir, ErrNotMounted, p.mount.Type, p.mount.Source)
	}
	if err := unix.Unmount(p.dir, unix.UMOUNT_NOFOLLOW); err != nil {
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("files in it are in use: %w", err)
		}
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	awaitDetached(ctx, number)
	return nil
}

// awaitDetached waits until a device whose last mount went is gone, too, so
// that the image can be moved or copied. Others, such as udev, may look at it
// for a moment yet.
func awaitDetached(ctx context.Context, number int) {
	flag := fmt.Sprintf("/sys/block/loop%d/loop/autoclear", number)
	if still, err := mountsOf(number); err != nil || len(still) > 0 {
		return
	}
	for range 100 {
		// The file goes with the image.
		if b, err := os.ReadFile(flag); err != nil || strings.TrimSpace(string(b)) != "1" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// MountPoint is one place where an image is mounted.
type MountPoint struct {
	Dir       string
	Subvolume string // "/" is the file system's root
}

// State is where an image is attached and mounted, as this process sees it.
type State struct {
	Device string // "" when it is not attached
	Mounts []MountPoint
}

// Find tells where an image is attached and mounted. The image is known by its
// inode, so it may have been renamed meanwhile.
func Find(image string) (State, error) {
	if err := needRoot(); err != nil {
		return State{}, err
	}
	i, err := openImage(image)
	if err != nil {
		return State{}, err
	}
	defer i.close()
	d, err := i.attached()
	if err != nil || d == nil {
		return State{}, err
	}
	defer d.Close()
	all, err := mountsOf(d.number)
	if err != nil {
		return State{}, err
	}
	s := State{Device: d.Path}
	for _, e := range all {
		s.Mounts = append(s.Mounts, MountPoint{Dir: e.Dir, Subvolume: e.Root})
	}
	return s, nil
}
