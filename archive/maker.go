package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/owner"
	"github.com/s4-storage/s4/worktree"
)

// Maker makes one archive of a tree.
type Maker struct {
	Tx      *borgio.Transaction
	Root    *worktree.Root
	Exclude func(path string, dir bool) bool
	// Moved tells that a path may be another file's than in the base, whatever
	// its size and times are; may be nil.
	Moved func(path string) bool
	// Moving says that the files may change while they are read.
	Moving bool
	// Left is told what is left out, and what has changed while it was read;
	// may be nil. Both are called by one goroutine at a time.
	Left     func(path string, err error)
	Progress func(p Progress) // may be nil
	// Every has All commit what it has, as a checkpoint, after such a time, and
	// go on in the transaction that Again begins; 0 has it never do so. What a
	// later run finds stored already it need not store again.
	Every time.Duration
	Again func(ctx context.Context) (*borgio.Transaction, error)

	names    owner.Names
	progress Progress
	pause    func() error // makes a checkpoint; nil where there are none
	since    time.Time    // of the last one
}

// Progress is how far a Maker has come.
type Progress struct {
	Files, Bytes int64 // regular files done, and what is in them
	Path         string
}

// Result is an archive that was made.
type Result struct {
	Ref     borgio.ArchiveRef
	Outline *borgio.Outline
}

// ErrChanging says that a file was written to while it was read: what is in the
// archive may be neither the old nor the new.
var ErrChanging = errors.New("changed while it was read")

// Changed is a path that is not as it is in the base.
type Changed struct {
	Path string
	Live *worktree.Live // what is there; nil: nothing
	// From is the base's path of a regular file that had this content, but for
	// Extents; "" where all of it is to be read.
	From    string
	Extents []borgio.Extent
}

// All makes an archive of the whole tree. With a base it does not read regular
// files that have the size and the times which they have there.
func (m *Maker) All(ctx context.Context, base *borgio.Outline, info borgio.ArchiveInfo) (Result, error) {
	w := m.Tx.NewArchive(info)
	if m.Every > 0 {
		count := 0
		m.since = time.Now()
		m.pause = func() (err error) { // called while nothing is under way
			w, err = m.checkpoint(ctx, w, info, count)
			count++
			m.since = time.Now()
			return err
		}
		defer func() { m.pause = nil }()
	}
	for c, err := range m.items(ctx, m.whole(ctx, base), base) {
		if err == nil && c.Item != nil {
			err = w.Add(ctx, c.Item)
		}
		if err != nil {
			return Result{}, err
		}
	}
	ref, outline, err := w.Finish(ctx)
	return Result{ref, outline}, err
}

// checkpoint commits what there is as an archive under a checkpoint's name, as
// borg has them: it shows them only when asked to, and prunes them by itself. It
// begins an archive anew that has all of it already.
func (m *Maker) checkpoint(ctx context.Context, w *borgio.ArchiveWriter, info borgio.ArchiveInfo, count int) (*borgio.ArchiveWriter, error) {
	name := info.Name + ".checkpoint"
	if count > 0 {
		name += fmt.Sprint(".", count)
	}
	w.Rename(name)
	_, outline, err := w.Finish(ctx)
	if err == nil {
		err = m.Tx.Commit(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("make a checkpoint: %w", err)
	}
	if m.Tx, err = m.Again(ctx); err != nil {
		return nil, err
	}
	w = m.Tx.NewArchive(info)
	for i := range outline.Sections {
		if err := w.Reuse(ctx, &outline.Sections[i]); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Update makes an archive that is the base's but for what has changed, which
// comes in the order of [borgio.ComparePaths], each path once.
func (m *Maker) Update(ctx context.Context, base *borgio.Outline, changed iter.Seq2[Changed, error], info borgio.ArchiveInfo) (Result, error) {
	ref, outline, err := m.Tx.UpdateArchive(ctx, base, m.items(ctx, changed, base), info)
	return Result{ref, outline}, err
}

// whole tells of every path in the tree.
func (m *Maker) whole(ctx context.Context, base *borgio.Outline) iter.Seq2[Changed, error] {
	return func(yield func(Changed, error) bool) {
		o := worktree.Options{Exclude: m.Exclude, Attributes: func() bool { return true }}
		for l, err := range m.Root.Walk(ctx, o) {
			if err != nil {
				if ctx.Err() != nil {
					yield(Changed{}, ctx.Err())
					return
				}
				m.left(l.Path, err)
				continue
			}
			if isSocket(l.Mode) {
				continue
			}
			c := Changed{Path: itemPath(l.Path), Live: &l}
			if base != nil && isRegular(l.Mode) && l.Size > 0 && (m.Moved == nil || !m.Moved(l.Path)) {
				it, err := m.Tx.BaseItem(ctx, base, l.Path)
				switch {
				case errors.Is(err, fs.ErrNotExist):
				case err != nil:
					yield(c, err)
					return
				case isRegular(it.Mode) && it.HasCtime && it.Ctime == l.Ctime && it.Mtime == l.Mtime:
					c.From = l.Path
				}
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (m *Maker) left(path string, err error) {
	if m.Left != nil {
		m.Left(path, err)
	}
}

// job is a path on its way to become an item.
type job struct {
	Changed
	item     *borgio.Item
	err      error
	changing bool          // it was written to while it was read
	done     chan struct{} // closed when the above are set; nil when they are at once
}

// inode names a file on this host.
type inode struct{ dev, ino uint64 }

const (
	// ahead is how many paths are looked at before the first of them is needed.
	ahead = 256
	// leastWorkers read at once, so that a disk has something to choose from.
	leastWorkers = 8
)

// items makes items of what has changed, several at once, in order.
func (m *Maker) items(ctx context.Context, changed iter.Seq2[Changed, error], base *borgio.Outline) iter.Seq2[borgio.Change, error] {
	return func(yield func(borgio.Change, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		work := make(chan *job, ahead)
		ended := make(chan struct{})
		workers := max(leastWorkers, 2*runtime.GOMAXPROCS(0))
		for range workers {
			go func() {
				for j := range work {
					j.item, j.err = m.content(ctx, j, base)
					close(j.done)
				}
				ended <- struct{}{}
			}()
		}
		defer func() {
			cancel()
			close(work)
			for range workers {
				<-ended
			}
		}()
		q := queue{m: m, base: base, masters: map[inode]string{}, yield: yield}
		for c, err := range changed {
			if err != nil {
				yield(borgio.Change{}, err)
				return
			}
			j := q.begin(c)
			if j.done != nil {
				work <- j
			}
			if m.pause != nil && time.Since(m.since) >= m.Every {
				if !q.drain(ctx) {
					return
				}
				if err := m.pause(); err != nil {
					yield(borgio.Change{}, err)
					return
				}
			}
			for q.bytes > aheadBytes {
				if !q.next(ctx) {
					return
				}
			}
			if len(q.jobs) < ahead {
				continue
			}
			// To wait for each of them would wake us for each of them.
			if last := q.jobs[ahead/2]; last.done != nil {
				<-last.done
			}
			for range ahead / 2 {
				if !q.next(ctx) {
					return
				}
			}
		}
		q.drain(ctx)
	}
}

// aheadBytes is how much content may be looked at ahead.
const aheadBytes = 256 << 20

// queue holds the jobs that have begun, in order.
type queue struct {
	m       *Maker
	base    *borgio.Outline
	jobs    []*job
	bytes   int64            // of content in jobs
	masters map[inode]string // of inodes with several names: the first that has begun; "" once that failed
	yield   func(borgio.Change, error) bool
}

// begin makes a job of a change. Where it has content to read, done is to be
// closed by who does that.
func (q *queue) begin(c Changed) *job {
	j := &job{Changed: c}
	q.jobs = append(q.jobs, j)
	if c.Live == nil {
		return j
	}
	q.bytes += c.Live.Size
	if linked(c.Live) {
		id := inode{c.Live.Dev, c.Live.Ino}
		if _, met := q.masters[id]; met {
			return j // decided when its turn comes
		}
		q.masters[id] = c.Path
	}
	j.done = make(chan struct{})
	return j
}

// drain hands all jobs on.
func (q *queue) drain(ctx context.Context) bool {
	for len(q.jobs) > 0 {
		if !q.next(ctx) {
			return false
		}
	}
	return true
}

// next hands the first job on.
func (q *queue) next(ctx context.Context) bool {
	j := q.jobs[0]
	q.jobs[0] = nil
	q.jobs = q.jobs[1:]
	if j.Live == nil {
		return q.yield(borgio.Change{Path: j.Path}, nil)
	}
	q.bytes -= j.Live.Size
	id := inode{j.Live.Dev, j.Live.Ino}
	if j.done != nil {
		<-j.done
	} else if master := q.masters[id]; master != "" {
		if j.item, j.err = q.m.metadata(&j.Changed); j.err == nil {
			j.item.Source = master
		}
	} else { // the master could not be read: perhaps this name can
		j.item, j.err = q.m.content(ctx, j, q.base)
	}
	if j.err != nil {
		if ctx.Err() != nil {
			return q.yield(borgio.Change{}, ctx.Err())
		}
		var read *readError
		if !errors.As(j.err, &read) {
			return q.yield(borgio.Change{}, j.err)
		}
		if q.masters[id] == j.Path {
			q.masters[id] = ""
		}
		q.m.left(j.Live.Path, read.err)
		if errors.Is(read.err, fs.ErrNotExist) { // went away meanwhile
			return q.yield(borgio.Change{Path: j.Path}, nil)
		}
		return q.keep(ctx, j)
	}
	if j.changing {
		q.m.left(j.Live.Path, ErrChanging)
	}
	if linked(j.Live) && j.done == nil && q.masters[id] == "" {
		q.masters[id] = j.Path
	}
	if q.m.Progress != nil && isRegular(j.Live.Mode) {
		p := &q.m.progress
		p.Files, p.Bytes, p.Path = p.Files+1, p.Bytes+j.item.Size, j.Live.Path
		q.m.Progress(*p)
	}
	return q.yield(borgio.Change{Path: j.Path, Item: j.item}, nil)
}

// keep leaves in its place what the base has of a path that could not be read. A
// hard link there becomes a file of its own: its master may be another file by now.
func (q *queue) keep(ctx context.Context, j *job) bool {
	if q.base == nil {
		return true
	}
	it, err := q.m.Tx.BaseItem(ctx, q.base, j.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true
	case err != nil:
		return q.yield(borgio.Change{}, err)
	case isDir(j.Live.Mode) && !isDir(it.Mode): // nothing can be below it
		return q.yield(borgio.Change{Path: j.Path}, nil)
	case it.Source == "" || isLink(it.Mode):
		return true
	}
	master, err := q.m.Tx.BaseItem(ctx, q.base, it.Source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return q.yield(borgio.Change{Path: j.Path}, nil)
	case err != nil:
		return q.yield(borgio.Change{}, err)
	}
	it.Source, it.Chunks, it.Size = "", master.Chunks, master.Size
	return q.yield(borgio.Change{Path: j.Path, Item: it}, nil)
}

// readError says that something in the tree could not be read, which is no
// reason not to archive the rest.
type readError struct{ err error }

func (e *readError) Error() string { return fmt.Sprint("read: ", e.err) }
func (e *readError) Unwrap() error { return e.err }
