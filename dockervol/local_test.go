package dockervol

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/image"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/volume"
)

// A driver that is killed right when a snapshot and the live tree have changed
// places has the next mount finish it: no snapshot is lost.
func TestRestoreIsFinishedByTheNextMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("images need root")
	}
	t.Setenv("HOME", t.TempDir())
	for _, name := range []string{"XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	access, err := reach.NewAccess(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := New(Config{Access: access})
	defer b.Close()
	ctx := t.Context()
	v := dockerplugin.Volume{Name: "db", Dir: t.TempDir(), Options: dockerplugin.Options{Size: 200 << 20, Autogrow: dockerplugin.NoGrowth}}
	if _, err := b.Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Delete(context.Background(), v); err != nil {
			t.Error(err)
		}
	})
	use := func(do func(at string)) {
		t.Helper()
		at, err := b.Mount(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		do(at)
		if err := b.Unmount(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"old", "new"} {
		use(func(at string) {
			if err := os.WriteFile(filepath.Join(at, "file"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	// As far as Restore comes before it is killed.
	if err := os.WriteFile(restoringPath(v), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = record(v, liveDir(v)).WithTop(ctx, b.log, func(top string) error {
		live, beside := filepath.Join(top, image.Subvolume), filepath.Join(top, "."+image.Subvolume+".s4-sync")
		own, err := volume.Open(live, access)
		if err != nil {
			return err
		}
		defer own.Close()
		_, from, err := own.HeldHere(ctx, "latest~1")
		if err == nil {
			err = btrfsvol.Snapshot(from, beside, false)
		}
		if err == nil {
			err = unix.Renameat2(unix.AT_FDCWD, beside, unix.AT_FDCWD, live, unix.RENAME_EXCHANGE)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	use(func(at string) {
		if got, err := os.ReadFile(filepath.Join(at, "file")); string(got) != "old" {
			t.Errorf("read %q, %v", got, err)
		}
		status, err := b.Status(ctx, v)
		if n, ok := status["snapshots"].(int); err != nil || !ok || n < 2 {
			t.Errorf("%v, %v", status, err)
		}
	})
	if _, err := os.Lstat(restoringPath(v)); err == nil {
		t.Error("it is not over")
	}
}
