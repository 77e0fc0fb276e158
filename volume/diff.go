package volume

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// DiffOptions choose what to compare.
type DiffOptions struct {
	From      string   // TIME; "" is the volume's base
	To        string   // TIME; "" is the live tree
	Paths     []string // below the root, or patterns; none is all of it
	NoRenames bool
	Report    Reporter
}

// Diff is a comparison that is ready to run.
type Diff struct {
	From    snapshot.Info
	To      *snapshot.Info // nil is the live tree
	Changes iter.Seq2[diff.Change, error]
	Weigh   diff.Weigh
	Old     diff.Reader
	New     diff.Reader
	done    func()
}

// Close lets go of the live tree.
func (d *Diff) Close() { d.done() }

// Diff prepares to tell how two snapshots, or a snapshot and the live tree,
// differ; v is nil where there is no volume, and then no live tree. Nothing is
// fetched but through Old and New, and where a live file was touched and only
// its content tells whether it changed.
//
// Errors: fs.ErrNotExist for a moment, and where nothing was pushed yet.
func (p *Past) Diff(ctx context.Context, v *Volume, o DiffOptions) (*Diff, error) {
	d := &Diff{done: func() {}}
	var err error
	if d.From, err = p.first(ctx, v, o.From); err != nil {
		return nil, err
	}
	if err := p.ensure(ctx, &d.From, o.Report); err != nil {
		return nil, err
	}
	d.Old = p.reader(d.From)
	if o.To == "" {
		return d, p.diffLive(ctx, v, d, o)
	}
	to, err := p.Resolve(ctx, o.To)
	if err != nil {
		return nil, err
	}
	if err := p.ensure(ctx, &to, o.Report); err != nil {
		return nil, err
	}
	d.To, d.New = &to, p.reader(to)
	keep, err := pathspec.New(o.Paths, func(path string) bool { return p.has(ctx, d.From, path) || p.has(ctx, to, path) })
	if err != nil {
		return nil, err
	}
	d.Changes = diff.Moments(ctx, p.Index, d.From, to, keep.Match)
	d.Weigh = p.weigh(d.From, to)
	if !o.NoRenames {
		d.Changes = diff.Renames(ctx, d.Changes, p.alike(d.From, to))
	}
	return d, nil
}

// weigh is how changes between two snapshots are weighed.
func (p *Past) weigh(a, b snapshot.Info) diff.Weigh {
	if a.Source == b.Source {
		return diff.ByChunks(p.Index)
	}
	return diff.BySize
}

// alike is how files that were renamed between two snapshots are known.
func (p *Past) alike(a, b snapshot.Info) diff.Alike {
	if a.Source == b.Source {
		return diff.ByExtents(p.Index)
	}
	return diff.ByTime
}

// first is the snapshot that a comparison starts from.
func (p *Past) first(ctx context.Context, v *Volume, when string) (snapshot.Info, error) {
	if when != "" || v == nil {
		return p.Resolve(ctx, when)
	}
	base, ok, err := v.base(ctx, p)
	if err == nil && !ok {
		err = hint.With(fmt.Errorf("nothing is pushed yet, so there is nothing to compare with: %w", fs.ErrNotExist),
			"see what there is with: s4 status")
	}
	return base, err
}

func (p *Past) has(ctx context.Context, s snapshot.Info, path string) bool {
	_, err := p.Find(ctx, s.Num, path)
	return err == nil
}

func (p *Past) diffLive(ctx context.Context, v *Volume, d *Diff, o DiffOptions) error {
	if v == nil {
		return fmt.Errorf("%w: without a volume a second moment is needed", snapshot.ErrUsage)
	}
	root, options, done, err := v.worktree(ctx)
	if err != nil {
		return err
	}
	d.done = done
	t := tree{past: p, s: d.From}
	if err := hideOwn(ctx, t, &options); err != nil {
		done()
		return err
	}
	keep, err := pathspec.New(o.Paths, func(path string) bool {
		_, err := root.Stat(path)
		return err == nil || p.has(ctx, d.From, path)
	})
	if err != nil {
		done()
		return err
	}
	options.Paths = keep.Roots()
	same := liveContent{root: root, tree: sync.OnceValues(func() (tree, error) { return p.withContent(ctx, d.From) }), volume: v}
	d.Weigh = diff.BySize
	d.New = func(_ context.Context, path string, _ *snapshot.Entry) (snapshot.File, error) {
		f, err := root.OpenFile(path)
		if err != nil {
			return nil, err
		}
		return liveFile{f}, nil
	}
	d.Changes = func(yield func(diff.Change, error) bool) {
		for c, err := range diff.Live(ctx, root, t, options, same.equal) {
			if (c.Path == "" && err != nil || keep.Match(c.Path)) && !yield(c, err) {
				return
			}
		}
	}
	if !o.NoRenames {
		d.Changes = diff.Renames(ctx, d.Changes, diff.ByTime)
	}
	return nil
}

// reader reads the files of a snapshot.
func (p *Past) reader(s snapshot.Info) diff.Reader {
	return func(ctx context.Context, _ string, e *snapshot.Entry) (snapshot.File, error) {
		return p.Open(ctx, s.Num, *e)
	}
}

// liveContent compares live files with a snapshot's, whose repository is
// reached only when that is needed.
type liveContent struct {
	root   *worktree.Root
	tree   func() (tree, error)
	volume *Volume
}

func (l liveContent) equal(ctx context.Context, live *worktree.Live, e *snapshot.Entry) (same, ok bool) {
	t, err := l.tree()
	if err == nil {
		same, err = l.root.Holds(ctx, t, live, e)
	}
	if err != nil {
		l.volume.log.Info("compare content", "path", live.Path, "error", err)
	}
	return same, err == nil
}

// liveFile is a file on disk that is read as one of a snapshot.
type liveFile struct{ *os.File }

var _ snapshot.File = liveFile{}

// Size is how long the file is now.
func (f liveFile) Size() int64 {
	info, err := f.Stat()
	if err != nil {
		return 0 // reading will tell
	}
	return info.Size()
}

// ReadAtContext does not wait for anything but the disk.
func (f liveFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	return f.ReadAt(p, off)
}

// WriteTo copies the file from its beginning.
func (f liveFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, io.NewSectionReader(f.File, 0, f.Size()))
}
