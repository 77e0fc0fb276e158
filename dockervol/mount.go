package dockervol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/volume"
)

// Mount mounts the volume, and has it kept from then on.
func (b *Backend) Mount(ctx context.Context, v dockerplugin.Volume) (string, error) {
	if err := b.endRestore(ctx, v); err != nil {
		return "", err
	}
	if err := b.attach(ctx, v, liveDir(v)); err != nil {
		return "", err
	}
	at, err := b.mountFor(ctx, v)
	if err != nil {
		// One that is in use already is not taken away from its users.
		if b.keeper(v) == nil {
			err = errors.Join(err, b.unmount(context.WithoutCancel(ctx), v))
		}
		return "", err
	}
	b.keep(v)
	return at, nil
}

// mountFor mounts what containers see.
func (b *Backend) mountFor(ctx context.Context, v dockerplugin.Volume) (string, error) {
	if v.Options.History {
		if k := b.keeper(v); k != nil { // which may be about to do the same
			k.mounting.Lock()
			defer k.mounting.Unlock()
		}
		return historyDir(v), b.mountHistory(ctx, v)
	}
	if err := b.attach(ctx, v, dataDir(v)); err != nil {
		return "", err
	}
	if err := share(dataDir(v)); err != nil {
		return "", err
	}
	return dataDir(v), cover(dataDir(v))
}

// share has what will be mounted in a mount from now on appear also where
// containers have it. Docker mounts volumes for them as slaves of it.
func share(dir string) error {
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the mount at %s: %w", dir, err)
	}
	return nil
}

// hide makes an empty .s4 and covers it, so that containers never see what will
// be in it, not even those that run already.
func (b *Backend) hide(v dockerplugin.Volume) error {
	if v.Options.History {
		return nil
	}
	if err := os.Mkdir(filepath.Join(liveDir(v), volume.Dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return cover(dataDir(v))
}

// attach mounts the live tree in a directory, which is made.
func (b *Backend) attach(ctx context.Context, v dockerplugin.Volume, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return record(v, dir).Attach(ctx, b.log)
}

// cover hides what is in .s4, where there is one.
func cover(data string) error {
	at := filepath.Join(data, volume.Dir)
	var here, above unix.Stat_t
	if err := unix.Lstat(at, &here); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cover %s: %w", at, err)
	}
	if err := unix.Lstat(data, &above); err != nil {
		return fmt.Errorf("cover %s: %w", at, err)
	}
	if here.Mode&unix.S_IFMT != unix.S_IFDIR || here.Dev != above.Dev {
		return nil // covered already
	}
	// The open directory is the one that was looked at: containers write here.
	fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cover %s: %w", at, err)
	}
	defer unix.Close(fd) //nolint:errcheck // opened for its path alone
	// Not read-only: to give it to somebody else must not fail.
	err = unix.Mount("s4", fmt.Sprintf("/proc/self/fd/%d", fd), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755,size=64k,nr_inodes=16")
	if err != nil {
		return fmt.Errorf("cover %s: %w", at, err)
	}
	return nil
}

// Unmount ends the keeper with a last push, and unmounts the volume.
func (b *Backend) Unmount(ctx context.Context, v dockerplugin.Volume) error {
	if k := b.letGo(v); k != nil {
		k.stop()
		b.lastPush(ctx, v)
		b.noteStatus(ctx, v)
	}
	return b.unmount(ctx, v)
}

// unmount takes away whatever is mounted in the volume's directory.
func (b *Backend) unmount(ctx context.Context, v dockerplugin.Volume) error {
	if err := unmountHistory(ctx, v); err != nil {
		return err
	}
	if err := uncover(dataDir(v)); err != nil {
		return err
	}
	if err := record(v, liveDir(v)).Release(ctx); err != nil {
		return err
	}
	for _, dir := range []string{sourceDir(v), dataDir(v), liveDir(v)} {
		// The process of a mount with history may take a moment to end.
		err := patiently(ctx, func(err error) bool { return errors.Is(err, unix.EBUSY) },
			func() error { return loop.Unmount(ctx, dir) })
		if err != nil && !errors.Is(err, loop.ErrNotMounted) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// uncover undoes cover.
func uncover(data string) error {
	at := filepath.Join(data, volume.Dir)
	covered := func() bool {
		var st unix.Statfs_t
		return unix.Statfs(at, &st) == nil && st.Type == unix.TMPFS_MAGIC
	}
	for covered() {
		if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); errors.Is(err, unix.EINVAL) {
			return nil // nothing is mounted: the directory itself lies on a tmpfs
		} else if err != nil {
			return fmt.Errorf("uncover %s: %w", at, err)
		}
	}
	return nil
}
