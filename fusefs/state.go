package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/mountinfo"
	"golang.org/x/sys/unix"
)

// MountState is what is mounted at a directory.
type MountState int

// What may be mounted at a directory.
const (
	NotMounted   MountState = iota
	MountedAlive            // ours, and it answers
	MountedStale            // ours, but its process is gone: "Transport endpoint is not connected"
	MountedOther            // some other file system
)

func (s MountState) String() string {
	switch s {
	case NotMounted:
		return "not mounted"
	case MountedAlive:
		return "mounted"
	case MountedStale:
		return "stale"
	default:
		return "another file system"
	}
}

// State tells what is mounted at a directory, the topmost if several are.
func State(mountpoint string) (MountState, error) {
	path, err := resolveMountpoint(mountpoint)
	if err != nil {
		return NotMounted, err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return NotMounted, fmt.Errorf("read mounts: %w", err)
	}
	switch _, kind := mountedAt(string(table), path); kind {
	case "":
		return NotMounted, nil
	case "fuse." + fsType:
	default:
		return MountedOther, nil
	}
	var st unix.Statfs_t
	err = unix.Statfs(path, &st)
	switch {
	case err == nil:
		return MountedAlive, nil
	case errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED):
		return MountedStale, nil
	default:
		return NotMounted, fmt.Errorf("look at mount %s: %w", path, err)
	}
}

// mountedAt finds the last file system mounted at path: its device number, as
// MAJOR:MINOR, and its type, "" if there is none.
func mountedAt(table, path string) (device, kind string) {
	for line := range strings.Lines(table) {
		if m, ok := mountinfo.Parse(line); ok && m.Dir == path {
			device, kind = m.Device, m.Type
		}
	}
	return device, kind
}

// resolveMountpoint makes a path absolute and free of links without touching
// the last element, which may be a stale mount.
func resolveMountpoint(mountpoint string) (string, error) {
	path, err := filepath.Abs(mountpoint)
	if err != nil || path == "/" {
		return path, err
	}
	if full, err := filepath.EvalSymlinks(path); err == nil {
		return full, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("mount point: %w", err)
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

// unmountTime is how long the helper may take.
const unmountTime = 30 * time.Second

// Unmount takes away the topmost mount at a directory, stale or alive. Lazily
// it goes at once from the directory, and wholly when its last user is done.
// A mount in use gives EBUSY.
func Unmount(mountpoint string, lazy bool) error {
	path, err := resolveMountpoint(mountpoint)
	if err != nil {
		return err
	}
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err = unix.Unmount(path, flags)
	if !errors.Is(err, syscall.EPERM) {
		return unmountError(path, err)
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	ctx, stop := context.WithTimeout(context.Background(), unmountTime)
	defer stop()
	cmd := exec.CommandContext(ctx, "fusermount3", append(args, "--", path)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	if err != nil && strings.Contains(stderr.String(), "busy") {
		return unmountError(path, syscall.EBUSY)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w: %s", path, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

func unmountError(path string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("unmount %s: %w", path, err)
	if errors.Is(err, syscall.EBUSY) {
		return hint.With(wrapped, fmt.Sprintf("leave it first (fuser -vm %q tells who is in it), or s4 umount --lazy", path))
	}
	return wrapped
}
