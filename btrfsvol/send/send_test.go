package send

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/btrfstest"
)

// snapshot makes a read-only snapshot with that many files, and opens it.
func snapshot(t *testing.T, files int) *os.File {
	t.Helper()
	dir := btrfstest.New(t)
	vol, snap := filepath.Join(dir, "vol"), filepath.Join(dir, "snap")
	btrfs(t, "subvolume", "create", vol)
	for i := range files {
		if err := os.WriteFile(filepath.Join(vol, fmt.Sprint("file", i)), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	btrfs(t, "subvolume", "snapshot", "-r", vol, snap)
	f, err := os.Open(snap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func btrfs(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "btrfs", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestRun(t *testing.T) {
	const files = 3000
	snap := snapshot(t, files)
	for _, o := range []Options{{}, {Version: 2}, {NoData: true}, {NoData: true, Version: 2}} {
		made, content := 0, 0
		err := Run(t.Context(), snap, o, func(c *Command) error {
			switch c.Kind {
			case MkFile:
				made++
			case Write:
				content += len(c.Data)
			case UpdateExtent:
				content += int(c.Size)
			}
			return nil
		})
		if err != nil || made != files || content != files*len("content") {
			t.Errorf("%+v: %d files, %d bytes, %v", o, made, content, err)
		}
	}
}

// The kernel is stopped where nobody reads on.
func TestRunStops(t *testing.T) {
	snap := snapshot(t, 3000)
	mine := errors.New("mine")
	if err := Run(t.Context(), snap, Options{}, func(*Command) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("the callback's error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	commands := 0
	start := time.Now()
	err := Run(ctx, snap, Options{}, func(*Command) error {
		if commands++; commands == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || time.Since(start) > 5*time.Second {
		t.Errorf("cancelled: %v after %v", err, time.Since(start))
	}
	if err := Run(ctx, snap, Options{}, func(*Command) error { t.Error("called"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	// What is sent is free again, so that it can be deleted.
	btrfs(t, "subvolume", "delete", snap.Name())
}

func TestRunErrors(t *testing.T) {
	snap := snapshot(t, 1)
	vol, err := os.Open(filepath.Join(filepath.Dir(snap.Name()), "vol"))
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	elsewhere, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		of   *os.File
		o    Options
		want error
	}{
		"writable":       {vol, Options{}, fs.ErrPermission},
		"no such parent": {snap, Options{Parent: 99999}, fs.ErrNotExist},
		"not btrfs":      {elsewhere, Options{}, unix.ENOTTY},
		"version 99":     {snap, Options{Version: 99}, unix.EPROTO},
	} {
		if err := Run(t.Context(), c.of, c.o, func(*Command) error { return nil }); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signal while the kernel waits for the reader would make it begin again in
// the middle of the stream.
func TestRunSignals(t *testing.T) {
	const files = 3000
	snap := snapshot(t, files)
	made, commands := 0, 0
	err := Run(t.Context(), snap, Options{}, func(c *Command) error {
		if c.Kind == MkFile {
			made++
		}
		if commands++; commands%1000 == 1 {
			waitForWriter(t)
			threads, err := os.ReadDir("/proc/self/task")
			if err != nil {
				return err
			}
			for _, thread := range threads {
				tid, _ := strconv.Atoi(thread.Name())
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // one that Go expects
			}
		}
		return nil
	})
	if err != nil || made != files {
		t.Errorf("%d files, %v", made, err)
	}
}

// waitForWriter waits until a thread of this process sleeps in an ioctl: the
// pipe is full. At the stream's end it may have nothing to write any more.
func waitForWriter(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		threads, _ := filepath.Glob("/proc/self/task/*/syscall")
		for _, thread := range threads {
			if call, _ := os.ReadFile(thread); strings.HasPrefix(string(call), fmt.Sprint(unix.SYS_IOCTL, " ")) {
				return
			}
		}
	}
}
