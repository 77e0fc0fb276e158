package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// A volume that is a subvolume can be brought to another snapshot in one step:
// what is to come is built beside it, in a writable snapshot of it, and then the
// two change places. Whoever opens a file sees the old version or the new one,
// never something in between. What was there stays as a btrfs snapshot.
//
// The subvolumes inside .s4 stay with the volume. They are moved after the
// exchange; a process that is killed in between leaves that to the next one
// which needs them (see rescue).

// stage is the subvolume in which the next version is built.
type stage struct {
	live, path string // of the volume's root, and of the subvolume beside it
}

// stageBeside is where a volume whose root is at that path builds.
func stageBeside(root string) string {
	return filepath.Join(filepath.Dir(root), "."+filepath.Base(root)+".s4-sync")
}

// exchangeable tells whether the volume's root can change places with another
// subvolume: it is not mounted, and no process of ours holds on to it.
func (v *Volume) exchangeable(ctx context.Context) (live string, release func(), ok bool) {
	live = Resolved(v.Shown)
	if !v.subvolume || !sameFile(live, v.Root) || v.runs("replicate") {
		return "", nil, false
	}
	if others, err := v.nested(); err != nil || len(others) > 0 {
		return "", nil, false
	}
	here, errHere := os.Stat(filepath.Dir(live))
	if errHere != nil || !here.IsDir() {
		return "", nil, false
	}
	release, err := v.OnlyOne(ctx, mountJob)
	return live, release, err == nil
}

// newStage makes the place to build in. Errors: unix.EXDEV and unix.EBUSY where
// the volume is the root of a mount.
func (v *Volume) newStage(live string) (*stage, error) {
	s := &stage{live: live, path: stageBeside(live)}
	if err := s.drop(); err != nil {
		return nil, fmt.Errorf("clear away what an interrupted sync left: %w", err)
	}
	if err := btrfsvol.Snapshot(live, s.path, false); err != nil {
		return nil, fmt.Errorf("make a place to build the next version: %w", err)
	}
	return s, nil
}

// drop deletes the stage, or after an exchange what was there before.
func (s *stage) drop() error {
	inside, err := btrfsvol.Nested(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(inside) > 0 { // never delete snapshots along with it
		err = fmt.Errorf("%w: %s has the subvolume %s in it", snapshot.ErrRefused, s.path, inside[0])
	}
	if err == nil {
		err = btrfsvol.Delete(s.path)
	}
	return err
}

// exchange puts the stage in the volume's place. What was changed in the live
// tree since the stage was made is snapshot.ErrRefused.
func (v *Volume) exchange(s *stage) error {
	if err := btrfsvol.Sync(s.live); err != nil {
		return err
	}
	same, err := btrfsvol.Untouched(s.live, s.path)
	if err != nil {
		return err
	}
	if !same {
		return hint.With(fmt.Errorf("%w: the volume was changed meanwhile", snapshot.ErrRefused), "see what with: s4 status")
	}
	if err := unix.Renameat2(unix.AT_FDCWD, s.path, unix.AT_FDCWD, s.live, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("put the new version in place: %w", err)
	}
	if err := rescue(s.live); err != nil {
		return err
	}
	return v.moveTo(s.live)
}

// rescue moves what is this host's own from the subvolume beside root, which was
// the volume until an exchange, into the one that is the volume now. Where there
// is nothing to move it does nothing.
func rescue(root string) error {
	if _, err := btrfsvol.Info(filepath.Join(root, LocalDir)); err == nil {
		if _, err := btrfsvol.Info(filepath.Join(root, SnapshotsDir)); err == nil {
			return nil // it has all that there can be
		}
	}
	old := stageBeside(Resolved(root))
	for _, name := range []string{LocalDir, SnapshotsDir} {
		from, to := filepath.Join(old, name), filepath.Join(root, name)
		if _, err := btrfsvol.Info(from); err != nil {
			continue
		}
		if _, err := btrfsvol.Info(to); err == nil {
			continue // the stage of a sync that did not come to its exchange
		}
		if err := unix.Rmdir(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("move %s to the new version: %w", name, err)
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("move %s to the new version: %w", name, err)
		}
	}
	return nil
}
