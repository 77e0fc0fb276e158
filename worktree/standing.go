package worktree

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/s4-storage/s4/snapshot"
)

// standing tells, during a pass in walk order, which live files are for certain
// those that a snapshot has at their paths, where their ctimes say so.
//
// A file that is renamed has a new ctime, one that moves along with a directory
// has not; and files that were made within one tick of the kernel's clock have
// the same. So where two directories change places, the ctimes of what is in them
// may tell nothing. But a directory that is renamed has a new ctime itself, and so
// has the one that it is renamed in. Below a directory that both is true of, a
// ctime is believed only where the snapshot has it once for files of that name.
//
// What is not seen is a directory that comes from outside of the tree with files
// of the same names, sizes and times to the nanosecond as were there.
type standing struct {
	root    *Root
	tree    Tree
	dirs    []standingDir // from the root to the path last asked for
	twins   []uint64      // sorted; of files that the snapshot has more than one of
	counted bool          // twins is set
}

// standingDir is a live directory where the snapshot has one, too.
type standingDir struct {
	path  string
	sure  bool // it is the snapshot's
	quiet bool // and neither was it renamed, nor any name in it since
}

// sure tells whether an equal ctime means that l is what e was at path. It is to
// be asked of each path that both have something at.
func (s *standing) sure(ctx context.Context, l *Live, e *snapshot.Entry, path string) (bool, error) {
	sure, err := s.vouches(ctx, l, e, path)
	if err == nil && isDir(l.Mode) && isDir(e.Mode) {
		err = s.enter(ctx, l, e, path)
	}
	return sure, err
}

// enter goes on to what is in a directory.
func (s *standing) enter(ctx context.Context, l *Live, e *snapshot.Entry, path string) error {
	if err := s.leaveTo(ctx, path); err != nil {
		return err
	}
	d := standingDir{path: path, sure: true, quiet: e.Ctime != 0 && l.Ctime == e.Ctime}
	if path != "" {
		up := s.above(path)
		d.sure = up.sure && (d.quiet || up.quiet)
	}
	s.dirs = append(s.dirs, d)
	return nil
}

// above is the directory that path is in.
func (s *standing) above(path string) standingDir {
	dir, _ := split(path)
	if n := len(s.dirs); n > 0 && s.dirs[n-1].path == dir {
		return s.dirs[n-1]
	}
	return standingDir{}
}

// leaveTo leaves the directories that path is not in. Where a pass began further
// down, it looks at those above.
func (s *standing) leaveTo(ctx context.Context, path string) error {
	for len(s.dirs) > 0 && (path == "" || !within(path, s.dirs[len(s.dirs)-1].path)) {
		s.dirs = s.dirs[:len(s.dirs)-1]
	}
	if path == "" || len(s.dirs) > 0 {
		return nil
	}
	var above []string
	for dir := path; dir != ""; {
		dir, _ = split(dir)
		above = append(above, dir)
	}
	for _, dir := range slices.Backward(above) {
		e, err := entryAt(ctx, s.tree, dir)
		if err != nil {
			return err
		}
		l, err := s.root.Stat(dir)
		if err != nil || e == nil || !isDir(l.Mode) || !isDir(e.Mode) {
			if dir != "" {
				return nil //nolint:nilerr // what is not known to be the same is not sure
			}
			e = &snapshot.Entry{} // archives need not record the root
		}
		if err := s.enter(ctx, &l, e, dir); err != nil {
			return err
		}
	}
	return nil
}

// entryAt is what a tree has at path; nil for nothing.
func entryAt(ctx context.Context, t Tree, path string) (*snapshot.Entry, error) {
	for n, err := range t.Walk(ctx, path) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && n.Path == path {
			return &n.Entry, nil
		}
		break
	}
	return nil, nil
}

func (s *standing) vouches(ctx context.Context, l *Live, e *snapshot.Entry, path string) (bool, error) {
	if path == "" || l.Ctime != e.Ctime {
		return true, nil
	}
	if err := s.leaveTo(ctx, path); err != nil {
		return false, err
	}
	if s.above(path).sure {
		return true, nil
	}
	if !s.counted {
		if err := s.count(ctx); err != nil {
			return false, err
		}
	}
	_, found := slices.BinarySearch(s.twins, twinKey(path, e))
	return !found, nil
}

// count finds the twins.
func (s *standing) count(ctx context.Context) error {
	var all []uint64
	for n, err := range s.tree.Walk(ctx, "") {
		if err != nil {
			return err
		}
		all = append(all, twinKey(n.Path, &n.Entry))
	}
	slices.Sort(all)
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			s.twins = append(s.twins, all[i])
		}
	}
	s.counted = true
	return nil
}

// twinKey is equal for what has the same name, size and times.
func twinKey(path string, e *snapshot.Entry) uint64 {
	_, name := split(path)
	b := make([]byte, 0, 64)
	for _, n := range [...]uint64{uint64(e.Mode), uint64(e.Size), uint64(e.Mtime), uint64(e.Ctime)} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return xxhash.Sum64(append(b, name...))
}
