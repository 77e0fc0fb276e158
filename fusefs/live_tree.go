package fusefs

import (
	"context"
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// liveTree is the directory below the mount. It is reached through its
// descriptor only, never by name: by name one would meet the mount.
type liveTree struct {
	dir   *os.File // the caller's; held so that it is not closed as garbage
	root  int      // its descriptor
	dev   uint64   // of the root
	umask uint32   // this process's, which the kernel applies on top of the caller's
	uid   uint32   // as which new files are made
	gid   uint32
	flush bool // closing a file can tell of an error in what was written

	habits *habits
	dirs   openDirs

	// renaming is held for writing while a name moves, on the disk and then in
	// go-fuse's tree, and for reading while a path is made from that tree and
	// opened: between the two the path leads nowhere, or elsewhere.
	renaming sync.RWMutex

	// hasPast tells whether the past has a directory at a path.
	hasPast func(ctx context.Context, path string) bool
}

func newLiveTree(dir *os.File) (*liveTree, error) {
	t := &liveTree{dir: dir, root: int(dir.Fd()), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	var x unix.Statx_t
	if err := statEmpty(t.root, &x); err != nil {
		return nil, fmt.Errorf("live tree %s: %w", dir.Name(), err)
	}
	if x.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("live tree %s: %w", dir.Name(), syscall.ENOTDIR)
	}
	t.dev = deviceOf(&x)
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(t.root, &fsys); err != nil {
		return nil, fmt.Errorf("live tree %s: %w", dir.Name(), err)
	}
	t.flush = overNetwork[uint32(fsys.Type)]
	var err error
	if t.umask, err = processUmask(); err != nil {
		return nil, err
	}
	return t, nil
}

// overNetwork are the magic numbers of file systems that may tell only at
// close(2) that something could not be written (linux/magic.h and theirs).
var overNetwork = map[uint32]bool{
	unix.NFS_SUPER_MAGIC: true, unix.SMB_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true,
	unix.CEPH_SUPER_MAGIC: true, unix.AFS_SUPER_MAGIC: true, unix.V9FS_MAGIC: true, unix.CODA_SUPER_MAGIC: true, unix.FUSE_SUPER_MAGIC: true,
}

// openedAs tells the kernel what it need not do with an open file.
func (t *liveTree) openedAs(flags uint32) (fuseFlags uint32) {
	if t.flush && writes(flags) {
		return 0
	}
	return fuse.FOPEN_NOFLUSH
}

// rawFS makes the file system that passes calls through.
func (t *liveTree) rawFS(opts *fs.Options) (fuse.RawFileSystem, error) {
	var x unix.Statx_t
	if err := statEmpty(t.root, &x); err != nil {
		return nil, err
	}
	id := t.stable(&x)
	opts.RootStableAttr = &id
	opts.NullPermissions = true // mode 000 is a mode
	return fs.NewNodeFS(&liveNode{tree: t}, opts), nil
}

// open opens a path relative to the root, following no link anywhere. A path
// may be longer than one call takes.
func (t *liveTree) open(rel string, flags int, mode uint32) (int, error) {
	dir, borrowed := t.root, true
	for len(rel) >= unix.PathMax {
		cut := strings.LastIndexByte(rel[:unix.PathMax-1], '/')
		if cut <= 0 {
			break // no name is that long
		}
		next, err := openBelow(dir, rel[:cut], unix.O_PATH|unix.O_DIRECTORY, 0)
		if !borrowed {
			_ = unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir, borrowed, rel = next, false, rel[cut+1:]
	}
	fd, err := openBelow(dir, rel, flags, mode)
	if !borrowed {
		_ = unix.Close(dir)
	}
	return fd, err
}

// openBelow opens a path, "" being the directory itself.
func openBelow(dir int, rel string, flags int, mode uint32) (int, error) {
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	}
	for {
		fd, err := unix.Openat2(dir, rel, &how)
		if err == unix.EINTR || err == unix.EAGAIN { // a rename beside us
			continue
		}
		return fd, err
	}
}

// stable identifies a file as long as it lives. The device is mixed in for
// file systems mounted below the root; the creation time tells a reused inode
// number from the old one.
func (t *liveTree) stable(x *unix.Statx_t) fs.StableAttr {
	gen := uint64(1)
	if x.Mask&unix.STATX_BTIME != 0 {
		gen = uint64(x.Btime.Sec)*1e9 + uint64(x.Btime.Nsec)
	}
	return fs.StableAttr{Mode: uint32(x.Mode) & unix.S_IFMT, Ino: t.ino(x), Gen: gen}
}

// ino is the file's inode number with bit 63, the history's, cleared.
func (t *liveTree) ino(x *unix.Statx_t) uint64 {
	return (bits.RotateLeft64(deviceOf(x)^t.dev, 32) ^ x.Ino) &^ bitHistory
}

// attr fills in what the kernel wants to know of a file.
func (t *liveTree) attr(x *unix.Statx_t, a *fuse.Attr) {
	*a = fuse.Attr{
		Ino: t.ino(x), Size: x.Size, Blocks: x.Blocks, Blksize: x.Blksize,
		Mode: uint32(x.Mode), Nlink: x.Nlink, Owner: fuse.Owner{Uid: x.Uid, Gid: x.Gid},
		Rdev:  uint32(unix.Mkdev(x.Rdev_major, x.Rdev_minor)),
		Atime: uint64(x.Atime.Sec), Atimensec: x.Atime.Nsec,
		Mtime: uint64(x.Mtime.Sec), Mtimensec: x.Mtime.Nsec,
		Ctime: uint64(x.Ctime.Sec), Ctimensec: x.Ctime.Nsec,
	}
}

// settle gives a file just made its caller as owner and the mode it asked
// for, and reports its attributes. dir is the directory it lies in.
func (t *liveTree) settle(ctx context.Context, dir, fd int, mode uint32, x *unix.Statx_t) error {
	if err := statEmpty(fd, x); err != nil {
		return err
	}
	if x.Mode&unix.S_IFMT == unix.S_IFLNK {
		mode = 0o777 // a link's mode means nothing and cannot be set
	}
	owner, changed := t.ownerFor(ctx)
	if changed {
		gid := int(owner.Gid)
		var parent unix.Statx_t
		if err := statEmpty(dir, &parent); err != nil {
			return err
		}
		if parent.Mode&unix.S_ISGID != 0 {
			gid = -1 // the directory's group was inherited
		}
		if err := unix.Fchownat(fd, "", int(owner.Uid), gid, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	// Undo our own umask, unless the directory's default ACL overruled it;
	// and the loss of set-id bits to the change of owner.
	keep := uint32(x.Mode) & (0o777 | unix.S_ISGID)
	masked := mode&t.umask&0o777 != 0 && !hasDefaultACL(dir)
	lost := changed && mode&(unix.S_ISUID|unix.S_ISGID) != 0
	if x.Mode&unix.S_IFMT != unix.S_IFLNK && (masked || lost) {
		if masked {
			keep |= mode & 0o777
		}
		if err := unix.Chmod(procPath(fd), keep|mode&0o7000); err != nil {
			return err
		}
	}
	return statEmpty(fd, x)
}

// ownerFor tells who made the call, and whether that is another than the one
// new files belong to anyway.
func (t *liveTree) ownerFor(ctx context.Context) (owner fuse.Owner, changed bool) {
	caller, ok := fuse.FromContext(ctx)
	if !ok || t.uid != 0 {
		return owner, false
	}
	return caller.Owner, caller.Uid != t.uid || caller.Gid != t.gid
}

func hasDefaultACL(dir int) bool {
	size, err := unix.Getxattr(procPath(dir), aclDefault, nil)
	return err == nil && size > 0
}

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// statEmpty is fstat(2) with the creation time.
func statEmpty(fd int, x *unix.Statx_t) error {
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, statxMask, x)
}

// statName is lstat(2) of a name in a directory.
func statName(dir int, name string, x *unix.Statx_t) error {
	return unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statxMask, x)
}

func deviceOf(x *unix.Statx_t) uint64 { return unix.Mkdev(x.Dev_major, x.Dev_minor) }

// procPath names an open file, for calls that take no O_PATH descriptor.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// processUmask reads the umask; the system call could only be asked by
// changing it for a moment, for all threads.
func processUmask() (uint32, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("read umask: %w", err)
	}
	_, rest, _ := strings.Cut(string(status), "\nUmask:")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 8, 32)
	if err != nil {
		return 0, fmt.Errorf("read umask: %w", err)
	}
	return uint32(mask), nil
}
