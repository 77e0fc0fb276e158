package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/config"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// A volume's own configuration says which paths its snapshots leave out. That is
// part of every snapshot, so that a snapshot tells under which patterns it was
// made, and all copies of a volume agree on what belongs to it. No other
// configuration counts.

// What is left out: by a person, and by the labels of docker services.
const (
	keyExclude       = "push.exclude"
	keyDockerExclude = "docker.exclude"
)

// listed tells whether key has a list of values, which only the volume's own
// configuration has.
func listed(key string) bool {
	return strings.EqualFold(key, keyExclude) || strings.EqualFold(key, keyDockerExclude)
}

// exclusionIn is what a configuration says to leave out. Errors: snapshot.ErrUsage.
func exclusionIn(c *config.File) (*pathspec.Exclusion, error) {
	e, err := pathspec.NewExclusion(slices.Concat(c.Values(keyExclude), c.Values(keyDockerExclude)))
	if err != nil {
		err = hint.With(fmt.Errorf("%s: %w", keyExclude, err), "see them with: s4 config get "+keyExclude)
	}
	return e, err
}

// LeaveOut makes patterns the ones that docker's labels leave paths out by, beside
// those that a person has set.
func (v *Volume) LeaveOut(patterns []string) error {
	if slices.Equal(v.Config.Values(keyDockerExclude), patterns) {
		return nil
	}
	return v.setList(keyDockerExclude, patterns)
}

// exclusionAt is what the volume or snapshot at root says to leave out.
func exclusionAt(root string) (*pathspec.Exclusion, error) {
	c, err := config.Load(filepath.Join(root, configKey))
	if err != nil {
		return nil, err
	}
	return exclusionIn(c)
}

// leftOut tells whether e leaves a path of a volume out: never what is s4's own.
func leftOut(e *pathspec.Exclusion, p string, dir bool) bool {
	return e.Match(p, dir) && p != Dir && !strings.HasPrefix(p, Dir+"/")
}

// hides is leftOut of the path or of a directory above it.
func hides(e *pathspec.Exclusion, p string, dir bool) bool {
	return e.Hides(p, dir) && p != "." && p != Dir && !strings.HasPrefix(p, Dir+"/")
}

// also hides for o what more does.
func also(o *worktree.Options, more func(p string, dir bool) bool) {
	others := o.Exclude
	o.Exclude = func(p string, dir bool) bool { return more(p, dir) || others != nil && others(p, dir) }
}

// config is the snapshot's own configuration. Errors: fs.ErrNotExist.
func (t tree) config(ctx context.Context) (*config.File, error) {
	e, err := t.past.Find(ctx, t.s.Num, configKey)
	if err != nil {
		return nil, err
	}
	f, err := t.past.Open(ctx, t.s.Num, e)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var text strings.Builder
	if _, err := f.WriteTo(&text); err != nil {
		return nil, fmt.Errorf("read %s of the snapshot: %w", configKey, err)
	}
	c, err := config.Parse([]byte(text.String()))
	if err != nil {
		return nil, fmt.Errorf("read %s of the snapshot: %w", configKey, err)
	}
	return c, nil
}

// arrival is what happens to files that are left out when a snapshot arrives: those
// that it leaves out are none of its business; those that only the volume left out
// until now are held by no snapshot, so they stay.
type arrival struct {
	before, after *pathspec.Exclusion
	met           bool // there are such files
}

// arriving looks up what counts, and has a plan heed it.
func arriving(ctx context.Context, root string, t tree, plan *worktree.PlanOptions) (*arrival, error) {
	before, err := exclusionAt(root)
	if err != nil {
		return nil, err
	}
	a := &arrival{before, before, false}
	theirs, err := t.config(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, snapshot.ErrDamaged): // what is here stays
	case err != nil:
		return nil, err
	default:
		if a.after, err = exclusionIn(theirs); err != nil {
			return nil, err
		}
	}
	also(&plan.Options, func(p string, dir bool) bool { return leftOut(a.after, p, dir) })
	plan.Hidden = func(p string, dir bool) { a.met = a.met || leftOut(a.after, p, dir) }
	if !a.before.Empty() && !a.before.Equal(a.after) {
		plan.Protect = func(p string, dir bool) bool { return leftOut(a.before, p, dir) }
	}
	return a, nil
}

// refuse gives snapshot.ErrRefused where the plan would replace what no snapshot
// holds since it was left out.
func (a *arrival) refuse(plan *worktree.Plan) error {
	for i := range plan.Actions {
		x := &plan.Actions[i]
		lost := x.Old != nil && (x.Op == worktree.Replace || x.Op == worktree.MakeLink)
		if lost && hides(a.before, x.Path, x.Old.Mode&unix.S_IFMT == unix.S_IFDIR) {
			return hint.With(fmt.Errorf("%w: %q was left out of snapshots here, and the one that arrives has another", snapshot.ErrRefused, x.Path),
				"move it away, or give it up with --force")
		}
	}
	return nil
}

// sparing keeps a restore away from what the volume leaves out, unless it, or
// something in it, is among the paths that were asked for.
func (v *Volume) sparing(o *worktree.Options, paths []string) error {
	e, err := exclusionAt(v.Root)
	if err != nil {
		return err
	}
	named := slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !e.Hides(p, true) && !e.Hides(p, false) })
	also(o, func(p string, dir bool) bool {
		return leftOut(e, p, dir) && !slices.ContainsFunc(named, func(n string) bool { return p == n || strings.HasPrefix(p, n+"/") })
	})
	return nil
}

// shells are new directories that hold nothing but what is left out. A pull leaves
// them where a directory goes that has such files in it, so they are no change.
type shells struct {
	holds   map[string]bool // directories above something that is left out
	pending []worktree.Change
}

func (s *shells) hidden(p string, _ bool) {
	for dir := path.Dir(p); dir != "." && !s.holds[dir]; dir = path.Dir(dir) {
		s.holds[dir] = true
	}
}

// without keeps them back, given changes in the order of a walk that tells hidden.
func (s *shells) without(changes iter.Seq2[worktree.Change, error]) iter.Seq2[worktree.Change, error] {
	return func(yield func(worktree.Change, error) bool) {
		for c, err := range changes {
			if !s.leave(c.Path, yield) {
				return
			}
			if err == nil && c.Kind == worktree.Added && c.New.Mode&unix.S_IFMT == unix.S_IFDIR {
				s.pending = append(s.pending, c)
				continue
			}
			if !s.tell(yield) || !yield(c, err) {
				return
			}
		}
		s.leave("", yield)
	}
}

// leave decides about the directories that path is not in.
func (s *shells) leave(path string, yield func(worktree.Change, error) bool) bool {
	for n := len(s.pending) - 1; n >= 0 && !strings.HasPrefix(path, s.pending[n].Path+"/"); n = len(s.pending) - 1 {
		if s.holds[s.pending[n].Path] {
			s.pending = s.pending[:n]
		} else if !s.tell(yield) { // it is empty
			return false
		}
	}
	return true
}

// tell tells of those that have turned out to be none.
func (s *shells) tell(yield func(worktree.Change, error) bool) bool {
	for _, c := range s.pending {
		if !yield(c, nil) {
			return false
		}
	}
	s.pending = nil
	return true
}
