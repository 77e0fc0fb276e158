package volume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/worktree"
)

// What a push could not read it remembers, beside the outline: the archive has it
// older than it was then, or not at all, and btrfs tells only what has changed since.

// unreadPath is where paths are noted that the archive last pushed from here should
// have otherwise, each with a NUL at its end.
func (v *Volume) unreadPath(repo borgio.ID) string { return v.outlinePath(repo) + ".unread" }

// unread lists them.
func (v *Volume) unread(repo borgio.ID) (paths []string, err error) {
	data, err := os.ReadFile(v.unreadPath(repo))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for p := range bytes.SplitSeq(data, []byte{0}) {
		if len(p) > 0 {
			paths = append(paths, string(p))
		}
	}
	return paths, err
}

// keepUnread notes them for the next push.
func (v *Volume) keepUnread(repo borgio.ID, paths []string) error {
	at := v.unreadPath(repo)
	// The root itself is looked at anyway.
	paths = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == "" })
	if len(paths) == 0 {
		if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(path.Dir(at), 0o700); err != nil {
		return err
	}
	slices.Sort(paths)
	return atomicfile.Write(at, []byte(strings.Join(slices.Compact(paths), "\x00")+"\x00"), 0o600)
}

// tryAgain reads what could not be read, and tells what still cannot be, and whether
// anything can. What is gone is neither.
func (v *Volume) tryAgain(ctx context.Context, paths []string) (still map[string]error, can bool, err error) {
	if len(paths) == 0 {
		return nil, false, nil
	}
	root, err := worktree.Open(v.Root)
	if err != nil {
		return nil, false, err
	}
	defer root.Close()
	still = map[string]error{}
	for _, p := range paths {
		switch err := readable(ctx, root, p); {
		case ctx.Err() != nil:
			return nil, false, ctx.Err()
		case err == nil:
			can = true
		case !errors.Is(err, fs.ErrNotExist):
			still[p] = err
		}
	}
	return still, can, nil
}

// readable reads all that an archive would have of a path, but of a directory only
// the names.
func readable(ctx context.Context, root *worktree.Root, p string) error {
	l, err := root.Stat(p)
	if err == nil {
		_, err = root.AllXattrs(p)
	}
	switch {
	case err != nil:
		return err
	case l.Mode&unix.S_IFMT == unix.S_IFDIR:
		for _, err := range root.Walk(ctx, worktree.Options{Paths: []string{p}}) {
			if err != nil {
				return err
			}
		}
	case l.Mode&unix.S_IFMT == unix.S_IFREG:
		f, err := root.OpenFile(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, reader{ctx, f})
		return err
	}
	return nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	f   *os.File
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.f.Read(p)
}
