package worktree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Sync says when written files are made durable.
type Sync int

// The values of Sync.
const (
	SyncOnce Sync = iota // one syncfs at the end, before stamps are recorded
	SyncEach             // each file before its rename, and one syncfs at the end
	SyncNone             // never
	// SyncReplaced makes each file durable that takes another's place, before
	// its rename, and the rest with one syncfs at the end: what was there is
	// never lost to a power failure, and what was not can be fetched again.
	SyncReplaced
)

// ApplyOptions are the options of [Root.Apply].
type ApplyOptions struct {
	Source Source
	Stamps *Stamps // nil records none
	Force  bool    // replace and delete also what changed after the plan was made
	// Keep is a directory below the root into which files move, under their
	// whole path, before they are replaced or deleted; "" keeps none. It must
	// be on their file system. Keeps chooses among them; nil chooses all.
	Keep     string
	Keeps    func(path string) bool
	Sync     Sync
	Parallel int            // files fetched at once; 0 means 8
	Progress func(Progress) // called from one goroutine at a time, a few times a second and once at the end
	Log      *slog.Logger   // nil discards
}

// Progress is how far Apply is.
type Progress struct {
	Done, Actions    int   // actions
	Bytes, AllOfThem int64 // content written, and to be written
}

// Result is what Apply did.
type Result struct {
	Created  int   `json:"created"`
	Replaced int   `json:"replaced"`
	Metadata int   `json:"metadata"`
	Linked   int   `json:"linked"`
	Deleted  int   `json:"deleted"`
	Kept     int   `json:"kept,omitempty"`   // files that moved to ApplyOptions.Keep
	Spared   int   `json:"spared,omitempty"` // as in Plan
	Fetched  int64 `json:"fetched"`          // bytes that came from the source
	Reused   int64 `json:"reused"`           // bytes that came from local files
	Unowned  int   `json:"unowned"`          // paths whose owner or group could not be set
	Unset    int   `json:"unset"`            // paths whose attributes or flags could not all be set
}

// PathError is what went wrong with one path of a plan.
type PathError struct {
	Op   Op
	Path string
	Err  error
}

func (e *PathError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

// Apply carries out a plan. What goes wrong with a path, in a *[PathError], or
// was a problem of the plan, does not stop the others; all such errors are
// returned together at the end. Two kinds matter most: [snapshot.ErrDamaged]
// means that content could not be had whole, and the path is as it was;
// [snapshot.ErrRefused] that a path is no longer what the plan saw, and was
// left alone. A full disk, a source that is gone and the end of ctx stop
// everything; every path then is either as it was or as it shall be, and a
// new plan carries on from there.
func (r *Root) Apply(ctx context.Context, p *Plan, o ApplyOptions) (Result, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	a := &applier{root: r, plan: p, o: o, failed: map[string]error{}, inPlace: map[inode]bool{}, rooms: map[string][]*Action{}}
	a.progress.Actions, a.progress.AllOfThem = len(p.Actions), p.Bytes()
	a.errs, a.res.Spared = slices.Clone(p.Problems), p.Spared
	err := a.run(ctx)
	a.report(true)
	if err != nil {
		return a.res, errors.Join(append([]error{err}, a.errs...)...)
	}
	return a.res, errors.Join(a.errs...)
}

// applier is one run of Apply.
type applier struct {
	root *Root
	plan *Plan
	o    ApplyOptions
	// rooms holds what is deleted to make room for another type, by the
	// directory that goes; done only when the new file is complete.
	rooms map[string][]*Action

	mu       sync.Mutex // guards what follows
	res      Result
	errs     []error
	failed   map[string]error // by path
	inPlace  map[inode]bool   // inodes of several names whose metadata was set in place
	written  []stamped
	flagged  []*Action // written, with inode flags still to be set
	moved    []inode   // inodes that lost or won a name
	progress Progress
	reported time.Time
}

func (a *applier) run(ctx context.Context) error {
	fatal := a.steps(ctx)
	// Whatever happened, directories get the modes they shall have: making
	// and filling them may have needed others.
	a.finishDirs()
	a.finishFlags()
	if ctx.Err() != nil {
		return ctx.Err() // without stamps: the next plan compares by content
	}
	if err := a.sync(); err != nil {
		return errors.Join(fatal, err)
	}
	return errors.Join(fatal, a.stamp(ctx))
}

func (a *applier) steps(ctx context.Context) error {
	a.removeLeftovers()
	var files, links, deletes []*Action
	var dirs []*Action
	for i := range a.plan.Actions {
		switch x := &a.plan.Actions[i]; {
		case x.Op == Delete && x.room != "":
			a.rooms[x.room] = append(a.rooms[x.room], x)
		case x.Op == Delete:
			deletes = append(deletes, x)
		case x.Op == MakeLink:
			links = append(links, x)
		case isDir(x.New.Mode):
			dirs = append(dirs, x)
		default:
			files = append(files, x)
		}
	}
	slices.Reverse(deletes)
	a.loosenDirs()
	for _, step := range []struct {
		actions  []*Action
		parallel int
		do       func(context.Context, *Action) error
	}{
		{dirs, 1, a.makeDir},
		{files, a.o.Parallel, a.put},
		{links, 1, a.link},
		{deletes, 1, a.remove}, // last, so that their content could be used again
	} {
		if err := a.each(ctx, step.actions, step.parallel, step.do); err != nil {
			return err
		}
	}
	return nil
}

// each runs do for all actions, a few at once, and returns only what stops
// everything.
func (a *applier) each(ctx context.Context, actions []*Action, parallel int, do func(context.Context, *Action) error) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, x := range actions {
		if inner.Err() != nil {
			break
		}
		g.Go(func() error {
			err := do(inner, x)
			a.finished(x, err)
			if err != nil && stopsAll(err) {
				return &PathError{x.Op, x.Path, err}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func stopsAll(err error) bool {
	for _, e := range []error{
		unix.ENOSPC, unix.EDQUOT, unix.EROFS, context.Canceled, context.DeadlineExceeded,
		snapshot.ErrUnreachable, snapshot.ErrKey, snapshot.ErrLocked,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (a *applier) finished(x *Action, err error) {
	a.mu.Lock()
	a.progress.Done++
	switch {
	case err == nil:
		a.count(x)
	case stopsAll(err): // comes back by itself
	case a.belowFailed(x.Path): // said already
	default:
		a.errs = append(a.errs, &PathError{x.Op, x.Path, err})
		a.failed[x.Path] = err
		a.o.Log.Debug("path left alone", "op", x.Op, "path", x.Path, "err", err)
	}
	a.mu.Unlock()
	a.report(false)
}

func (a *applier) count(x *Action) {
	switch x.Op {
	case Create:
		a.res.Created++
	case Replace:
		a.res.Replaced++
	case SetMeta:
		a.res.Metadata++
	case MakeLink:
		a.res.Linked++
	case Delete:
		a.res.Deleted++
	}
	if x.Old != nil && x.Old.Nlink > 1 {
		a.moved = append(a.moved, inode{x.Old.Dev, x.Old.Ino})
	}
}

func (a *applier) belowFailed(path string) bool {
	for path != "" {
		if path, _ = split(path); a.failed[path] != nil {
			return true
		}
	}
	return false
}

// report tells the caller how far things are, at most a few times a second.
func (a *applier) report(last bool) {
	if a.o.Progress == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); last || now.Sub(a.reported) >= 100*time.Millisecond {
		a.reported = now
		a.o.Progress(a.progress)
	}
}

func (a *applier) removeLeftovers() {
	for _, l := range a.plan.leftovers {
		err := a.root.at(l.Path, func(dir int, name string) error {
			if err := clearFlags(dir, name, l.Flags); err != nil {
				return err
			}
			return unix.Unlinkat(dir, name, 0)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.o.Log.Warn("temporary file of an earlier run stays", "path", l.Path, "err", err)
		}
	}
}

func (a *applier) sync() error {
	if a.o.Sync == SyncNone || len(a.plan.Actions) == 0 {
		return nil
	}
	fd, err := a.root.openDir("")
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer closeFD(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// stamp records every path that was written or verified, as it is now, and
// the clean names of inodes whose ctime moved because another name went.
func (a *applier) stamp(ctx context.Context) error {
	if a.o.Stamps == nil {
		return nil
	}
	all := slices.Concat(a.written, a.plan.verified)
	for _, id := range a.moved {
		for _, s := range a.plan.links[id] {
			all = append(all, *s)
		}
	}
	stamps := make([]Stamp, 0, len(all))
	for _, s := range all {
		l, err := a.root.Stat(s.path)
		// Somebody else's work is not vouched for.
		if err != nil || s.ino != l.Ino || isRegular(l.Mode) && l.Size != s.entry.Size {
			continue
		}
		stamps = append(stamps, NewStamp(l, *s.entry))
	}
	if err := a.o.Stamps.Put(ctx, stamps); err != nil {
		return err
	}
	var gone []string
	for i := range a.plan.Actions {
		if x := &a.plan.Actions[i]; x.Op == Delete {
			gone = append(gone, x.Path)
		}
	}
	return a.o.Stamps.Forget(ctx, gone)
}
