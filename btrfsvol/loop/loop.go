// Package loop keeps a btrfs file system in an ordinary file of the host.
//
//   - An image is the sparse file; host means the file system it lies on.
//   - A loop device shows the image as a disk to the kernel. It is never known
//     by its number, which changes from boot to boot, but by the image's device
//     and inode number, and the file system by its UUID.
//   - The superblock is btrfs's description of itself, 64 KiB into the image.
//   - The reserve is what the host's disk keeps free whatever a volume wants.
//
// Nothing here remembers anything: what is attached and mounted is read from
// the kernel each time, so a crash leaves nothing to clean up but what the
// kernel itself shows. What holds at every moment:
//
//   - The image is at least as large as the file system in it. Growing begins
//     with the image and shrinking ends with it, so after a crash at any point
//     the image may be too large, and the next resize makes it right.
//   - An image is attached once. Attaching, mounting and resizing take an
//     advisory lock (flock) on it.
//   - A device attached here goes by itself with its last mount (autoclear).
//
// Size is promised, not taken: an image may have more than the host's disk has
// (thin provisioning). A file system whose host is full fails hard, hence the
// reserve, which no step here goes below, and [GrowPolicy], which keeps
// promises small.
//
// Everything needs root, Linux 5.8 and, to create, mkfs.btrfs.
package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// What can go wrong, besides what the types below tell. A missing image is
// [io/fs.ErrNotExist], one that is in the way [io/fs.ErrExist].
var (
	ErrNeedsRoot  = fmt.Errorf("loop devices and mounts need root: %w", fs.ErrPermission)
	ErrNoTool     = errors.New("mkfs.btrfs is not installed; it is in the package btrfs-progs")
	ErrNotBtrfs   = errors.New("not a btrfs file system")
	ErrDamaged    = errors.New("the btrfs superblock is damaged")
	ErrAttached   = errors.New("attached in another way")              // by hand: twice, in part or read-only
	ErrDuplicate  = errors.New("a copy of this file system is in use") // the same UUID on another device
	ErrOccupied   = errors.New("something else is mounted there")
	ErrNotMounted = errors.New("no loop-backed btrfs is mounted there")
	ErrBusy       = errors.New("the file system is busy with another resize, balance or the like")
	ErrLimit      = errors.New("the volume has reached its limit")
)

// TruncatedError says that an image is smaller than the file system in it: its
// end was cut off, or a copy of it ended early.
type TruncatedError struct {
	Image      string
	Size, Want int64
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("%s is cut off: it has %d bytes, its file system needs %d", e.Image, e.Size, e.Want)
}

// UUIDError says that an image holds another file system than was expected.
type UUIDError struct {
	Image     string
	Got, Want string
}

func (e *UUIDError) Error() string {
	return fmt.Sprintf("%s holds another file system: its UUID is %s, not %s", e.Image, e.Got, e.Want)
}

// TooSmallError says that a size is less than what is possible.
type TooSmallError struct{ Size, Min int64 }

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("%s are too few: at least %s are needed", iec(e.Size), iec(e.Min))
}

// HostFullError says that the host's disk has not enough beyond its reserve.
type HostFullError struct {
	Free, Reserve int64 // bytes on the host's disk
	Want          int64 // bytes that were to be had; 0 when the reserve alone is at stake
}

func (e *HostFullError) Error() string {
	if e.Want == 0 {
		return fmt.Sprintf("the host's disk is too full: %s free, and %s are its reserve", iec(e.Free), iec(e.Reserve))
	}
	return fmt.Sprintf("the host's disk is too full for %s more: %s free, and %s are its reserve", iec(e.Want), iec(e.Free), iec(e.Reserve))
}

func iec(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// needRoot is the first thing every entry asks.
func needRoot() error {
	if os.Geteuid() != 0 {
		return ErrNeedsRoot
	}
	return nil
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// image is an image held open for one operation.
type image struct {
	path string
	file *os.File
	stat unix.Stat_t
}

// openImage opens an image for reading and writing. A device may show it
// meanwhile.
func openImage(path string) (*image, error) {
	// Without O_NONBLOCK, opening a fifo would wait for its other end.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	i := &image{path: path, file: f}
	if err := i.restat(); err != nil {
		f.Close()
		return nil, err
	}
	if i.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, fmt.Errorf("image %s: not a regular file", path)
	}
	return i, nil
}

func (i *image) restat() error {
	if err := unix.Fstat(int(i.file.Fd()), &i.stat); err != nil {
		return fmt.Errorf("image %s: %w", i.path, err)
	}
	return nil
}

// lockPoll is how often a lock that another holds is tried again.
const lockPoll = 20 * time.Millisecond

// lock keeps others from attaching, mounting or resizing this image until it
// is closed. A device that is given the file does not keep the lock, since it
// gets a descriptor of its own.
func (i *image) lock(ctx context.Context) error {
	for {
		err := unix.Flock(int(i.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock image %s: %w", i.path, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("image %s is locked by another: %w", i.path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

func (i *image) close() { i.file.Close() }

// open opens an image and locks it.
func open(ctx context.Context, path string) (*image, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	i, err := openImage(path)
	if err != nil {
		return nil, err
	}
	if err := i.lock(ctx); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// check reads the superblock and holds it against the image and what the
// caller expects; "" expects nothing.
func (i *image) check(uuid string) (Superblock, error) {
	s, err := ReadSuperblock(i.file)
	if err != nil {
		return s, fmt.Errorf("image %s: %w", i.path, err)
	}
	if uuid != "" && s.UUID != uuid {
		return s, &UUIDError{Image: i.path, Got: s.UUID, Want: uuid}
	}
	if s.Devices != 1 {
		return s, fmt.Errorf("image %s: its file system spans %d devices; only one is supported", i.path, s.Devices)
	}
	if s.TotalBytes > i.stat.Size {
		return s, &TruncatedError{Image: i.path, Size: i.stat.Size, Want: s.TotalBytes}
	}
	return s, nil
}
