package dockervol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// A mount with history is a process, and a process can die: by the kernel, for
// want of memory. What it had mounted then gives errors for good, in each
// container. It is not taken away, since nothing could be put in its place there:
// the mount of the next process covers it, which containers see, as what they
// have is a slave of it (see share). All of them go when the volume is unmounted.

// mountHistory sees to it that s4's own mount shows the live tree and the past.
func (b *Backend) mountHistory(ctx context.Context, v dockerplugin.Volume) error {
	for _, dir := range []string{servedDir(v), historyDir(v)} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	switch state, err := fusefs.State(historyDir(v)); {
	case err != nil:
		return err
	case state == fusefs.MountedAlive:
		return nil
	case state == fusefs.MountedOther:
		return fmt.Errorf("%w: something else is mounted at %s", snapshot.ErrRefused, historyDir(v))
	}
	if err := b.serve(ctx, v); err != nil {
		return err
	}
	if err := unix.Mount(servedDir(v), historyDir(v), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show the volume with its history at %s: %w", historyDir(v), err)
	}
	return share(historyDir(v))
}

// serve starts the process, unless it runs.
func (b *Backend) serve(ctx context.Context, v dockerplugin.Volume) error {
	switch state, err := fusefs.State(servedDir(v)); {
	case err != nil:
		return err
	case state == fusefs.MountedAlive:
		return nil
	}
	if err := b.settle(v); err != nil {
		return err
	}
	// It clears a dead mount away there, and returns when its own answers; the
	// rest is a process of its own.
	cmd := exec.CommandContext(ctx, b.program, "-C", liveDir(v), "--quiet", "mount", "--allow-other", servedDir(v))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // that process may have stderr, too
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("show the volume with its history: %w: %s", err, strings.TrimSpace(strings.ReplaceAll(stderr.String(), "\n", "; ")))
	}
	return nil
}

// unmountHistory takes away all that mountHistory has mounted.
func unmountHistory(ctx context.Context, v dockerplugin.Volume) error {
	for _, dir := range []string{historyDir(v), servedDir(v)} {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for {
			err := patiently(ctx, func(err error) bool { return errors.Is(err, snapshot.ErrLocked) },
				func() error { return volume.Umount(dir, false) })
			if errors.Is(err, fs.ErrNotExist) { // nothing is mounted there any more
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// watch renews the mount with history when its process has died.
func (k *keeper) watch(ctx context.Context) {
	for pause := time.Second; ; {
		err := served(ctx, historyDir(k.v))
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			k.b.log.Error("the process of a mount with history has died", "volume", k.v.Name)
			k.mounting.Lock()
			err = k.b.mountHistory(ctx, k.v)
			k.mounting.Unlock()
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			k.say("history", "renewed at "+clock(time.Now())+", after its process had died: what was open then gives errors until it is opened again")
			k.b.log.Warn("the mount with history is renewed; containers see it, but what they had open gives errors until it is opened again", "volume", k.v.Name)
			pause = time.Second
			continue
		}
		k.say("history", "not there: "+err.Error())
		k.b.log.Error("the mount with history is not renewed", "volume", k.v.Name, "err", err, "again_in", pause)
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, retryMost)
	}
}

// served returns nil when the process has ended that serves the mount at dir.
// Else the error tells why that cannot be known; ctx may have ended.
func served(ctx context.Context, dir string) error {
	root, err := rootOf(dir)
	if err != nil {
		return err
	}
	if root == "" {
		return nil
	}
	var pid int
	if _, err := fmt.Sscanf(root, "/proc/%d/fd/", &pid); err != nil {
		return fmt.Errorf("process of the mount at %s: %q: %w", dir, root, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that it can be waited for without a thread
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	process := os.NewFile(uintptr(fd), "process "+strconv.Itoa(pid))
	defer process.Close()
	// The number may have become another's before it was opened.
	if again, err := rootOf(dir); err != nil || again != root {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = process.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := process.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// rootOf is the directory below the mount at dir, or "" where that is dead.
func rootOf(dir string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Getxattr(dir, fusefs.XattrRoot, buf)
	if volume.LostMount(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("process of the mount at %s: %w", dir, err)
	}
	return string(buf[:n]), nil
}
