package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// tempPrefix begins the names of files that a killed pull leaves; worktree
// removes them.
const tempPrefix = ".s4-tmp-"

// tree is one snapshot as package worktree wants it.
type tree struct {
	past *Past
	s    snapshot.Info
	repo *borgio.Repository // knows the ids of content; nil where none is wanted
}

var (
	_ worktree.Tree   = tree{}
	_ worktree.Source = tree{}
)

func (t tree) Walk(ctx context.Context, path string) iter.Seq2[snapshot.Node, error] {
	return t.past.Walk(ctx, t.s.Num, path)
}

func (t tree) Open(ctx context.Context, e snapshot.Entry) (snapshot.File, error) {
	return t.past.Open(ctx, t.s.Num, e)
}

func (t tree) Content(ctx context.Context, e snapshot.Entry) ([]snapshot.Extent, error) {
	return t.past.Index.Content(ctx, e.Version)
}

func (t tree) Verify(id [32]byte, data []byte) bool {
	return t.repo != nil && t.repo.VerifyID(id, data)
}

// withContent is the tree of s for those who fetch content, which needs the
// repository to be reached.
func (p *Past) withContent(ctx context.Context, s snapshot.Info) (tree, error) {
	if p.local != nil && s.Source == p.local.ID() {
		return tree{past: p, s: s}, nil
	}
	if source := p.source(s.Source); source != nil {
		repo, err := source.Repository(ctx)
		return tree{p, s, repo}, err
	}
	if local, err := p.Local(ctx, s.Num); err == nil && local { // a btrfs snapshot
		return tree{past: p, s: s}, nil
	}
	return tree{}, fmt.Errorf("nothing holds snapshot %s any more: %w", s.Dir, fs.ErrNotExist)
}

// holds tells whether the snapshot has something at path.
func (t tree) holds(ctx context.Context, path string) (bool, error) {
	_, err := t.past.Find(ctx, t.s.Num, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// worktree opens the files on disk together with what is known of them, and without
// what is left out of snapshots.
func (v *Volume) worktree(ctx context.Context) (root *worktree.Root, o worktree.Options, done func(), err error) {
	excluded, err := exclusionAt(v.Root)
	if err != nil {
		return nil, o, nil, err
	}
	root, o, done, err = v.worktreeAt(ctx, v.Root)
	also(&o, func(p string, dir bool) bool { return leftOut(excluded, p, dir) })
	return root, o, done, err
}

// worktreeAt opens all files of the volume or of a copy of it: a btrfs snapshot has
// the same inodes, so that the same is known of it.
func (v *Volume) worktreeAt(ctx context.Context, path string) (root *worktree.Root, o worktree.Options, done func(), err error) {
	root, err = worktree.Open(path)
	if err != nil {
		return nil, worktree.Options{}, nil, fmt.Errorf("open volume: %w", err)
	}
	file, err := v.stampsPath()
	if err != nil {
		return nil, worktree.Options{}, nil, errors.Join(err, root.Close())
	}
	stamps, err := openStamps(ctx, file, v.log)
	if err != nil {
		return nil, worktree.Options{}, nil, errors.Join(err, root.Close())
	}
	o = worktree.Options{Stamps: stamps, Exclude: private}
	return root, o, func() {
		if err := errors.Join(stamps.Close(), root.Close()); err != nil {
			v.log.Warn("close working tree", "error", err)
		}
	}, nil
}

// private is what never enters a snapshot and never comes from one: s4's own
// state, and what a plain copy of a mounted volume took along of the names
// that a mount has itself.
func private(p string, _ bool) bool { return slices.Contains(privateNames, p) }

var privateNames = []string{LocalDir, newLocal, SnapshotsDir, Dir + "/history", Dir + "/versions", Dir + "/deleted"}

// allOfS4 also keeps .s4/config out, for snapshots that have none of their own.
func allOfS4(p string, _ bool) bool { return p == Dir }

// hideOwn makes o leave .s4/config alone where the snapshot, one not made by
// s4, does not know it.
func hideOwn(ctx context.Context, t tree, o *worktree.Options) error {
	own, err := t.holds(ctx, configKey)
	if err == nil && !own {
		also(o, allOfS4)
	}
	return err
}

// Change is one path that differs between the live tree and the base.
type Change struct {
	Path string        `json:"path"`
	Kind worktree.Kind `json:"kind"`
}

// changes yields what is not pushed, of these paths or of all. Without a base
// every path is.
func (v *Volume) changes(ctx context.Context, past *Past) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		root, o, done, err := v.worktree(ctx)
		if err != nil {
			yield(Change{}, err)
			return
		}
		defer done()
		for c, err := range v.changesIn(ctx, past, root, o) {
			if !yield(c, err) {
				return
			}
		}
	}
}

// changesIn is changes, of what o lets see.
func (v *Volume) changesIn(ctx context.Context, past *Past, root *worktree.Root, o worktree.Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		base, ok, err := v.base(ctx, past)
		if err != nil {
			yield(Change{}, err)
			return
		}
		if !ok {
			for live, err := range root.Walk(ctx, o) {
				if live.Path != "" && !isSocket(live.Mode) && !yield(Change{live.Path, worktree.Added}, err) {
					return
				}
			}
			return
		}
		t := tree{past: past, s: base}
		if err := hideOwn(ctx, t, &o); err != nil {
			yield(Change{}, err)
			return
		}
		shells := shells{holds: map[string]bool{}}
		o.Hidden = shells.hidden
		for c, err := range shells.without(root.Compare(ctx, t, o)) {
			// Sockets are in no archive, and a directory's time changes
			// with its content.
			if err == nil && (c.Kind == worktree.DirTime || c.New != nil && c.Old == nil && isSocket(c.New.Mode)) {
				continue
			}
			path := c.Path
			if path == "" && err == nil {
				path = "." // the root itself
			}
			if !yield(Change{path, c.Kind}, err) {
				return
			}
		}
	}
}

func isSocket(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFSOCK }

// changedSinceBase tells whether there is anything to push. A path that cannot be
// read counts, for the push to say so, but for those that still cannot be.
func (v *Volume) changedSinceBase(ctx context.Context, past *Past, still map[string]error) (bool, error) {
	for c, err := range v.changes(ctx, past) {
		if err != nil && c.Path == "" {
			return false, err
		}
		if still[c.Path] == nil {
			return true, nil
		}
	}
	return false, nil
}

// cleanPath is a path below a root as snapshots name it.
func cleanPath(p string) (string, error) {
	p = strings.Trim(p, "/")
	if p == "" || p == "." {
		return "", nil
	}
	if c := path.Clean(p); c != p || c == ".." || strings.HasPrefix(c, "../") {
		return "", fmt.Errorf("%w: not a path inside the volume: %q", snapshot.ErrUsage, p)
	}
	return p, nil
}
