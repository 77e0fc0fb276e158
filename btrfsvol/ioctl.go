package btrfsvol

import (
	"bytes"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The requests and their structures are those of the kernel's
// include/uapi/linux/btrfs.h; a request's number contains its structure's size.
const (
	iocSnapDestroy   = iocWrite | 4096<<16 | magic | 15
	iocTreeSearch    = iocRead | iocWrite | 112<<16 | magic | 17
	iocInoLookup     = iocRead | iocWrite | 4096<<16 | magic | 18
	iocGetFlags      = iocRead | 8<<16 | magic | 25
	iocSetFlags      = iocWrite | 8<<16 | magic | 26
	iocFSInfo        = iocRead | 1024<<16 | magic | 31
	iocSubvolInfo    = iocRead | 504<<16 | magic | 60
	iocSubvolRootref = iocRead | iocWrite | 4096<<16 | magic | 61
	iocLookupUser    = iocRead | iocWrite | 4096<<16 | magic | 62

	magic    = 0x94 << 8
	iocWrite = 1 << 30
	iocRead  = 2 << 30
)

const (
	rootIno      = 256    // of every subvolume's root directory
	nestedIno    = 2      // of the empty directory in the place of a nested subvolume
	flagReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY
)

type timespec struct {
	Sec  uint64
	Nsec uint32
	_    uint32
}

// subvolInfo is struct btrfs_ioctl_get_subvol_info_args.
type subvolInfo struct {
	ID                                     uint64
	Name                                   [256]byte
	ParentID, DirID, Generation, Flags     uint64
	UUID, ParentUUID, ReceivedUUID         [16]byte
	CTransid, OTransid, STransid, RTransid uint64
	CTime, OTime, STime, RTime             timespec
	_                                      [8]uint64
}

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	FD   int64
	Name [4088]byte
}

// rootrefArgs is struct btrfs_ioctl_get_subvol_rootref_args.
type rootrefArgs struct {
	MinID uint64
	Refs  [255]struct{ ID, DirID uint64 }
	Count uint8
	_     [7]byte
}

// lookupUserArgs is struct btrfs_ioctl_ino_lookup_user_args.
type lookupUserArgs struct {
	DirID, ID uint64
	Name      [256]byte
	Path      [3824]byte
}

// lookupArgs is struct btrfs_ioctl_ino_lookup_args.
type lookupArgs struct {
	ID, Ino uint64
	Path    [4080]byte
}

// fsInfo is struct btrfs_ioctl_fs_info_args.
type fsInfo struct {
	MaxID, Devices uint64
	FSID           [16]byte
	_              [992]byte
}

// searchArgs is struct btrfs_ioctl_search_args_v2 with its buffer.
type searchArgs struct {
	Tree                 uint64
	MinObject, MaxObject uint64
	MinOffset, MaxOffset uint64
	MinTrans, MaxTrans   uint64
	MinType, MaxType     uint32
	Items                uint32
	_                    uint32
	_                    [4]uint64
	BufSize              uint64
	Buf                  [128 << 10]byte // holds the largest item there can be, twice
}

func ioctl[T any](f *os.File, request uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// cString is a string that ends with a zero byte.
func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}
