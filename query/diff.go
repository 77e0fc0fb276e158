package query

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// DiffOptions choose what to compare.
type DiffOptions struct {
	From      string   // TIME; "" is the live tree's base
	To        string   // TIME; "" is the live tree
	Paths     []string // below the root, or patterns; none is all of it
	NoRenames bool
	Live      LiveTree          // nil where there is none, as of a repository alone
	Note      func(text string) // hears a line of news; may be nil
}

// LiveTree is a tree that goes on to change.
type LiveTree interface {
	// Base is the snapshot that the tree equals but for unpushed changes, or the
	// best there is to compare with. Errors: fs.ErrNotExist where nothing was
	// pushed yet.
	Base(ctx context.Context) (snapshot.Info, error)
	// Against opens the tree to be compared with a snapshot that is indexed.
	Against(ctx context.Context, s snapshot.Info) (*Live, error)
}

// Live is a live tree beside a snapshot.
type Live struct {
	Root    *worktree.Root
	Options worktree.Options
	Tree    worktree.Tree // the snapshot
	Same    diff.Same     // tells whether contents are equal where nothing else does
	Close   func()
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
// differ. Nothing is fetched but through Old and New, and where a live file was
// touched and only its content tells whether it changed.
//
// Errors: fs.ErrNotExist for a moment, and where nothing was pushed yet.
func (p Past) Diff(ctx context.Context, o DiffOptions) (*Diff, error) {
	d := &Diff{done: func() {}}
	var err error
	if d.From, err = p.first(ctx, o); err != nil {
		return nil, err
	}
	if err := p.Prepare(ctx, &d.From, o.Note); err != nil {
		return nil, err
	}
	d.Old = p.reader(d.From)
	if o.To == "" {
		return d, p.diffLive(ctx, d, o)
	}
	to, err := p.Resolve(ctx, o.To)
	if err != nil {
		return nil, err
	}
	if err := p.Prepare(ctx, &to, o.Note); err != nil {
		return nil, err
	}
	d.To, d.New = &to, p.reader(to)
	keep, err := pathspec.New(o.Paths, func(path string) bool { return p.Has(ctx, d.From, path) || p.Has(ctx, to, path) })
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
func (p Past) weigh(a, b snapshot.Info) diff.Weigh {
	if a.Source == b.Source {
		return diff.ByChunks(p.Index)
	}
	return diff.BySize
}

// alike is how files that were renamed between two snapshots are known.
func (p Past) alike(a, b snapshot.Info) diff.Alike {
	if a.Source == b.Source {
		return diff.ByExtents(p.Index)
	}
	return diff.ByTime
}

// first is the snapshot that a comparison starts from.
func (p Past) first(ctx context.Context, o DiffOptions) (snapshot.Info, error) {
	if o.From != "" || o.Live == nil {
		return p.Resolve(ctx, o.From)
	}
	return o.Live.Base(ctx)
}

func (p Past) diffLive(ctx context.Context, d *Diff, o DiffOptions) error {
	if o.Live == nil {
		return fmt.Errorf("%w: without a volume a second moment is needed", snapshot.ErrUsage)
	}
	live, err := o.Live.Against(ctx, d.From)
	if err != nil {
		return err
	}
	d.done = live.Close
	root := live.Root
	keep, err := pathspec.New(o.Paths, func(path string) bool {
		_, err := root.Stat(path)
		return err == nil || p.Has(ctx, d.From, path)
	})
	if err != nil {
		live.Close()
		return err
	}
	live.Options.Paths = keep.Roots()
	d.Weigh = diff.BySize
	d.New = func(_ context.Context, path string, _ *snapshot.Entry) (snapshot.File, error) {
		f, err := root.OpenFile(path)
		if err != nil {
			return nil, err
		}
		return liveFile{f}, nil
	}
	d.Changes = func(yield func(diff.Change, error) bool) {
		for c, err := range diff.Live(ctx, root, live.Tree, live.Options, live.Same) {
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
func (p Past) reader(s snapshot.Info) diff.Reader {
	return func(ctx context.Context, _ string, e *snapshot.Entry) (snapshot.File, error) {
		return p.Open(ctx, s.Num, *e)
	}
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
