package history

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// The methods below are the index's own, except that a snapshot not yet
// indexed is read first.

// Root gives the root of a snapshot's tree.
func (h *History) Root(ctx context.Context, num int64) (snapshot.Entry, error) {
	if err := h.Ensure(ctx, num); err != nil {
		return snapshot.Entry{}, err
	}
	return h.x.Root(ctx, num)
}

// Lookup finds a name in a directory; a missing one is fs.ErrNotExist.
func (h *History) Lookup(ctx context.Context, num, dir int64, name string) (snapshot.Entry, error) {
	if err := h.Ensure(ctx, num); err != nil {
		return snapshot.Entry{}, err
	}
	return h.x.Lookup(ctx, num, dir, name)
}

// List gives at most limit entries of a directory, bytewise by name, that come
// after the given name.
func (h *History) List(ctx context.Context, num, dir int64, after string, limit int) ([]snapshot.Entry, error) {
	if err := h.Ensure(ctx, num); err != nil {
		return nil, err
	}
	return h.x.List(ctx, num, dir, after, limit)
}

// Stat gives the entry of a version that is in the snapshot.
func (h *History) Stat(ctx context.Context, num, version int64) (snapshot.Entry, error) {
	if err := h.Ensure(ctx, num); err != nil {
		return snapshot.Entry{}, err
	}
	return h.x.Stat(ctx, num, version)
}

// Find walks to a path; symbolic links are not followed.
func (h *History) Find(ctx context.Context, num int64, path string) (snapshot.Entry, error) {
	if err := h.Ensure(ctx, num); err != nil {
		return snapshot.Entry{}, err
	}
	return h.x.Find(ctx, num, path)
}

// Walk gives the entry at path and all below it, depth first, parents first,
// names bytewise. An error ends it.
func (h *History) Walk(ctx context.Context, num int64, path string) iter.Seq2[snapshot.Node, error] {
	return func(yield func(snapshot.Node, error) bool) {
		if err := h.Ensure(ctx, num); err != nil {
			yield(snapshot.Node{}, err)
			return
		}
		h.x.Walk(ctx, num, path)(yield)
	}
}

// Versions gives every version of a path in the chain of snapshot num, as far
// as it is indexed, oldest first.
func (h *History) Versions(ctx context.Context, num int64, path string) ([]index.PathVersion, error) {
	if err := h.Ensure(ctx, num); err != nil {
		return nil, err
	}
	return h.x.Versions(ctx, num, path)
}

// Changes tells how the tree of b differs from that of a.
func (h *History) Changes(ctx context.Context, a, b int64) iter.Seq2[index.Change, error] {
	return func(yield func(index.Change, error) bool) {
		for _, num := range []int64{a, b} {
			if err := h.Ensure(ctx, num); err != nil {
				yield(index.Change{}, err)
				return
			}
		}
		h.x.Changes(ctx, a, b)(yield)
	}
}

// Content gives a regular file's extents as the source of the snapshot that
// the version is in names them; none where it opens files by path.
func (h *History) Content(ctx context.Context, version int64) ([]snapshot.Extent, error) {
	return h.x.Content(ctx, version)
}

// Open gives the content of a regular file of snapshot num. Of the sources that
// hold the snapshot those that open files by path are asked first, then the one
// that the index has the snapshot from, then the others.
func (h *History) Open(ctx context.Context, num int64, e snapshot.Entry) (snapshot.File, error) {
	content, err := h.x.Content(ctx, e.Version)
	if err != nil {
		return nil, err
	}
	source, err := h.sourceOf(ctx, num)
	if err != nil {
		return nil, err
	}
	src := h.source(source)
	byPath := opensByPath(src)
	if e.Size == 0 || len(content) == 0 && src != nil && !byPath {
		return emptyFile{}, nil
	}
	f, err := h.openByPath(ctx, num, e)
	if f != nil {
		return f, nil
	}
	switch {
	case src != nil && !byPath:
		if f, err = src.Open(ctx, content); err == nil {
			return f, nil
		}
	case src == nil, err == nil:
		err = fmt.Errorf("source %s is not at hand: %w", source, snapshot.ErrUnreachable)
	}
	if f := h.openElsewhere(ctx, num, e); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("open %q: %w", e.Name, err)
}

// sourceOf gives the id of the source that holds the snapshot. It is
// remembered: many small files are opened one after the other.
func (h *History) sourceOf(ctx context.Context, num int64) (string, error) {
	if source, ok := h.indexed.Load(num); ok {
		return source.(string), nil
	}
	info, err := h.x.Snapshot(ctx, num)
	return info.Source, err
}

// Local tells whether a source on this machine holds snapshot num, so that
// reading content needs no network.
func (h *History) Local(ctx context.Context, num int64) (bool, error) {
	line, err := h.timeline(ctx)
	if err != nil {
		return false, err
	}
	group := line.group(num)
	if group == nil {
		return false, fmt.Errorf("snapshot %d: %w", num, fs.ErrNotExist)
	}
	return slices.ContainsFunc(group, func(s snapshot.Info) bool {
		src := h.source(s.Source)
		return src != nil && src.Local()
	}), nil
}

// openByPath opens the file from a source that has it under its path; nil when
// there is none, or the reason why it cannot.
func (h *History) openByPath(ctx context.Context, num int64, e snapshot.Entry) (f snapshot.File, err error) {
	if !slices.ContainsFunc(h.joined(), opensByPath) {
		return nil, nil
	}
	path, known := "", false
	for s, src := range h.holders(ctx, num) {
		if !opensByPath(src) {
			continue
		}
		if !known {
			if path, err = h.x.Path(ctx, e.Version); err != nil {
				return nil, err
			}
			known = true
		}
		if f, err = src.(pathOpener).OpenPath(ctx, s, path, e); err == nil {
			return f, nil
		}
	}
	return nil, err
}

// openElsewhere looks for the file in the same snapshot of other sources; nil
// when none can give it.
func (h *History) openElsewhere(ctx context.Context, num int64, e snapshot.Entry) snapshot.File {
	path, err := h.x.Path(ctx, e.Version)
	if err != nil {
		return nil
	}
	for other, src := range h.holders(ctx, num) {
		if opensByPath(src) || other.Num == num || h.Ensure(ctx, other.Num) != nil {
			continue
		}
		same, err := h.x.Find(ctx, other.Num, path)
		if err != nil || same.Size != e.Size || !snapshot.SameTime(same.Mtime, e.Mtime) {
			continue
		}
		content, err := h.x.Content(ctx, same.Version)
		if err != nil {
			continue
		}
		if f, err := src.Open(ctx, content); err == nil {
			return f
		}
	}
	return nil
}

// holders gives the snapshot and its equals with the sources that hold them, as
// far as these are at hand.
func (h *History) holders(ctx context.Context, num int64) iter.Seq2[snapshot.Info, snapshot.Source] {
	return func(yield func(snapshot.Info, snapshot.Source) bool) {
		line, err := h.timeline(ctx)
		if err != nil {
			return
		}
		for _, s := range line.group(num) {
			if src := h.source(s.Source); src != nil && !yield(s, src) {
				return
			}
		}
	}
}

// emptyFile needs no source.
type emptyFile struct{}

var _ snapshot.File = emptyFile{}

func (emptyFile) Size() int64                      { return 0 }
func (emptyFile) Close() error                     { return nil }
func (emptyFile) WriteTo(io.Writer) (int64, error) { return 0, nil }
func (emptyFile) ReadAtContext(_ context.Context, _ []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	return 0, io.EOF
}
