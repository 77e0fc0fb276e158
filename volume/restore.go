package volume

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// RestoreOptions choose what to bring back, and where to.
type RestoreOptions struct {
	When   string   // TIME
	Paths  []string // below the volume's root; none is all of it
	To     string   // another directory; "" is the volume itself
	Force  bool     // also over changes that no snapshot holds
	Report Reporter
}

// Restore is a planned restore.
type Restore struct {
	Snapshot snapshot.Info
	Plan     *worktree.Plan
	volume   *Volume
	tree     tree
	root     *worktree.Root
	options  worktree.Options
	force    bool
	report   Reporter
	done     func()
}

// PlanRestore works out what a restore would change. Paths that the snapshot
// does not have stay as they are. Close the result after use.
//
// Errors: fs.ErrNotExist for a moment or path; snapshot.ErrRefused when it
// would overwrite what no snapshot holds.
func (v *Volume) PlanRestore(ctx context.Context, past *Past, o RestoreOptions) (*Restore, error) {
	s, err := past.Resolve(ctx, o.When)
	if err != nil {
		return nil, err
	}
	t, err := past.withContent(ctx, s)
	if err != nil {
		return nil, err
	}
	r := &Restore{Snapshot: s, volume: v, tree: t, force: o.Force, report: o.Report, done: func() {}}
	paths := make([]string, len(o.Paths))
	for i, p := range o.Paths {
		if paths[i], err = cleanPath(p); err != nil {
			return nil, err
		}
		if there, err := r.tree.holds(ctx, paths[i]); err != nil {
			return nil, err
		} else if !there {
			return nil, hint.With(fmt.Errorf("%q was not there at %s: %w", p, s.Dir, fs.ErrNotExist),
				"see when it was with: s4 log "+p)
		}
	}
	if o.To == "" {
		if err := v.acquire(); err != nil {
			return nil, err
		}
		r.root, r.options, r.done, err = v.worktree(ctx)
	} else {
		err = r.openTarget(o.To)
	}
	if err != nil {
		return nil, err
	}
	r.options.Paths = paths
	// The volume's configuration is not a thing of the past, unless it is
	// asked for by name.
	named := slices.ContainsFunc(paths, func(p string) bool { return p == Dir || strings.HasPrefix(p, Dir+"/") })
	if !named {
		r.options.Exclude = allOfS4
	}
	if err := r.plan(ctx, o.To == ""); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Restore) openTarget(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("restore to %s: %w", dir, err)
	}
	root, err := worktree.Open(dir)
	if err != nil {
		return fmt.Errorf("restore to %s: %w", dir, err)
	}
	r.root, r.done = root, func() { _ = root.Close() }
	return nil
}

func (r *Restore) plan(ctx context.Context, inPlace bool) error {
	o := worktree.PlanOptions{Options: r.options, Source: r.tree}
	precious := map[string]bool{}
	if inPlace {
		base, ok, err := r.tree.past.newestIn(ctx, r.Snapshot.Source, r.volume.state.Base.is)
		if err != nil {
			return err
		}
		if ok && base.Indexed {
			o.Base = tree{past: r.tree.past, s: base}
		}
		for c, err := range r.volume.changes(ctx, r.tree.past) {
			if err != nil && c.Path == "" {
				return err
			}
			if written, err := writtenByUs(ctx, r.root, r.options.Stamps, c.Path); err != nil {
				return err
			} else if !written {
				precious[c.Path] = true
			}
		}
	}
	plan, err := r.root.Plan(ctx, r.tree, o)
	if err != nil {
		return err
	}
	r.Plan = plan
	if r.force {
		return nil
	}
	for _, a := range plan.Actions {
		lost := a.Op == worktree.Replace || a.Op == worktree.Delete || a.Op == worktree.MakeLink && a.Old != nil
		if lost && (!inPlace || precious[a.Path]) {
			return hint.With(fmt.Errorf("%w: %q has changes that no snapshot holds", snapshot.ErrRefused, a.Path),
				"push first with: s4 push, restore beside it with --to DIR, or give them up with --force")
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

// Apply carries the plan out.
func (r *Restore) Apply(ctx context.Context) (worktree.Result, error) {
	result, err := r.root.Apply(ctx, r.Plan, worktree.ApplyOptions{
		Source: r.tree, Stamps: r.options.Stamps, Force: r.force, Log: r.volume.log,
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
	r.done()
	r.volume.unlock()
}
