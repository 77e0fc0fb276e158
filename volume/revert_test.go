package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/s4-storage/s4/btrfsvol"
)

// Going back in one step keeps what was there and every snapshot.
func TestRevert(t *testing.T) {
	v := onBtrfs(t)
	file := filepath.Join(v.Root, "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		data, _ := os.ReadFile(file)
		return string(data)
	}
	if _, _, err := v.Revert(t.Context(), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a snapshot: %v", err)
	}
	write("one")
	first, err := v.SnapshotChanges(t.Context(), "")
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	if again, err := v.SnapshotChanges(t.Context(), ""); again != nil || err != nil {
		t.Errorf("nothing has changed, and yet: %v, %v", again, err)
	}
	write("two")
	if second, err := v.SnapshotChanges(t.Context(), ""); second == nil || err != nil {
		t.Errorf("a change is not kept: %v", err)
	}
	write("three")
	to, before, err := v.Revert(t.Context(), first.Snapshot.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if read() != "one" || to.Dir != first.Snapshot.Dir {
		t.Errorf("read %q, back to %v", read(), to)
	}
	if info, err := btrfsvol.Info(v.Root); err != nil || info.ReadOnly {
		t.Errorf("not writable: %v, %v", info, err)
	}
	write("four")
	if held, err := v.store().List(t.Context()); err != nil || len(held) != 3 {
		t.Errorf("held: %v, %v", held, err)
	}
	if names, err := filepath.Glob(filepath.Join(filepath.Dir(v.Root), ".*")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if _, _, err := v.Revert(t.Context(), before.Dir); err != nil || read() != "three" {
		t.Errorf("forth again: %q, %v", read(), err)
	}
	if id := v.ID(); id == "" {
		t.Error("it has lost its id")
	}
}
