package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// DefaultSocket is where the engine looks for a driver named s4.
const DefaultSocket = "/run/docker/plugins/s4.sock"

// Listen opens the socket that the engine calls. One that systemd opened
// (sd_listen_fds(3)) is taken; path is for all other cases. A socket that was
// left there and nobody answers is replaced: it would make the engine wait.
// With somebody who answers the error is snapshot.ErrLocked. Closing the
// listener removes the socket, unless it is systemd's.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if l, err := inherited(); l != nil || err != nil {
		return l, err
	}
	l, err := listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open the socket %s: %w", path, err)
	}
	return l, nil
}

// inherited is the socket that systemd passed, or nil.
func inherited() (net.Listener, error) {
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil
	}
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || count != 1 {
		return nil, fmt.Errorf("systemd passed %s sockets, not one", os.Getenv("LISTEN_FDS"))
	}
	const first = 3 // SD_LISTEN_FDS_START
	f := os.NewFile(first, "systemd's socket")
	defer f.Close()
	l, err := net.FileListener(f) // with a descriptor of its own, closed on exec
	if err != nil {
		return nil, fmt.Errorf("take over systemd's socket: %w", err)
	}
	return l, nil
}

func listen(ctx context.Context, path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%w: there is something that is no socket", snapshot.ErrRefused)
	default:
		dialer := net.Dialer{Timeout: 5 * time.Second}
		if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("%w: another driver answers there", snapshot.ErrLocked)
		} else if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	// It gets its name when it has its mode and can answer. The engine takes
	// any socket for a driver, but does not look into such a directory.
	hidden, err := os.MkdirTemp(dir, ".s4-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(hidden) }()
	first := filepath.Join(hidden, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: first, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(first, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if info, err = os.Lstat(first); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := os.Rename(first, path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &socket{UnixListener: l, path: path, info: info}, nil
}

// socket removes its file when it is closed.
type socket struct {
	*net.UnixListener
	path string
	info fs.FileInfo
}

func (s *socket) Close() error {
	// Another driver's is left alone.
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.info) {
		if err := os.Remove(s.path); err != nil {
			return errors.Join(err, s.UnixListener.Close())
		}
	}
	return s.UnixListener.Close()
}
