package worktree

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Options say which part of a tree is looked at, and how.
type Options struct {
	// Paths limits everything to these paths and what is below them; none
	// mean the whole tree.
	Paths []string
	// Exclude hides a path, and all below it, on the live side and on the
	// snapshot's.
	Exclude func(path string, dir bool) bool
	// Hidden is told, in walk order, of what Exclude hides on the live side,
	// but not of what is below it; may be nil.
	Hidden func(path string, dir bool)
	// Parallel is how many directories are read at once; 0 means as many
	// as there are processors.
	Parallel int
	// Stamps of this tree; nil when there are none.
	Stamps *Stamps
	// Attributes makes a walk read all extended attributes of entries, the
	// root's aside, while it lists them; nil, and where it says false, reads
	// none. Those of an entry that were read are not nil. It is asked by many
	// goroutines.
	Attributes func() bool
	// Strict makes a comparison leave nothing to guess: what is no regular file
	// and differs only by its ctime is told as Touched, and what has several
	// names though it does not differ, as Same.
	Strict bool
}

// Walk yields the live tree. What cannot be read is yielded as an error with
// the Live's Path set, and the walk goes on; only ctx ends it early. What
// vanishes during the walk is left out. Breaking off is cheap.
func (r *Root) Walk(ctx context.Context, o Options) iter.Seq2[Live, error] {
	return func(yield func(Live, error) bool) {
		for l, err := range r.walk(ctx, o) {
			if err == nil && isTemp(l.Name) {
				continue
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

// walk is Walk, but yields leftover temporary files too.
func (r *Root) walk(ctx context.Context, o Options) iter.Seq2[Live, error] {
	return func(yield func(Live, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		w := &walker{root: r, exclude: o.Exclude, hidden: o.Hidden, attributes: o.Attributes, yield: yield, parallel: o.Parallel}
		if w.parallel <= 0 {
			w.parallel = runtime.GOMAXPROCS(0)
		}
		w.slots = make(chan struct{}, w.parallel)
		defer w.work.Wait()
		defer cancel()
		for _, path := range scope(o.Paths) {
			l, err := r.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !w.visit(ctx, found{l, err}, nil) {
				return
			}
		}
	}
}

// walker is one run of a walk. Directories are listed by goroutines a little
// ahead of the consumer, which keeps the order.
type walker struct {
	root       *Root
	exclude    func(string, bool) bool
	hidden     func(string, bool)
	attributes func() bool
	yield      func(Live, error) bool
	parallel   int
	slots      chan struct{} // one for each listing at work
	work       sync.WaitGroup
}

// found is an entry, or why there is none.
type found struct {
	Live
	err error
}

// listing is a directory being read; done is closed when the rest is set.
type listing struct {
	done    chan struct{}
	entries []found
	err     error
}

func (w *walker) visit(ctx context.Context, f found, ahead *listing) bool {
	if err := ctx.Err(); err != nil {
		w.yield(f.Live, err)
		return false
	}
	dir := f.err == nil && isDir(f.Mode)
	if f.Path != "" && w.exclude != nil && w.exclude(f.Path, dir) {
		if w.hidden != nil {
			w.hidden(f.Path, dir)
		}
		return true
	}
	if dir && f.Path != "" && isTemp(f.Name) {
		return true
	}
	if !w.yield(f.Live, f.err) {
		return false
	}
	if !dir {
		return true
	}
	if ahead == nil {
		ahead = w.list(ctx, f.Path)
	}
	<-ahead.done
	if ahead.err != nil && !errors.Is(ahead.err, fs.ErrNotExist) && ctx.Err() == nil {
		return w.yield(Live{Path: f.Path}, &fs.PathError{Op: "read directory", Path: f.Path, Err: ahead.err})
	}
	return w.children(ctx, ahead.entries)
}

func (w *walker) children(ctx context.Context, entries []found) bool {
	// The window bounds memory: at every level at most this many
	// directories are listed before they are needed.
	window := 2 * w.parallel
	ahead := make(map[int]*listing, window)
	next := 0
	for i, e := range entries {
		for ; next < len(entries) && len(ahead) < window; next++ {
			if next >= i && entries[next].err == nil && isDir(entries[next].Mode) {
				ahead[next] = w.list(ctx, entries[next].Path)
			}
		}
		l := ahead[i]
		delete(ahead, i)
		if !w.visit(ctx, e, l) {
			return false
		}
	}
	return true
}

// list starts to read the directory at path.
func (w *walker) list(ctx context.Context, path string) *listing {
	l := &listing{done: make(chan struct{})}
	w.work.Go(func() {
		defer close(l.done)
		select {
		case w.slots <- struct{}{}:
			defer func() { <-w.slots }()
			l.entries, l.err = w.read(ctx, path)
		case <-ctx.Done():
			l.err = ctx.Err()
		}
	})
	return l
}

func (w *walker) read(ctx context.Context, path string) ([]found, error) {
	fd, err := w.root.openDir(path)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	names, err := readNames(fd)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	entries := make([]found, len(names))
	stat := func(lo, hi int) {
		for i := lo; i < hi && ctx.Err() == nil; i++ {
			entries[i].Live, entries[i].err = statAt(fd, names[i])
			entries[i].Path = join(path, names[i])
			if entries[i].err == nil && w.attributes != nil && w.attributes() {
				entries[i].err = entries[i].readAllXattrs(fd)
			}
			if err := entries[i].err; err != nil {
				entries[i].err = &fs.PathError{Op: "stat", Path: entries[i].Path, Err: err}
			}
		}
	}
	// A very wide directory is worth sharing out.
	const wide = 2048
	var share sync.WaitGroup
	if len(names) >= wide {
		step := (len(names) + w.parallel - 1) / w.parallel
		for lo := step; lo < len(names); lo += step {
			share.Go(func() { stat(lo, min(lo+step, len(names))) })
		}
		stat(0, step)
	} else {
		stat(0, len(names))
	}
	share.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(entries, func(f found) bool { return errors.Is(f.err, fs.ErrNotExist) }), nil
}

// readAllXattrs completes an entry of an open directory.
func (l *Live) readAllXattrs(dir int) (err error) {
	if l.Xattrs, err = readXattrs(procPath(dir, l.Name), func(string) bool { return true }); l.Xattrs == nil {
		l.Xattrs = []snapshot.Xattr{}
	}
	return err
}

func readNames(fd int) ([]string, error) {
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := again(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil || n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func isDir(mode uint32) bool     { return mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFREG }
func isSocket(mode uint32) bool  { return mode&unix.S_IFMT == unix.S_IFSOCK }
func isLink(mode uint32) bool    { return mode&unix.S_IFMT == unix.S_IFLNK }

// excluder returns a filter for one pass over a tree in walk order: it tells
// whether a path, or a directory above it, is hidden.
func excluder(exclude func(string, bool) bool) func(path string, dir bool) bool {
	hidden, hiding := "", false
	return func(path string, dir bool) bool {
		if hiding && within(path, hidden) {
			return true
		}
		hiding = false
		if path == "" {
			return false
		}
		if isTemp(path[strings.LastIndexByte(path, '/')+1:]) || exclude != nil && exclude(path, dir) {
			hidden, hiding = path, true
		}
		return hiding
	}
}
