package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/diff"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// ReplacedDir is where files lie that a restore with Keep replaced, each time
// in a directory of its own.
const ReplacedDir = LocalDir + "/replaced"

// RestoreOptions choose what to bring back, and where to.
type RestoreOptions struct {
	When   string   // TIME
	Paths  []string // below the volume's root, or patterns; none is all of it
	To     string   // another directory; "" is the volume itself
	DryRun bool     // it will not be applied: nothing is made for it
	Force  bool     // also over changes that no snapshot holds
	Keep   bool     // over those, too, but move what they replace to ReplacedDir
	Report Reporter
}

// Restore is a planned restore.
type Restore struct {
	Snapshot snapshot.Info
	Plan     *worktree.Plan
	// Refused are the paths that it would replace although no snapshot holds
	// what is there. While there are any, Apply does nothing.
	Refused []string
	// Kept is the directory below the volume's root into which what is
	// replaced moves; "" without RestoreOptions.Keep.
	Kept     string
	volume   *Volume // nil where there is none
	tree     tree
	root     *worktree.Root
	options  worktree.Options
	precious map[string]bool
	inPlace  bool
	force    bool
	report   Reporter
	done     []func()
}

// PlanRestore works out what a restore would change in the volume, which may
// be nil when it is to another directory. Paths that the snapshot does not
// have stay as they are. Close the result after use.
//
// Errors: fs.ErrNotExist for a moment or path.
func (p *Past) PlanRestore(ctx context.Context, v *Volume, o RestoreOptions) (_ *Restore, err error) {
	switch {
	case o.To == "" && v == nil:
		return nil, fmt.Errorf("%w: without a volume a directory to restore to is needed", snapshot.ErrUsage)
	case o.To != "" && o.Keep:
		return nil, fmt.Errorf("%w: only a volume has a place to keep what is replaced", snapshot.ErrUsage)
	}
	s, err := p.Resolve(ctx, o.When)
	if err != nil {
		return nil, err
	}
	if err := p.ensure(ctx, &s, o.Report); err != nil {
		return nil, err
	}
	t, err := p.withContent(ctx, s)
	if o.DryRun && errors.Is(err, snapshot.ErrUnreachable) {
		o.Report.warn("what only touched files hold cannot be told apart, so they count as changed: %v", err)
		t, err = tree{past: p, s: s}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &Restore{Snapshot: s, volume: v, tree: t, inPlace: o.To == "", force: o.Force, report: o.Report, precious: map[string]bool{}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	paths, err := t.choose(ctx, o.Paths)
	if err != nil {
		return nil, err
	}
	if err := r.open(ctx, o); err != nil {
		return nil, err
	}
	r.options.Paths = paths
	// The volume's configuration is not a thing of the past, unless it is
	// asked for by name.
	named := slices.ContainsFunc(paths, func(p string) bool { return p == Dir || strings.HasPrefix(p, Dir+"/") })
	if !named {
		also(&r.options, allOfS4)
	}
	if r.inPlace {
		if err := v.sparing(&r.options, paths); err != nil {
			return nil, err
		}
	}
	return r, r.plan(ctx)
}

// choose makes paths of the snapshot out of paths and patterns.
func (t tree) choose(ctx context.Context, specs []string) ([]string, error) {
	there := func(path string) bool { return t.past.Has(ctx, t.s, path) }
	for i, spec := range specs {
		clean, err := cleanPath(spec)
		if err != nil {
			return nil, err
		}
		specs[i] = clean
		if !pathspec.IsPattern(clean) && !there(clean) {
			return nil, t.missing(ctx, clean)
		}
	}
	set, err := pathspec.New(specs, there)
	if err != nil {
		return nil, err
	}
	paths := slices.Clone(set.Literal())
	for _, pattern := range set.Patterns() {
		one, err := pathspec.New([]string{pattern}, nil)
		if err != nil {
			return nil, err
		}
		found, err := t.past.Matching(ctx, t.s, one)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, t.missing(ctx, pattern)
		}
		paths = append(paths, found...)
	}
	return paths, nil
}

// missing tells that path was not there, and where it is.
func (t tree) missing(ctx context.Context, path string) error {
	err := fmt.Errorf("%q was not there at %s: %w", path, t.s.Dir, fs.ErrNotExist)
	held, errHeld := t.past.LastHeld(ctx, []string{path}, nil)
	if errHeld != nil {
		return hint.With(err, "see what was there with: s4 ls "+t.s.Dir)
	}
	last := held[len(held)-1].Snapshot.Dir
	return hint.With(err, fmt.Sprintf("it was last there at %s; bring it back with: s4 restore --deleted %s", last, quote.Shell(path)))
}

// open opens the directory to restore to.
func (r *Restore) open(ctx context.Context, o RestoreOptions) error {
	if o.To == "" {
		if err := r.volume.acquire(ctx); err != nil {
			return err
		}
		r.done = append(r.done, r.volume.unlock)
		root, options, done, err := r.volume.worktreeAt(ctx, r.volume.Root)
		if err != nil {
			return err
		}
		r.root, r.options = root, options
		r.done = append(r.done, done)
		if o.Keep {
			r.Kept = ReplacedDir + "/" + time.Now().UTC().Format(snapshot.DirFormat)
		}
		return nil
	}
	dir := o.To
	if _, err := os.Stat(dir); o.DryRun && errors.Is(err, fs.ErrNotExist) {
		// An empty one stands in for it.
		if dir, err = os.MkdirTemp("", "s4-"); err != nil {
			return fmt.Errorf("restore to %s: %w", o.To, err)
		}
		r.done = append(r.done, func() { _ = os.Remove(dir) })
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("restore to %s: %w", dir, err)
	}
	root, err := worktree.Open(dir)
	if err != nil {
		return fmt.Errorf("restore to %s: %w", dir, err)
	}
	r.root = root
	r.done = append(r.done, func() { _ = root.Close() })
	return nil
}

func (r *Restore) plan(ctx context.Context) error {
	o := worktree.PlanOptions{Options: r.options, Source: r.tree}
	if r.inPlace {
		base, ok, err := r.tree.past.newestIn(ctx, r.Snapshot.Source, r.volume.state.Base.is)
		if err != nil {
			return err
		}
		if ok && base.Indexed {
			o.Base = tree{past: r.tree.past, s: base}
		}
		for c, err := range r.volume.changesIn(ctx, r.tree.past, r.root, r.options) {
			if err != nil && c.Path == "" {
				return err
			}
			if written, err := writtenByUs(ctx, r.root, r.options.Stamps, c.Path); err != nil {
				return err
			} else if !written {
				r.precious[c.Path] = true
			}
		}
	}
	plan, err := r.root.Plan(ctx, r.tree, o)
	if err != nil {
		return err
	}
	r.Plan = plan
	for i := range plan.Actions {
		a := &plan.Actions[i]
		lost := a.Op == worktree.Replace || a.Op == worktree.Delete || a.Op == worktree.MakeLink && a.Old != nil
		if lost && !r.force && r.Kept == "" && (!r.inPlace || r.precious[a.Path]) {
			r.Refused = append(r.Refused, a.Path)
		}
	}
	return nil
}

// writtenByUs tells whether path is still just what s4 brought from some
// snapshot.
func writtenByUs(ctx context.Context, root *worktree.Root, stamps *worktree.Stamps, path string) (bool, error) {
	live, err := root.Stat(path)
	if err != nil {
		return false, nil //nolint:nilerr // what cannot be looked at is not known to be ours
	}
	for s, err := range stamps.All(ctx, path) {
		if err != nil || s.Path != path {
			return false, err
		}
		return s.Ino == live.Ino && s.Ctime == live.Ctime, nil
	}
	return false, nil
}

// Refusal is snapshot.ErrRefused when there is something that Apply must not
// overwrite.
func (r *Restore) Refusal() error {
	if len(r.Refused) == 0 {
		return nil
	}
	more := ""
	if n := len(r.Refused) - 1; n > 0 {
		more = fmt.Sprintf(", and so have %d more", n)
	}
	advice := "push first with: s4 push, move them aside with --keep, restore beside them with --to DIR, or give them up with --force"
	if !r.inPlace {
		advice = "choose an empty directory, or overwrite with --force"
	}
	return hint.With(fmt.Errorf("%w: %q has changes that no snapshot holds%s", snapshot.ErrRefused, r.Refused[0], more), advice)
}

// What tells how the path of an action changes.
func (r *Restore) What(a *worktree.Action) diff.What {
	var old *snapshot.Entry
	if a.Old != nil {
		e := a.Old.Entry
		e.Xattrs, _ = r.root.Xattrs(a.Path) // only to tell; what cannot be read shows as changed
		old = &e
	}
	switch a.Op {
	case worktree.Create:
		return diff.Added
	case worktree.Delete:
		return diff.Removed
	case worktree.MakeLink:
		if old == nil {
			return diff.Added | diff.Links
		}
		return diff.Links
	}
	return diff.Become(old, worktree.AsOnDisk(a.Old, a.New), a.Op == worktree.Replace)
}

// Apply carries the plan out. Errors: snapshot.ErrRefused as Refusal gives it,
// and those of [worktree.Root.Apply].
func (r *Restore) Apply(ctx context.Context) (worktree.Result, error) {
	if err := r.Refusal(); err != nil {
		return worktree.Result{}, err
	}
	result, err := r.root.Apply(ctx, r.Plan, worktree.ApplyOptions{
		Source: r.tree, Stamps: r.options.Stamps, Force: r.force, Log: r.tree.past.log, Sync: worktree.SyncReplaced,
		Keep: r.Kept, Keeps: func(path string) bool { return r.precious[path] },
		Progress: func(p worktree.Progress) {
			r.report.progress(Progress{Verb: "restoring", Files: int64(p.Done), TotalFiles: int64(p.Actions), Bytes: p.Bytes, TotalBytes: p.AllOfThem})
		},
	})
	if result.Unowned > 0 {
		r.report.warn("the owner of %d path(s) could not be set; run as root to keep owners", result.Unowned)
	}
	return result, err
}

// Close lets go of the directory and of the volume's lock.
func (r *Restore) Close() {
	for _, done := range slices.Backward(r.done) {
		done()
	}
	r.done = nil
}
