package worktree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Root is the directory that holds a live tree. Its methods may be called
// from many goroutines.
type Root struct {
	dir *os.File
	// plain is set once openat2 turned out to be missing (before Linux 5.6, or
	// hidden by a container's seccomp filter).
	plain atomic.Bool
	// oneMount keeps out what is mounted below.
	oneMount bool
}

// Live is an entry of the live tree. Of the embedded Entry, Name, Mode, UID,
// GID, Size, Rdev, the times, Target, Flags (where the file system has them)
// and Nlink are set; Xattrs are not, see [Root.Xattrs], but for a walk with
// [Options.Attributes].
type Live struct {
	Path string
	snapshot.Entry
	Ino    uint64
	Dev    uint64
	Blocks int64 // of 512 bytes
}

// Open opens the directory at path, which may itself be a symlink to one.
func Open(path string) (*Root, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{dir: f}, nil
}

// OneMount makes the root stay on its mount: a directory that another file
// system is mounted on cannot be entered any more. It gives r back.
func (r *Root) OneMount() *Root {
	r.oneMount = true
	return r
}

// Sub opens the directory at path as a root of its own, of the same kind.
func (r *Root) Sub(path string) (*Root, error) {
	fd, err := r.openDir(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Root{dir: os.NewFile(uintptr(fd), path), oneMount: r.oneMount}, nil
}

// Close gives the directory back.
func (r *Root) Close() error { return r.dir.Close() }

// openDir opens the directory at path, following no symlink on the way.
func (r *Root) openDir(path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	root := int(r.dir.Fd())
	if path == "" {
		return openat(root, ".", flags, 0)
	}
	if !r.plain.Load() && len(path) < unix.PathMax {
		how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
		if r.oneMount {
			how.Resolve |= unix.RESOLVE_NO_XDEV
		}
		fd, err := again(func() (int, error) { return unix.Openat2(root, path, &how) })
		switch {
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			r.plain.Store(true)
		case errors.Is(err, unix.EAGAIN): // a rename elsewhere raced with RESOLVE_BENEATH
		default:
			return fd, err
		}
	}
	return openSteps(root, path, flags)
}

func openSteps(root int, path string, flags int) (int, error) {
	at := root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return -1, unix.EINVAL
		}
		fd, err := openat(at, name, flags, 0)
		if at != root {
			closeFD(at)
		}
		if err != nil {
			return -1, err
		}
		at = fd
	}
	return at, nil
}

// closeFD gives back a descriptor that nothing was written through, whose
// closing has nothing to tell.
func closeFD(fd int) { _ = unix.Close(fd) }

// openParent opens the directory that holds path, which is not the root.
func (r *Root) openParent(path string) (fd int, name string, err error) {
	dir, name := split(path)
	if name == "" || name == "." || name == ".." {
		return -1, "", unix.EINVAL
	}
	fd, err = r.openDir(dir)
	return fd, name, err
}

// at runs f with the directory that holds path and path's name in it; for the
// root itself they are the root and ".".
func (r *Root) at(path string, f func(dir int, name string) error) error {
	if path == "" {
		return f(int(r.dir.Fd()), ".")
	}
	fd, name, err := r.openParent(path)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	return f(fd, name)
}

// Stat tells what is at path now. A missing path is [fs.ErrNotExist]; a
// symlink on the way is an error that wraps ELOOP or ENOTDIR.
func (r *Root) Stat(path string) (l Live, err error) {
	err = r.at(path, func(dir int, name string) error {
		l, err = statAt(dir, name)
		return err
	})
	if err != nil {
		return Live{Path: path}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	l.Path = path
	if path == "" {
		l.Name = ""
	}
	return l, nil
}

// Xattrs reads the extended attributes of what is at path that count as its
// metadata: user.*, trusted.*, POSIX ACLs and file capabilities, sorted by
// name. What the file system or the caller's rights do not show is not there.
func (r *Root) Xattrs(path string) ([]snapshot.Xattr, error) { return r.xattrs(path, managed) }

// AllXattrs reads all extended attributes of what is at path, as borg does.
func (r *Root) AllXattrs(path string) ([]snapshot.Xattr, error) {
	return r.xattrs(path, func(string) bool { return true })
}

func (r *Root) xattrs(path string, keep func(name string) bool) (list []snapshot.Xattr, err error) {
	err = r.at(path, func(dir int, name string) error {
		list, err = readXattrs(procPath(dir, name), keep)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "read xattrs", Path: path, Err: err}
	}
	return list, nil
}

// procPath names an entry of an open directory for the calls that have no
// *at form. They must be of the kind that does not follow a last symlink.
func procPath(dir int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name) }

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func statAt(dir int, name string) (Live, error) {
	var st unix.Statx_t
	_, err := again(func() (int, error) {
		return 0, unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statxMask, &st)
	})
	if err != nil {
		return Live{}, err
	}
	l := Live{
		Entry: snapshot.Entry{
			Name:  name,
			Mode:  uint32(st.Mode),
			UID:   st.Uid,
			GID:   st.Gid,
			Mtime: nanos(st.Mtime),
			Ctime: nanos(st.Ctime),
			Atime: nanos(st.Atime),
			Flags: flagsOf(st.Attributes),
			Nlink: st.Nlink,
		},
		Ino:    st.Ino,
		Dev:    unix.Mkdev(st.Dev_major, st.Dev_minor),
		Blocks: int64(st.Blocks),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		l.Birth = nanos(st.Btime)
	}
	switch l.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		l.Size = int64(st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		l.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	case unix.S_IFDIR:
		l.Nlink = 1
	case unix.S_IFLNK:
		if l.Target, err = readlinkAt(dir, name, int(st.Size)); err != nil {
			return Live{}, err
		}
	}
	return l, nil
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func flagsOf(attributes uint64) (flags uint32) {
	if attributes&unix.STATX_ATTR_NODUMP != 0 {
		flags |= snapshot.FlagNoDump
	}
	if attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		flags |= snapshot.FlagImmutable
	}
	if attributes&unix.STATX_ATTR_APPEND != 0 {
		flags |= snapshot.FlagAppend
	}
	return flags
}

func readlinkAt(dir int, name string, size int) (string, error) {
	for n := max(size+1, 128); ; n *= 2 {
		buf := make([]byte, n)
		got, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		if got < n {
			return string(buf[:got]), nil
		}
	}
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	return again(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode) })
}

// again repeats a call that a signal interrupted, as the runtime's own
// preemption signals can on slow file systems.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
