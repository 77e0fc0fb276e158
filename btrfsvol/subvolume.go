package btrfsvol

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/btrfs/v2"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/hint"
)

// Why something is not a subvolume. A path that does not exist is
// [fs.ErrNotExist], one that does already [fs.ErrExist], a missing right
// [fs.ErrPermission] and a full file system ENOSPC or EDQUOT.
var (
	ErrNotBtrfs     = errors.New("not on a btrfs file system")
	ErrNotSubvolume = errors.New("not a btrfs subvolume")
)

// Subvolume is what a file system knows about a subvolume.
type Subvolume struct {
	ID           uint64    // within the file system; never used again
	ParentID     uint64    // of the subvolume that it lies in; 0 for the top level one
	UUID         uuid.UUID // may be [uuid.Nil] for the top level one
	ParentUUID   uuid.UUID // of what it is a snapshot of, or [uuid.Nil]
	ReceivedUUID uuid.UUID // of what it was received from, or [uuid.Nil]
	Generation   uint64    // of the last change
	CTransid     uint64    // the generation of the last change to a file in it, which making snapshots does not raise
	OTransid     uint64    // the generation that it was made in
	ReadOnly     bool
	Created      time.Time
}

// Info tells about the subvolume whose root directory is dir. It is one system
// call, and needs no rights but to open the directory.
func Info(dir string) (Subvolume, error) {
	f, err := open(dir)
	if err != nil {
		return Subvolume{}, err
	}
	defer f.Close()
	return InfoOf(f)
}

// InfoOf is [Info] of an open directory.
func InfoOf(dir *os.File) (Subvolume, error) {
	if err := check(dir); err != nil {
		return Subvolume{}, fail("look at", dir.Name(), err)
	}
	var args subvolInfo
	if err := ioctl(dir, iocSubvolInfo, &args); err != nil {
		return Subvolume{}, fail("look at", dir.Name(), err)
	}
	return Subvolume{
		ID: args.ID, ParentID: args.ParentID,
		UUID: args.UUID, ParentUUID: args.ParentUUID, ReceivedUUID: args.ReceivedUUID,
		Generation: args.Generation, CTransid: args.CTransid, OTransid: args.OTransid,
		ReadOnly: args.Flags&1 != 0, // BTRFS_ROOT_SUBVOL_RDONLY, as on disk
		Created:  time.Unix(int64(args.OTime.Sec), int64(args.OTime.Nsec)),
	}, nil
}

// Generation tells the generation of the subvolume's last change that has
// reached the disk. Making a snapshot of it raises it, too, to the generation
// that the snapshot then has: while both are the same after a [Sync], nothing
// has changed since that snapshot. If they are not, another snapshot may have
// been made, and [Changes] knows.
func Generation(dir string) (uint64, error) {
	s, err := Info(dir)
	return s.Generation, err
}

// Untouched tells whether no file in the subvolume at live has changed since the one
// at then was made, where one of them is a snapshot of the other. What has not
// reached the disk does not show: see [Sync].
func Untouched(live, then string) (bool, error) {
	l, err := Info(live)
	if err != nil {
		return false, err
	}
	t, err := Info(then)
	if err != nil {
		return false, err
	}
	return l.CTransid <= t.OTransid, nil
}

// Sync writes out what was changed in the file system that dir is on, so that
// [Generation] tells about it. Snapshots need no Sync before them.
func Sync(dir string) error {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fail("sync", dir, err)
	}
	return nil
}

// Create makes an empty subvolume. Its directory must exist.
func Create(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := btrfs.SubvolCreate(path); err != nil {
		return fail("create subvolume", path, err)
	}
	return nil
}

// Snapshot makes dst, which must not exist, a snapshot of the subvolume src as
// it is at this moment, with everything that was written before. It is there
// whole or not at all.
func Snapshot(src, dst string, readOnly bool) error {
	f, err := open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := check(f); err != nil {
		return fail("snapshot", src, err)
	}
	dst, err = filepath.Abs(dst)
	if err != nil {
		return err
	}
	if err := btrfs.SubvolSnapshot(dst, src, readOnly); err != nil {
		return fail("make snapshot", dst, err)
	}
	return nil
}

// SetReadOnly makes a subvolume read-only, or writable. It needs the
// directory's owner or root.
func SetReadOnly(dir string, readOnly bool) error {
	f, err := open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return setReadOnly(f, readOnly)
}

func setReadOnly(f *os.File, readOnly bool) error {
	err := check(f)
	var flags uint64
	if err == nil {
		err = ioctl(f, iocGetFlags, &flags)
	}
	if err == nil && readOnly != (flags&flagReadOnly != 0) {
		flags ^= flagReadOnly
		err = ioctl(f, iocSetFlags, &flags)
	}
	if err != nil {
		return fail("set read-only flag of", f.Name(), err)
	}
	return nil
}

func open(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil, fail("open", dir, ErrNotSubvolume)
	}
	return f, err
}

// check tells whether the open directory is the root of a subvolume.
func check(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return ErrNotBtrfs
	}
	var file unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &file); err != nil {
		return err
	}
	if file.Ino != rootIno {
		return ErrNotSubvolume
	}
	return nil
}

// fail is the error of an operation, without what libraries say around its
// errno, and with what may help.
func fail(op, path string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	if errno == unix.ENOTTY {
		err = ErrNotBtrfs
	}
	return advise(&fs.PathError{Op: op, Path: path, Err: err})
}

// advise adds to an error what may help.
func advise(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.EPERM, unix.EACCES:
		return hint.With(err, "run as root; others may make snapshots of their own subvolumes, and delete subvolumes if the file system is mounted with user_subvol_rm_allowed")
	case unix.EROFS:
		return hint.With(err, "the file system is mounted read-only, or the subvolume around it is read-only")
	case unix.ENOSPC, unix.EDQUOT:
		return hint.With(err, "delete snapshots, or let the file system or the quota grow; space comes back a while after a deletion")
	}
	return err
}
