package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
)

// newLocal is where .s4/local is made anew as a subvolume.
const newLocal = LocalDir + ".new"

// makeLocal makes .s4/local in root, a subvolume of its own where root is one.
func makeLocal(root string) error {
	local := filepath.Join(root, LocalDir)
	if _, err := btrfsvol.Info(root); err != nil {
		return os.MkdirAll(local, 0o700)
	}
	if _, err := btrfsvol.Info(local); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(local), 0o755); err != nil {
		return err
	}
	_ = os.Remove(local) // the empty stub that is in a copy
	err := btrfsvol.Create(local)
	if errors.Is(err, fs.ErrExist) {
		return nest(root)
	}
	if err == nil {
		err = os.Chmod(local, 0o700)
	}
	return err
}

// nest makes a subvolume of a .s4/local that is a directory, as in a volume that
// came to btrfs with all it had: there, noting a push would be a change. While
// another process works there it is left for the next time.
func nest(root string) error {
	local, made := filepath.Join(root, LocalDir), filepath.Join(root, newLocal)
	names, err := os.ReadDir(local)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Name() != "lock" && !strings.HasSuffix(n.Name(), ".lock") {
			continue
		}
		f, err := os.OpenFile(filepath.Join(local, n.Name()), os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(made); err != nil { // of one that was killed
		return err
	}
	if err := btrfsvol.Create(made); err != nil {
		return err
	}
	if out, err := exec.CommandContext(context.Background(), "cp", "-a", "-T", "--reflink=auto", "--", local, made).CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("make %s a subvolume: %w: %s", LocalDir, err, out), os.RemoveAll(made))
	}
	if err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, local, unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(fmt.Errorf("make %s a subvolume: %w", LocalDir, err), os.RemoveAll(made))
	}
	return os.RemoveAll(made)
}
