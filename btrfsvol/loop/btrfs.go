package loop

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// The kernel's interface, from include/uapi/linux/btrfs.h and fs.h. The
// numbers are those of amd64, arm64 and all other architectures that encode
// directions alike.
const (
	iocResize    = 0x50009403 // BTRFS_IOC_RESIZE
	iocSpaceInfo = 0xc0109414 // BTRFS_IOC_SPACE_INFO
	iocDevInfo   = 0xd000941e // BTRFS_IOC_DEV_INFO
	iocFSInfo    = 0x8400941f // BTRFS_IOC_FS_INFO
	iocTrim      = 0xc0185879 // FITRIM

	groupDup           = 1 << 5  // BTRFS_BLOCK_GROUP_DUP
	groupGlobalReserve = 1 << 49 // BTRFS_SPACE_INFO_GLOBAL_RSV: within metadata
)

type volArgs struct { // btrfs_ioctl_vol_args
	_    int64
	name [4088]byte
}

type fsInfoArgs struct { // btrfs_ioctl_fs_info_args
	maxID, devices uint64
	uuid           [16]byte
	_              [992]byte
}

type devInfoArgs struct { // btrfs_ioctl_dev_info_args
	id         uint64
	_          [24]byte
	totalBytes uint64
	_          [3032]byte
	path       [1024]byte
}

type spaceInfo struct{ flags, _, used uint64 } // btrfs_ioctl_space_info

// spaceSlots are more than there are kinds of space on one device.
const spaceSlots = 64

type spaceArgs struct { // btrfs_ioctl_space_args
	slots, spaces uint64
	info          [spaceSlots]spaceInfo
}

type trimRange struct{ _, length, _ uint64 } // fstrim_range

// The structures are as large as the numbers above say.
var (
	_ [4096]byte = [unsafe.Sizeof(volArgs{})]byte{}
	_ [1024]byte = [unsafe.Sizeof(fsInfoArgs{})]byte{}
	_ [4096]byte = [unsafe.Sizeof(devInfoArgs{})]byte{}
	_ [24]byte   = [unsafe.Sizeof(trimRange{})]byte{}
)

// ioctl calls the kernel. A positive result is btrfs's way to say that another
// such operation is running.
func ioctl[T any](f *os.File, request uintptr, arg *T) error {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	if r != 0 {
		return ErrBusy
	}
	return nil
}

// mountedFS is a mounted loop-backed file system, held open.
type mountedFS struct {
	file   *os.File // the directory it was asked for by
	uuid   string
	devID  uint64
	size   int64 // of the file system
	device *Device
	image  *image
}

// openMounted finds the file system in which dir is, its device and its image.
func openMounted(dir string) (_ *mountedFS, err error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	m := &mountedFS{}
	defer func() {
		if err != nil {
			m.close()
			err = fmt.Errorf("%s: %w", dir, err)
		}
	}()
	if m.file, err = os.OpenFile(dir, unix.O_DIRECTORY, 0); err != nil {
		return nil, errors.Unwrap(err) // the path is told already
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.file.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return nil, ErrNotMounted
	}
	dev, err := m.info()
	if err != nil {
		return nil, err
	}
	number, ok := loopNumber(unix.ByteSliceToString(dev.path[:]))
	if !ok {
		return nil, fmt.Errorf("%w: it is on %s", ErrNotMounted, unix.ByteSliceToString(dev.path[:]))
	}
	if err := m.openImage(number); err != nil {
		return nil, err
	}
	return m, nil
}

// info asks the file system about itself and its only device.
func (m *mountedFS) info() (*devInfoArgs, error) {
	var fs fsInfoArgs
	if err := ioctl(m.file, iocFSInfo, &fs); err != nil {
		return nil, err
	}
	if fs.devices != 1 {
		return nil, fmt.Errorf("it spans %d devices; only one is supported", fs.devices)
	}
	m.uuid = uuid.UUID(fs.uuid).String()
	// It is the first unless that was replaced.
	for id := uint64(1); id <= fs.maxID; id++ {
		dev := devInfoArgs{id: id}
		err := ioctl(m.file, iocDevInfo, &dev)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.devID, m.size = id, int64(dev.totalBytes)
		return &dev, nil
	}
	return nil, unix.ENODEV
}

// openImage opens the image that a device shows, wherever it was renamed to.
func (m *mountedFS) openImage(number int) error {
	d, info, err := openDevice(number)
	if err != nil {
		return err
	}
	m.device = d
	path, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", number))
	if err != nil {
		return err
	}
	i, err := openImage(string(path[:len(path)-1])) // without the line break
	if err != nil {
		return err
	}
	if !i.is(info) {
		i.close()
		return fmt.Errorf("image %s was replaced by another file while it is in use", i.path)
	}
	m.image = i
	return nil
}

func (m *mountedFS) close() {
	if m.image != nil {
		m.image.close()
	}
	if m.device != nil {
		m.device.Close()
	}
	if m.file != nil {
		m.file.Close()
	}
}

// resize tells btrfs how large to be; "cancel" stops another that runs.
func (m *mountedFS) resize(size string) error {
	var args volArgs
	copy(args.name[:len(args.name)-1], size)
	return ioctl(m.file, iocResize, &args)
}

// sizeArg is a size of the only device.
func (m *mountedFS) sizeArg(size int64) string {
	return strconv.FormatUint(m.devID, 10) + ":" + strconv.FormatInt(size, 10)
}

// space returns the bytes of the device that data and metadata take, all
// copies counted.
func (m *mountedFS) space() (int64, error) {
	args := spaceArgs{slots: spaceSlots}
	if err := ioctl(m.file, iocSpaceInfo, &args); err != nil {
		return 0, err
	}
	var used int64
	for _, s := range args.info[:min(args.spaces, spaceSlots)] {
		switch {
		case s.flags&groupGlobalReserve != 0:
		case s.flags&groupDup != 0:
			used += 2 * int64(s.used)
		default:
			used += int64(s.used)
		}
	}
	return used, nil
}
