package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
)

// ErrEmpty says that a docker volume has no file in it and therefore is not
// backed up.
var ErrEmpty = fmt.Errorf("%w: the volume is empty", snapshot.ErrRefused)

// errSome ends a walk.
var errSome = errors.New("something is there")

// isEmpty tells whether a volume's directory has nothing but empty directories
// in it, what s4 or mkfs put there, and what stays out of backups.
func isEmpty(ctx context.Context, dir string, exclude []string) (bool, error) {
	out, err := pathspec.NewExclusion(exclude)
	if err != nil {
		return false, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, fmt.Errorf("look into the volume: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read
	err = walkData(ctx, root, func(name string, e fs.DirEntry) error {
		if name != "." && out.Match(name, e.IsDir()) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() || strings.HasPrefix(name, atomicfile.TempPrefix) {
			return nil
		}
		return errSome
	})
	if errors.Is(err, errSome) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look into the volume: %w", err)
	}
	return true, nil
}

// walkData visits what is in a volume but for what is ours.
func walkData(ctx context.Context, root *os.Root, visit func(name string, e fs.DirEntry) error) error {
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
			return nil
		case err != nil:
			return err
		case e.IsDir() && ours(name):
			return fs.SkipDir
		}
		return visit(name, e)
	})
}

// ours tells whether a path below the root of a volume is no data of a service.
func ours(name string) bool { return name == ".s4" || name == DumpDir || name == "lost+found" }
