package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/mountinfo"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// Converted is a folder that has become a subvolume.
type Converted struct {
	Record   *Record // nil where the disk itself is btrfs
	Original string  // where the folder is that was; "" where it was one already
	dir      string
}

// Convert makes an existing folder a btrfs subvolume: on btrfs by a subvolume
// that shares its data, where no size is given; else by an image. The original
// stays, see [Converted.DropOriginal].
//
// Errors: snapshot.ErrRefused where something is mounted in the folder, where a
// program writes to it meanwhile, or where the original's new name is taken;
// those of [loop.Create] and [loop.Mount]. After an error the folder is where it was;
// what was written to the copy while that stood in its place lies beside it, as the
// error tells.
func Convert(ctx context.Context, dir string, o Options) (*Converted, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := convertible(dir); err != nil {
		return nil, err
	}
	c := &Converted{Original: dir + ".s4-original", dir: dir}
	if _, err := os.Lstat(c.Original); !errors.Is(err, fs.ErrNotExist) {
		return nil, hint.With(fmt.Errorf("%w: %s is in the way", snapshot.ErrRefused, c.Original), "is it what an earlier conversion kept? Move it away")
	}
	_, err = btrfsvol.Info(dir)
	switch {
	case err == nil && o.Size == 0:
		return &Converted{dir: dir}, nil
	case errors.Is(err, btrfsvol.ErrNotSubvolume) && o.Size == 0:
		return c, c.inPlace(ctx, o)
	case err == nil:
		if inside, err := btrfsvol.Nested(dir); err != nil {
			return nil, err
		} else if len(inside) > 0 {
			return nil, hint.With(fmt.Errorf("%w: %s has subvolumes in it, such as %s, which would become directories", snapshot.ErrRefused, dir, inside[0]),
				"it is on btrfs already; for another place: s4 push, and s4 clone --size")
		}
		return c, c.onImage(ctx, o)
	case errors.Is(err, btrfsvol.ErrNotSubvolume), errors.Is(err, btrfsvol.ErrNotBtrfs):
		return c, c.onImage(ctx, o)
	}
	return nil, err
}

// convertible refuses a folder in which something is mounted: it would not move
// along. Root alone can convert.
func convertible(dir string) error {
	if os.Geteuid() != 0 {
		return hint.With(fmt.Errorf("a volume on btrfs is made by root: %w", fs.ErrPermission), "make a plain one with: s4 init --no-btrfs")
	}
	var here, above unix.Stat_t
	if err := errors.Join(unix.Lstat(dir, &here), unix.Lstat(filepath.Dir(dir), &above)); err != nil {
		return err
	}
	_, err := btrfsvol.Info(dir)
	if subvolume := err == nil; here.Dev != above.Dev && !subvolume {
		return hint.With(fmt.Errorf("%w: something is mounted at %s", snapshot.ErrRefused, dir), "move its files into a folder of it, and make that a volume")
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if m, ok := mountinfo.Parse(line); ok && strings.HasPrefix(m.Dir, dir+"/") {
			return hint.With(fmt.Errorf("%w: something is mounted at %s", snapshot.ErrRefused, m.Dir), "unmount it first")
		}
	}
	return nil
}

// fill copies the folder into the empty directory to, and compares.
func (c *Converted) fill(ctx context.Context, to, reflink string, o Options) error {
	names, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		o.note("Copying %s to btrfs, and comparing", c.dir)
	}
	if err := copyTree(ctx, c.dir, to, reflink); err != nil {
		return err
	}
	return compare(ctx, c.dir, to, c.dir, worktree.Options{}, true)
}

// copyTree copies what is in the directory from into the empty directory to.
func copyTree(ctx context.Context, from, to, reflink string) error {
	cmd := exec.CommandContext(ctx, "cp", "-a", "-T", "--sparse=auto", reflink, "--", from, to)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// It goes with us, however we go; the kernel looks at the thread that began it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		text, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		err = fmt.Errorf("copy %s: %w: %s", from, err, text)
		if strings.Contains(strings.ToLower(text), unix.ENOSPC.Error()) {
			err = hint.With(fmt.Errorf("%w: %w", snapshot.ErrUsage, err), "choose a larger --size, or none to have it fit")
		}
		return err
	}
	return nil
}

// CopyTree copies what is in the directory from into the empty directory to.
func CopyTree(ctx context.Context, from, to string) error {
	return copyTree(ctx, from, to, "--reflink=auto")
}

// Fit is the size of an image that what is in the directory fits in, with room
// for changes.
func Fit(ctx context.Context, dir string) (int64, error) {
	content, err := contentOf(ctx, dir)
	return fitting(content), err
}

// Compare makes sure that what is in the directory to is a copy of what is in
// from, to the last byte. Errors: snapshot.ErrRefused.
func Compare(ctx context.Context, from, to string, exclude func(path string, dir bool) bool) error {
	return compare(ctx, from, to, from, worktree.Options{Exclude: exclude}, true)
}

// compare looks for changes of the original, which people know as name.
func compare(ctx context.Context, original, copied, name string, o worktree.Options, content bool) error {
	a, err := worktree.Open(original)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := worktree.Open(copied)
	if err != nil {
		return err
	}
	defer b.Close()
	err = a.Twin(ctx, b, o, content)
	if different, ok := errors.AsType[*worktree.DifferentError](err); ok {
		return hint.With(fmt.Errorf("%w: %s was changed while it was copied: %w", snapshot.ErrRefused, name, different),
			"stop what writes there, and try again")
	}
	return err
}

// DropOriginal deletes the folder that was.
func (c *Converted) DropOriginal() error {
	if c.Original == "" {
		return nil
	}
	if err := os.RemoveAll(c.Original); err != nil {
		return fmt.Errorf("delete the original: %w", err)
	}
	return nil
}

// contentOf sums up what a folder's files take on the disk.
func contentOf(ctx context.Context, dir string) (total int64, err error) {
	root, err := worktree.Open(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	for l, err := range root.Walk(ctx, worktree.Options{}) {
		if err != nil {
			return 0, err
		}
		total += l.Blocks*512 + 512 // and its metadata
	}
	return total, ctx.Err()
}
