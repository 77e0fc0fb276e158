package worktree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// DifferentError says how a copy differs from what it was made of.
type DifferentError struct{ Path, What string }

func (e *DifferentError) Error() string { return fmt.Sprintf("%q differs in its %s", e.Path, e.What) }

// Twin makes sure that the live tree of copied is r's to the last byte: names,
// types, content, hard links, owners, modes, times of modification and extended
// attributes. Sockets are passed over. With content false it believes that files
// of equal size and time are equal.
//
// Errors: *DifferentError for the first difference; what cannot be read.
func (r *Root) Twin(ctx context.Context, copied *Root, o Options, content bool) error {
	o.Attributes = func() bool { return true }
	next, stop := iter.Pull2(withoutSockets(copied.Walk(ctx, o)))
	defer stop()
	t := twins{ours: r, theirs: copied, content: content, links: map[uint64]uint64{}}
	for a, err := range withoutSockets(r.Walk(ctx, o)) {
		if err != nil {
			return err
		}
		b, err, ok := next()
		if err != nil {
			return err
		}
		if !ok || a.Path != b.Path {
			if ok && ComparePaths(b.Path, a.Path) < 0 {
				return &DifferentError{b.Path, "existence"}
			}
			return &DifferentError{a.Path, "existence"}
		}
		if err := t.compare(ctx, &a, &b); err != nil {
			return err
		}
	}
	if b, err, ok := next(); ok || err != nil {
		return errors.Join(err, &DifferentError{b.Path, "existence"})
	}
	return ctx.Err()
}

func withoutSockets(walk iter.Seq2[Live, error]) iter.Seq2[Live, error] {
	return func(yield func(Live, error) bool) {
		for l, err := range walk {
			if (err != nil || l.Mode&unix.S_IFMT != unix.S_IFSOCK) && !yield(l, err) {
				return
			}
		}
	}
}

// twins compares two trees entry by entry.
type twins struct {
	ours, theirs *Root
	content      bool
	links        map[uint64]uint64 // inodes with several names: ours to theirs
}

func (t *twins) compare(ctx context.Context, a, b *Live) error {
	different := func(what string) error { return &DifferentError{a.Path, what} }
	switch {
	case a.Mode != b.Mode:
		return different("mode")
	case a.UID != b.UID || a.GID != b.GID:
		return different("owner")
	case a.Size != b.Size || a.Mtime != b.Mtime:
		return different("size or time")
	case a.Rdev != b.Rdev || a.Target != b.Target:
		return different("target")
	case a.Nlink != b.Nlink:
		return different("links")
	}
	if a.Path == "" { // whose attributes a walk does not read
		var errA, errB error
		a.Xattrs, errA = t.ours.AllXattrs("")
		b.Xattrs, errB = t.theirs.AllXattrs("")
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
	}
	if !slices.EqualFunc(kept(a.Xattrs), kept(b.Xattrs), func(x, y snapshot.Xattr) bool {
		return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
	}) {
		return different("extended attributes")
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	if a.Nlink > 1 {
		if theirs, met := t.links[a.Ino]; met {
			if theirs != b.Ino {
				return different("links")
			}
			return nil // compared under its first name
		}
		t.links[a.Ino] = b.Ino
	}
	if !t.content {
		return nil
	}
	same, err := t.sameBytes(ctx, a.Path, a.Size)
	if err == nil && !same {
		err = different("content")
	}
	return err
}

// kept are the attributes that are not of one file system alone.
func kept(all []snapshot.Xattr) []snapshot.Xattr {
	return slices.DeleteFunc(slices.Clone(all), func(x snapshot.Xattr) bool { return strings.HasPrefix(x.Name, "btrfs.") })
}

func (t *twins) sameBytes(ctx context.Context, path string, size int64) (bool, error) {
	f, err := t.ours.OpenFile(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := t.theirs.OpenFile(path)
	if err != nil {
		return false, err
	}
	defer g.Close()
	a, b := make([]byte, min(size+1, 1<<20)), make([]byte, min(size+1, 1<<20))
	for ctx.Err() == nil {
		n, err := io.ReadFull(f, a)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		m, errTheirs := io.ReadFull(g, b)
		if errTheirs != nil && !errors.Is(errTheirs, io.EOF) && !errors.Is(errTheirs, io.ErrUnexpectedEOF) {
			return false, errTheirs
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if err != nil {
			return true, nil
		}
	}
	return false, ctx.Err()
}
