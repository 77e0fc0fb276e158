package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

const (
	// MinSize is the smallest file system that mkfs.btrfs makes with two
	// copies of its metadata, 109 MiB.
	MinSize = 109 << 20
	// MinResize is the smallest size to which the kernel resizes, up or down.
	MinResize = 256 << 20

	sector = 4096 // btrfs's; sizes are multiples of it
	// fresh is more than a new file system takes of the host's disk.
	fresh = 16 << 20
	// tempPrefix begins the name of an image that is not complete.
	tempPrefix = ".s4-image-"
)

// CreateOptions are the options of [Create].
type CreateOptions struct {
	Label   string       // at most 255 bytes
	UUID    string       // "" takes a random one
	Reserve int64        // what the host keeps free; see [Reserve]
	Log     *slog.Logger // nil discards
}

// Create makes a sparse image of size bytes with an empty btrfs file system:
// one copy of data, two of metadata. Directories above the image are made. The
// image has its name only when it is complete; after an error nothing is left.
//
// The image may be larger than what the host's disk has free, which is logged,
// but the disk must have more than its reserve.
//
// Errors: *[TooSmallError], *[HostFullError], [ErrNoTool], [io/fs.ErrExist].
func Create(ctx context.Context, path string, size int64, o CreateOptions) (Superblock, error) {
	if err := needRoot(); err != nil {
		return Superblock{}, err
	}
	s, err := create(ctx, path, size, o)
	if err != nil {
		return s, fmt.Errorf("create image %s: %w", path, err)
	}
	return s, nil
}

func create(ctx context.Context, path string, size int64, o CreateOptions) (_ Superblock, err error) {
	size -= size % sector
	if size < MinSize {
		return Superblock{}, &TooSmallError{Size: size, Min: MinSize}
	}
	if o.UUID == "" {
		o.UUID = uuid.NewString()
	} else if id, err := uuid.Parse(o.UUID); err != nil || id.String() != o.UUID {
		return Superblock{}, fmt.Errorf("%q is no UUID in lower case with dashes", o.UUID)
	}
	// Else mkfs.btrfs would truncate it or explain itself at length.
	if len(o.Label) >= labelSize || strings.ContainsAny(o.Label, "\x00\n") {
		return Superblock{}, fmt.Errorf("label %q is too long or has a line break", o.Label)
	}
	mkfs, err := findMkfs()
	if err != nil {
		return Superblock{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return Superblock{}, err
	}
	if _, err := os.Lstat(path); err == nil {
		return Superblock{}, fs.ErrExist
	}
	dir := filepath.Dir(path)
	made, err := makeDirs(dir)
	defer func() {
		if err != nil {
			for _, d := range made {
				_ = os.Remove(d) // but not if another put something there
			}
		}
	}()
	if err != nil {
		return Superblock{}, err
	}
	if err := checkHost(dir, size, o); err != nil {
		return Superblock{}, err
	}
	f, err := os.CreateTemp(dir, tempPrefix+"*") // 0600, and never one that is there
	if err != nil {
		return Superblock{}, err
	}
	defer f.Close()
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	noCopyOnWrite(f)
	if err := f.Truncate(size); err != nil {
		return Superblock{}, err
	}
	if err := runMkfs(ctx, mkfs, f.Name(), o); err != nil {
		return Superblock{}, err
	}
	s, err := ReadSuperblock(f)
	if err != nil {
		return Superblock{}, err
	}
	if s.UUID != o.UUID || s.TotalBytes > size {
		return Superblock{}, fmt.Errorf("mkfs.btrfs made something else: %+v", s)
	}
	if err := f.Sync(); err != nil {
		return Superblock{}, err
	}
	return s, publish(f.Name(), path)
}

// publish gives a complete file its name unless that is taken.
func publish(temp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // not on this file system
		if err = os.Link(temp, path); err == nil {
			err = os.Remove(temp)
		}
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// makeDirs makes a directory and those above it and returns the new ones, the
// deepest first.
func makeDirs(dir string) (made []string, err error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	return made, os.MkdirAll(dir, 0o700)
}

// checkHost refuses to add to a disk that is too full already.
func checkHost(dir string, size int64, o CreateOptions) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	total, free := int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	reserve := Reserve(o.Reserve, total)
	if free-fresh < reserve {
		return &HostFullError{Free: free, Reserve: reserve, Want: fresh}
	}
	if size > free-reserve {
		logger(o.Log).Warn("the image can become larger than what the host's disk has", "size", size, "free", free, "reserve", reserve)
	}
	return nil
}

// noCopyOnWrite spares an empty image on a host that is btrfs, too, from
// being fragmented by every write. The file system in the image has checksums
// of its own. Where it does not work the image is only slower.
func noCopyOnWrite(f *os.File) {
	const fsNoCopyOnWrite = 0x00800000 // FS_NOCOW_FL
	fd := int(f.Fd())
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.BTRFS_SUPER_MAGIC {
		return
	}
	if flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|fsNoCopyOnWrite)
	}
}

// findMkfs looks also where PATH often does not.
func findMkfs() (string, error) {
	for _, name := range []string{"mkfs.btrfs", "/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", ErrNoTool
}

func runMkfs(ctx context.Context, mkfs, path string, o CreateOptions) error {
	// The image is new: there is nothing to discard. Small file systems could
	// mix data and metadata, but would stay mixed when they have grown.
	args := []string{"--quiet", "--nodiscard", "--data", "single", "--metadata", "dup", "--uuid", o.UUID}
	if o.Label != "" {
		args = append(args, "--label="+o.Label)
	}
	cmd := exec.CommandContext(ctx, mkfs, append(args, "--", path)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("mkfs.btrfs: %w: %s", err, lastLine(out.String()))
	}
	return nil
}

// lastLine is where programs say why they ended.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
