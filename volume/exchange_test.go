package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/snapshot"
)

// onBtrfs makes a volume of a new subvolume.
func onBtrfs(t *testing.T) *Volume {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	root := filepath.Join(btrfstest.New(t), "v")
	if err := btrfsvol.Create(root); err != nil {
		t.Fatal(err)
	}
	v, _, err := Init(root, InitOptions{}, testVolume(t).access)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// A process that is killed between the exchange and the moves that follow it
// loses nothing: whoever opens the volume next finishes them.
func TestExchangeIsFinishedByTheNext(t *testing.T) {
	v := onBtrfs(t)
	if _, err := v.Snapshot(t.Context(), "precious"); err != nil {
		t.Fatal(err)
	}
	if err := v.state.save(); err != nil {
		t.Fatal(err)
	}
	next, err := v.newStage(v.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(next.path, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, next.path, unix.AT_FDCWD, next.live, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if err := next.drop(); !errors.Is(err, snapshot.ErrRefused) {
		t.Fatalf("what still has snapshots in it is dropped: %v", err)
	}
	again, err := Open(v.Root, v.access)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	held, err := again.store().List(t.Context())
	if err != nil || len(held) != 1 || held[0].Message != "precious" {
		t.Errorf("snapshots: %v, %v", held, err)
	}
	for _, path := range []string{"new", LocalDir + "/state.json", LocalDir + "/lock"} {
		if _, err := os.Stat(again.path(path)); err != nil {
			t.Error(err)
		}
	}
	if err := next.drop(); err != nil {
		t.Error(err)
	}
}

func TestExchangeRefusesWhatWasChangedMeanwhile(t *testing.T) {
	v := onBtrfs(t)
	next, err := v.newStage(v.Root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.path("mine"), []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := v.exchange(next); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("exchanged over a change: %v", err)
	}
	if err := next.drop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(v.path("mine")); err != nil {
		t.Error(err)
	}
}

// Where something holds on to the root, it stays.
func TestExchangeable(t *testing.T) {
	v := onBtrfs(t)
	if _, release, ok := v.exchangeable(t.Context()); !ok {
		t.Error("a plain subvolume is not")
	} else {
		release()
	}
	done, err := v.mounted()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := v.exchangeable(t.Context()); ok {
		t.Error("one that is mounted is")
	}
	done()
	if err := btrfsvol.Create(v.path("nested")); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := v.exchangeable(t.Context()); ok {
		t.Error("one with a subvolume in it is")
	}
}

// A volume that came to btrfs with a plain .s4/local gets a subvolume for it, with
// all that was in it, once nobody works there.
func TestLocalIsNested(t *testing.T) {
	v := onBtrfs(t)
	local := v.path(LocalDir)
	if err := os.Rename(local, v.path("aside")); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"state.json": "{}", "lock": "", "replaced/old/file": "precious"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(local, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(local, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	busy, err := takeLock(t.Context(), filepath.Join(local, "lock"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeLocal(v.Root); err != nil {
		t.Fatal(err)
	}
	if is, err := IsBtrfs(local); err != nil || is {
		t.Errorf("it was taken from under another process: %v", err)
	}
	busy.Close()
	if err := v.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if is, err := IsBtrfs(local); err != nil || !is {
		t.Errorf("it is no subvolume: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(local, "replaced/old/file")); err != nil || string(data) != "precious" {
		t.Errorf("what was in it: %q, %v", data, err)
	}
	if _, err := os.Lstat(v.path(newLocal)); err == nil {
		t.Error("the old one is still there")
	}
}
