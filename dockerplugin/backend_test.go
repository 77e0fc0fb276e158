package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dirs is a small backend: a volume is the directory data in its own one, and
// is mounted by a bind mount beside it. A remote is a directory that has one
// for each volume.
//
// Its files of control make it do things at a step: hold-STEP makes it wait
// until the file is gone, crash-STEP kills the process as kill -9 does (once),
// fail-STEP makes it fail with the file's content. It leaves at-STEP for who
// waits for it.
type dirs struct {
	control string
	plain   bool // mounts nothing: data is used as it is
}

var _ Backend = (*dirs)(nil)

func (b *dirs) step(ctx context.Context, step string) error {
	file := func(what string) string { return filepath.Join(b.control, what+"-"+step) }
	if err := os.WriteFile(file("at"), nil, 0o600); err != nil {
		return err
	}
	if os.Remove(file("crash")) == nil {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	for exists(file("hold")) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", step, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	if text, err := os.ReadFile(file("fail")); err == nil {
		return errors.New(string(text))
	}
	if os.Remove(file("panic")) == nil {
		panic("as told")
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (b *dirs) Create(ctx context.Context, v Volume) (bool, error) {
	if err := b.step(ctx, "create"); err != nil {
		return false, err
	}
	if err := errors.Join(os.Mkdir(filepath.Join(v.Dir, "data"), 0o755), os.Mkdir(filepath.Join(v.Dir, "mnt"), 0o700)); err != nil {
		return false, err
	}
	fills := false
	if v.Options.Remote != "" {
		if _, err := os.Stat(v.Options.Remote); err != nil {
			return false, fmt.Errorf("remote cannot be reached: %w", err)
		}
		fills = exists(filepath.Join(v.Options.Remote, v.Name))
	}
	return fills, b.step(ctx, "created")
}

func (b *dirs) Mount(ctx context.Context, v Volume) (string, error) {
	if err := b.step(ctx, "mount"); err != nil {
		return "", err
	}
	data, at := filepath.Join(v.Dir, "data"), filepath.Join(v.Dir, "mnt")
	if b.plain {
		return data, b.step(ctx, "mounted")
	}
	if !b.mounted(v) {
		if err := unix.Mount(data, at, "", unix.MS_BIND, ""); err != nil {
			return "", err
		}
	}
	return at, b.step(ctx, "mounted")
}

func (b *dirs) mounted(v Volume) bool {
	at, _ := mountedBelow(v.Dir)
	return at != ""
}

func (b *dirs) Unmount(ctx context.Context, v Volume) error {
	if err := b.step(ctx, "unmount"); err != nil {
		return err
	}
	for b.mounted(v) {
		if err := unix.Unmount(filepath.Join(v.Dir, "mnt"), 0); err != nil {
			return err
		}
	}
	return b.step(ctx, "unmounted")
}

func (b *dirs) Delete(ctx context.Context, v Volume) error {
	if err := b.step(ctx, "delete"); err != nil {
		return err
	}
	return b.Unmount(ctx, v)
}

func (b *dirs) Fill(ctx context.Context, v Volume, report func(Progress)) error {
	source := filepath.Join(v.Options.Remote, v.Name)
	var done int64
	return filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(v.Dir, "data", e.Name()), data, 0o644); err != nil {
			return err
		}
		done += int64(len(data))
		report(Progress{done, 2 * done})
		return b.step(ctx, "fill")
	})
}

func (b *dirs) Status(ctx context.Context, v Volume) (map[string]any, error) {
	return map[string]any{"remote": v.Options.Remote, "snapshots": 3}, b.step(ctx, "status")
}

func (b *dirs) Exchange(_ context.Context, one, two Volume) error {
	return unix.Renameat2(unix.AT_FDCWD, filepath.Join(one.Dir, "data"), unix.AT_FDCWD, filepath.Join(two.Dir, "data"), unix.RENAME_EXCHANGE)
}

// Restore and Resize leave behind what they were asked for.
func (b *dirs) Restore(_ context.Context, v Volume, when string) (Restored, error) {
	if b.mounted(v) {
		return Restored{}, errors.New("it is mounted")
	}
	return Restored{To: when, Before: "now"}, os.WriteFile(filepath.Join(v.Dir, "data", "restored"), []byte(when), 0o644)
}

func (b *dirs) Resize(ctx context.Context, v Volume, size string) error {
	_, err := b.Mount(ctx, v)
	return errors.Join(err, os.WriteFile(filepath.Join(v.Dir, "data", "size"), []byte(size), 0o644))
}

// tell makes control files; such as "hold-mount", or "fail-fill=the text".
func (b *dirs) tell(t testing.TB, files ...string) {
	t.Helper()
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		if err := os.WriteFile(filepath.Join(b.control, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// release takes control files away.
func (b *dirs) release(t testing.TB, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.Remove(filepath.Join(b.control, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// reached waits until the backend is at a step.
func (b *dirs) reached(t testing.TB, step string) {
	t.Helper()
	eventually(t, "the backend comes to "+step, func() bool { return exists(filepath.Join(b.control, "at-"+step)) })
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
