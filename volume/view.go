package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/snapshot"
)

// View is a tree that holds still while it is pushed.
type View struct {
	Root string // the directory to read
	// Snapshot is the btrfs snapshot that Root is of; nil where the files
	// are read as they stand.
	Snapshot *snapshot.Info
	// Fresh tells that the snapshot was taken for this view.
	Fresh bool
	// Differs tells that the view is known to differ from the base.
	Differs bool

	since *difference // from the snapshot before; nil where it was not asked for
}

// difference is what btrfs tells to have changed since a snapshot was taken.
type difference struct {
	handle  string // the snapshot's
	changes []btrfsvol.Change
}

// view gives the consistent view that a push reads. On btrfs that is the newest
// snapshot if nothing has changed since, or one that is taken now, as it is always
// with anew. A plain directory can only be read as it stands; borg then reports files
// that changed meanwhile. held are the snapshots at the remote, which the view is to
// come after.
func (v *Volume) view(ctx context.Context, message string, held []snapshot.Info, anew bool, report Reporter) (*View, error) {
	if !v.subvolume {
		return &View{Root: v.Root}, nil
	}
	if may, err := btrfsvol.MayDelete(v.Root); err != nil {
		return nil, err
	} else if !may {
		v.log.Info("no btrfs snapshot is taken, as only root could delete it again")
		return &View{Root: v.Root}, nil
	}
	if others, err := v.nested(); err != nil {
		return nil, err
	} else if len(others) > 0 {
		report.warn("the files are read as they stand: a btrfs snapshot would leave out the subvolume %s", others[0])
		return &View{Root: v.Root}, nil
	}
	if err := btrfsvol.Sync(v.Root); err != nil {
		return nil, err
	}
	store := v.store()
	taken, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	last, ok := newest(taken, func(snapshot.Info) bool { return true })
	isBase := v.state.Base.is(last)
	reusable := ok && !anew && (isBase || message == "" && follows(last, held))
	if reusable {
		if same, err := btrfsvol.Untouched(v.Root, store.Path(last.Handle)); err != nil {
			return nil, err
		} else if same {
			return &View{Root: store.Path(last.Handle), Snapshot: &last}, nil
		}
	}
	info, err := store.Take(ctx, v.Root, v.newSnapshot(message, append(taken, held...), report))
	if err != nil {
		return nil, err
	}
	view := &View{Root: store.Path(info.Handle), Snapshot: &info, Fresh: true}
	if !reusable {
		return view, nil
	}
	changes, same, err := compare(ctx, store.Path(last.Handle), view.Root)
	switch {
	case errors.Is(err, fs.ErrPermission): // only root may ask btrfs what changed
	case err != nil:
		return nil, errors.Join(err, v.drop(view))
	case same:
		return &View{Root: store.Path(last.Handle), Snapshot: &last}, v.drop(view)
	default:
		view.Differs = isBase
		view.since = &difference{last.Handle, changes}
	}
	return view, nil
}

// nested lists the subvolumes in the volume that are not s4's own.
func (v *Volume) nested() ([]string, error) {
	all, err := btrfsvol.Nested(v.Root)
	return slices.DeleteFunc(all, func(path string) bool { return private(path, true) }), err
}

// compare tells in what two snapshots differ, and whether that is nothing but what is
// this host's own or left out. Where other patterns count, their configurations differ.
func compare(ctx context.Context, a, b string) (changes []btrfsvol.Change, same bool, err error) {
	excluded, err := exclusionAt(b)
	if err != nil {
		return nil, false, err
	}
	changes, err = btrfsvol.Changes(ctx, a, b, btrfsvol.Options{Exclude: LocalDir})
	return changes, err == nil && !slices.ContainsFunc(changes, func(c btrfsvol.Change) bool {
		seen := func(p string) bool { return p != "" && !hides(excluded, p, c.Mode.IsDir()) }
		return (!c.OnlyTimes() || !c.Mode.IsDir()) && (seen(c.Path) || seen(c.OldPath))
	}), err
}

// follows tells whether s is at the remote already or may come after all that is.
func follows(s snapshot.Info, held []snapshot.Info) bool {
	after := true
	for _, h := range held {
		if h.ID == s.ID {
			return true
		}
		after = after && h.Time.Before(s.Time)
	}
	return after
}

// drop gives a view up that was not pushed.
func (v *Volume) drop(view *View) error {
	if view.Snapshot == nil || !view.Fresh {
		return nil
	}
	if err := v.store().Delete(view.Snapshot.Handle); err != nil {
		return fmt.Errorf("remove the snapshot that was not needed: %w", err)
	}
	view.Fresh = false
	return nil
}
