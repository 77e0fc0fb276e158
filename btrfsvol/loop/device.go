package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/freddierice/go-losetup"
	"golang.org/x/sys/unix"
)

// Device is a loop device that shows an image, held open.
type Device struct {
	Path     string // such as /dev/loop3; true only until Close
	Found    bool   // it was attached before
	DirectIO bool   // its data is not cached a second time by the host

	number int
	file   *os.File
}

// AttachOptions are the options of [Attach].
type AttachOptions struct {
	UUID string       // of the file system that is expected; "" takes any
	Log  *slog.Logger // nil discards
}

// Attach shows an image as a loop device, or finds the one that does already.
// A new one goes by itself when it is closed and nothing is mounted from it.
//
// Errors: [io/fs.ErrNotExist], [ErrNotBtrfs], [ErrDamaged], [ErrAttached],
// *[TruncatedError], *[UUIDError].
func Attach(ctx context.Context, path string, o AttachOptions) (*Device, error) {
	i, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer i.close()
	if _, err := i.check(o.UUID); err != nil {
		return nil, err
	}
	return i.attach(logger(o.Log))
}

// Close lets go of the device.
func (d *Device) Close() error { return d.file.Close() }

// attach finds the image's device or makes one. The image is locked.
func (i *image) attach(log *slog.Logger) (*Device, error) {
	d, err := i.attached()
	if err != nil {
		return nil, err
	}
	if d != nil {
		// A grow may have been cut off before the device heard of it.
		if err := d.setCapacity(); err != nil {
			d.Close()
			return nil, err
		}
		return d, nil
	}
	if d, err = i.configure(); err != nil {
		return nil, fmt.Errorf("attach image %s: %w", i.path, err)
	}
	if !d.DirectIO {
		log.Warn("the host's file system takes no direct I/O: data of the volume is cached twice", "image", i.path)
	}
	return d, nil
}

// attached returns the device that shows the image, or nil.
func (i *image) attached() (*Device, error) {
	// Only devices that are in use have this file.
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var found *Device
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(strings.Split(name, "/")[3], "loop"))
		if err != nil {
			continue
		}
		d, info, err := openDevice(n)
		if err != nil { // it went meanwhile
			continue
		}
		if !i.is(info) {
			d.Close()
			continue
		}
		switch {
		case found != nil:
			err = fmt.Errorf("image %s: %w: by both %s and %s", i.path, ErrAttached, found.Path, d.Path)
			found.Close()
		case info.Offset != 0 || info.SizeLimit != 0:
			err = fmt.Errorf("image %s: %w: %s shows only a part of it", i.path, ErrAttached, d.Path)
		case info.Flags&losetup.FlagsReadOnly != 0:
			err = fmt.Errorf("image %s: %w: %s is read-only", i.path, ErrAttached, d.Path)
		}
		if err != nil {
			d.Close()
			return nil, err
		}
		found = d
	}
	return found, nil
}

// is tells whether this image is what a device shows.
func (i *image) is(info losetup.Info) bool {
	return info.Device == i.stat.Dev && info.INode == i.stat.Ino
}

// openDevice opens a loop device that shows something. While it is open it
// shows the same.
func openDevice(number int) (*Device, losetup.Info, error) {
	dev := losetup.New(uint64(number), os.O_RDONLY)
	f, err := os.Open(dev.Path())
	if err != nil {
		return nil, losetup.Info{}, err
	}
	info, err := dev.GetInfo()
	if err != nil {
		f.Close()
		return nil, info, err
	}
	return &Device{
		Path: dev.Path(), Found: true, DirectIO: info.Flags&losetup.FlagsDirectIO != 0,
		number: number, file: f,
	}, info, nil
}

// configure takes a free device for the image.
func (i *image) configure() (*Device, error) {
	control, err := os.OpenFile(losetup.LoopControlPath, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	// The device keeps the descriptor it is given, and with it its lock: it
	// gets one that has none.
	back, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", i.file.Fd()), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer back.Close()
	const tries = 32 // against those who take devices at the same time
	for range tries {
		// Makes a new one when all are taken.
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		d, err := configureDevice(n, back, i.path)
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) {
			continue
		}
		return d, err
	}
	return nil, fmt.Errorf("others were faster at %d free loop devices: %w", tries, unix.EBUSY)
}

func configureDevice(number int, back *os.File, name string) (*Device, error) {
	path := losetup.New(uint64(number), 0).Path()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	// One call does it all: there is no moment at which the device is
	// attached without going by itself. Blocks are btrfs's sectors, which
	// also makes direct I/O work where the disk has blocks of 4 KiB.
	config := unix.LoopConfig{Fd: uint32(back.Fd()), Size: sector}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], name)
	if err := unix.IoctlLoopConfigure(int(f.Fd()), &config); err != nil {
		f.Close()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
			err = fmt.Errorf("%w (Linux 5.8 or newer is needed)", err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Device{Path: path, DirectIO: info.Flags&unix.LO_FLAGS_DIRECT_IO != 0, number: number, file: f}, nil
}

// setCapacity makes the device as large as its image now is.
func (d *Device) setCapacity() error {
	if err := unix.IoctlSetInt(int(d.file.Fd()), losetup.SetCapacity, 0); err != nil {
		return fmt.Errorf("set the size of %s: %w", d.Path, err)
	}
	return nil
}
