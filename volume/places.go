package volume

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/xdg"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// The index and the stamps are sqlite databases. They need a path that stays
// the same while a mount covers the volume, so they lie outside it: the index
// in the user's cache directory, the stamps in the state directory. Where
// those are themselves inside the volume (a home directory is one), both go to
// .s4/local, and then the volume cannot be covered.

// indexPath is where the volume's index is: one for all working trees of the
// volume on this host.
func (v *Volume) indexPath() string {
	if v.holdsUserDirs() {
		return v.path(LocalDir, "index.db")
	}
	return indexFile(v.ID())
}

// stampsPath is where the stamps of this working tree are, named by the root
// directory's inode so that renaming the directory does not lose them. All
// subvolumes' roots have the same; those are named by the UUID of .s4/local.
func (v *Volume) stampsPath() (string, error) {
	if v.holdsUserDirs() {
		return v.path(LocalDir, "stamps.db"), nil
	}
	if local, err := btrfsvol.Info(v.path(LocalDir)); v.subvolume && err == nil {
		return filepath.Join(xdg.State(), "stamps", fmt.Sprintf("%s-%s.db", v.ID(), local.UUID)), nil
	}
	info, err := os.Stat(v.Root)
	if err != nil {
		return "", fmt.Errorf("open volume: %w", err)
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	name := fmt.Sprintf("%s-%x.db", v.ID(), inode)
	return filepath.Join(xdg.State(), "stamps", name), nil
}

func (v *Volume) holdsUserDirs() bool {
	return contains(v.Shown, xdg.Cache()) || contains(v.Shown, xdg.State())
}

// mayCover refuses to mount over a volume whose index lies in it.
func (v *Volume) mayCover() error {
	if !v.holdsUserDirs() {
		return nil
	}
	return hint.With(fmt.Errorf("%w: s4's own files for this user are inside the volume, and a mount over it would cover them", snapshot.ErrRefused),
		"mount beside it with: s4 mount MOUNTPOINT, or set XDG_CACHE_HOME and XDG_STATE_HOME to places outside")
}

// indexFile is the index in the user's cache directory for a volume or
// repository with that id.
func indexFile(id string) string { return filepath.Join(xdg.Cache(), "index", id+".db") }

// openIndex opens the index in that file, making its directory.
func openIndex(ctx context.Context, path string, log *slog.Logger) (*index.Index, error) {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		var ix *index.Index
		if ix, err = index.Open(ctx, path, log); err == nil {
			return ix, nil
		}
	}
	return nil, hint.With(fmt.Errorf("open index: %w", err), "s4 keeps it below XDG_CACHE_HOME, which must be writable and have room")
}

// openStamps opens the stamps in that file, making its directory.
func openStamps(ctx context.Context, path string, log *slog.Logger) (*worktree.Stamps, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open stamps: %w", err)
	}
	return worktree.OpenStamps(ctx, path, log)
}
