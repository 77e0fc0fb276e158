package btrfsvol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/send"
)

// ErrWritable is the error where a read-only snapshot is needed.
var ErrWritable = errors.New("the subvolume is not read-only")

// Options are those of [Changes].
type Options struct {
	// Exclude is a path, relative to the subvolume and clean, that is treated as if neither
	// tree had it or anything below it: what was moved out of it is Created, what
	// was moved into it Deleted. What has names inside and outside may be told
	// as several files. "" excludes nothing.
	Exclude string
}

// Changes tells how the tree of one read-only snapshot becomes that of another
// one of the same subvolume. It needs CAP_SYS_ADMIN. Time and memory follow the
// number of changes, not the size of the trees.
//
// The changes are net: what was made and deleted in between is not there, and
// however often something was renamed, it is one change. Each path is told whose
// inode differs, all of the inode's hard links included, but for what only moved
// along with a directory: that directory is Renamed, and what changed below it
// is told at its new path. Where one inode took another one's path, both are
// told, the other as Deleted or Renamed.
//
// The old tree becomes the new one by these steps:
//
//  1. Take away what [Leaving] lists, in that order. A Deleted directory is
//     empty by then. What is Renamed is put by, with all that is still below it.
//  2. Go through the changes as they are. Put what is Created, Renamed or Linked
//     at its Path, which is free by then, as are all directories above it in
//     their places. Take over what Meta and Extents say from the new tree.
//
// Their order is: first what is Deleted, descending by Path, so that what is in
// a directory comes before it; then Created, Renamed and Changed, ascending by
// Path, so that it comes after it; then Linked, ascending. Paths compare as
// strings.
//
// Nested subvolumes are not told: neither they, nor that the empty directory in
// a snapshot that stands for one has come or gone, but for the times of the
// directory around it. Only where something else takes its place is it Deleted.
func Changes(ctx context.Context, old, new string, o Options) ([]Change, error) {
	a, before, err := openReadOnly(old)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, _, err := openReadOnly(new)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	t := newTree(a, b)
	t.exclude = strings.TrimSuffix(o.Exclude, "/")
	err = sameFileSystem(a, b)
	if err == nil {
		err = send.Run(ctx, b, send.Options{Parent: before.ID, NoData: true}, t.apply)
	}
	var changes []Change
	if err == nil {
		changes, err = t.settle(ctx)
	}
	if err == nil && t.exclude != "" {
		changes, err = leaveOut(ctx, changes, t)
	}
	if err != nil {
		return nil, advise(fmt.Errorf("compare snapshots %s and %s: %w", old, new, err))
	}
	order(changes)
	return changes, nil
}

func openReadOnly(dir string) (*os.File, Subvolume, error) {
	f, err := open(dir)
	if err != nil {
		return nil, Subvolume{}, err
	}
	s, err := InfoOf(f)
	if err == nil && !s.ReadOnly {
		err = &fs.PathError{Op: "compare snapshots", Path: dir, Err: ErrWritable}
	}
	if err != nil {
		f.Close()
		return nil, Subvolume{}, err
	}
	return f, s, nil
}

// sameFileSystem sees to it that a subvolume's id means the same for both.
func sameFileSystem(a, b *os.File) error {
	var x, y fsInfo
	if err := errors.Join(ioctl(a, iocFSInfo, &x), ioctl(b, iocFSInfo, &y)); err != nil {
		return err
	}
	if x.FSID != y.FSID {
		return unix.EXDEV
	}
	return nil
}
