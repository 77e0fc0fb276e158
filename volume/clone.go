package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// CloneOptions choose what to clone.
type CloneOptions struct {
	URL    string // of a repository, with ::ARCHIVE for one archive
	Dir    string // "" is the repository's name, here
	Name   string // "" is the one in the snapshot, else the repository's
	At     string // TIME; "" is the newest snapshot
	Onward bool   // what is pushed later goes on top of newer snapshots than that
	Report Reporter
}

// CloneResult is what a clone made.
type CloneResult struct {
	Root     string           `json:"root"`
	Name     string           `json:"name"`
	ID       string           `json:"id"`
	Snapshot snapshot.Info    `json:"snapshot,omitzero"` // none from an empty repository
	Changes  *worktree.Result `json:"changes,omitempty"`
}

// Clone makes a volume from a repository, made by s4 or by borg. One that was
// interrupted is carried on by the same call.
//
// Errors: fs.ErrNotExist for a repository or snapshot; snapshot.ErrRefused
// when the directory is there and not empty.
func Clone(ctx context.Context, o CloneOptions, a *reach.Access) (*CloneResult, error) {
	loc, err := reach.ParseLocation(o.URL)
	if err != nil {
		return nil, err
	}
	dir := o.Dir
	if dir == "" {
		dir = strings.TrimSuffix(path.Base(loc.Path), ".borg")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	created, err := clonePlace(dir, loc)
	if err != nil {
		return nil, err
	}
	o.Report.note("Cloning into '%s'...", filepath.Base(dir))
	repo, err := a.Open(ctx, loc)
	if err != nil {
		return nil, missingRepository(err, loc)
	}
	if created {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			repo.Close()
			return nil, fmt.Errorf("clone: %w", err)
		}
	}
	result, err := cloneInto(ctx, dir, loc, &repository{Repository: repo, Location: loc}, o, a)
	if err != nil && created && result == nil {
		// Nothing arrived: leave no empty shell behind.
		_ = os.RemoveAll(filepath.Join(dir, LocalDir))
		_ = os.Remove(filepath.Join(dir, Dir))
		_ = os.Remove(dir)
	}
	return result, err
}

// clonePlace tells whether dir has to be made. One that is there must be
// empty or an interrupted clone of the same repository.
func clonePlace(dir string, loc borgio.Location) (create bool, err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if outer, err := Find(filepath.Dir(dir)); err == nil {
			return false, fmt.Errorf("%w: %s is inside the volume %s", snapshot.ErrRefused, dir, outer)
		}
		return true, nil
	}
	if err != nil {
		return false, staleHint(dir, err)
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); errors.Is(err, io.EOF) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("%w: %s is not a directory", snapshot.ErrUsage, dir)
	}
	if s, err := loadState(filepath.Join(dir, LocalDir, "state.json")); err == nil && s.Base == nil && s.Arriving != nil {
		for _, r := range s.Repositories {
			if r.URL == loc.String() {
				return false, nil
			}
		}
	}
	return false, hint.With(fmt.Errorf("%w: %s is there already and not empty", snapshot.ErrRefused, dir),
		"name another directory: s4 clone URL DIR")
}

func cloneInto(ctx context.Context, dir string, loc borgio.Location, repo *repository, o CloneOptions, a *reach.Access) (*CloneResult, error) {
	v, err := layOut(dir, a)
	if err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	defer v.Close()
	if err := v.acquire(ctx); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	if v.ID() == "" {
		if err := v.adoptID(ctx, repo); err != nil {
			return nil, errors.Join(reach.Explain(err, loc), repo.Close())
		}
	}
	known, err := v.meet(repo, Remote{}, true)
	if err != nil {
		return nil, err
	}
	past, err := v.Past(ctx)
	if err != nil {
		return nil, err
	}
	if err := past.Refresh(ctx); err != nil {
		return nil, reach.Explain(err, loc)
	}
	target, err := cloneTarget(ctx, past, loc, o.At)
	if err != nil {
		return nil, err
	}
	result := &CloneResult{Root: dir}
	name := o.Name
	indexed := v.indexPath()
	var damage error // costs single files, not the clone
	if target == nil {
		o.Report.warn("%s holds no snapshots: the volume is empty", loc)
	} else {
		if err := past.ensure(ctx, target, o.Report); err != nil {
			return nil, err
		}
		result.Snapshot = *target
		if err := v.identify(ctx, past, *target); err != nil {
			return nil, err
		}
		result.Changes, damage = v.bring(ctx, past, *target, known, false, false, nil, o.Report)
		if damage != nil && !onlyDamaged(damage) {
			return result, damage
		}
		if o.Onward {
			held, err := past.Index.Snapshots(ctx, target.Source)
			if err != nil {
				return result, err
			}
			for _, s := range held {
				known.see(s.ID)
			}
		}
	}
	if name == "" {
		name = cloneName(v.Name(), loc, dir)
	}
	if err := v.finishClone(loc, known.Encryption, name, o.Name != "", result); err != nil {
		return result, err
	}
	// The first s4 said the volume's id in .s4/config only, after the index
	// was begun under another.
	if now := v.indexPath(); now != indexed {
		err := errors.Join(damage, v.past.Close(), os.Rename(indexed, now))
		v.past = nil
		return result, err
	}
	return result, damage
}

// adoptID gives the volume the id that the newest archive's comment tells,
// else one of its own.
func (v *Volume) adoptID(ctx context.Context, repo *repository) error {
	manifest, err := repo.Manifest(ctx)
	if err != nil {
		return err
	}
	id := uuid.NewString()
	for _, ref := range slices.Backward(manifest.Archives) {
		if borgio.IsCheckpoint(ref.Name) {
			continue
		}
		archive, err := repo.Archive(ctx, ref.ID)
		if err != nil {
			return err
		}
		if c := history.ParseComment(archive.Comment); c.Volume != "" {
			id = c.Volume
		}
		break
	}
	return v.Config.Set(keyID, id)
}

// cloneTarget is the snapshot to clone; nil when there are none.
func cloneTarget(ctx context.Context, past *Past, loc borgio.Location, at string) (*snapshot.Info, error) {
	if loc.Archive != "" || at != "" {
		return chosen(ctx, past, loc, at)
	}
	line, err := past.Timeline(ctx)
	if err != nil || len(line) == 0 {
		return nil, err
	}
	return &line[len(line)-1], nil
}

// cloneName is what a clone is called: what the snapshot says, else what the
// repository is called, else what the directory is.
func cloneName(own string, loc borgio.Location, dir string) string {
	for _, name := range []string{own, path.Base(loc.Path)} {
		if CheckName(name) == nil {
			return name
		}
	}
	return filepath.Base(dir)
}

// identify learns name and id from the snapshot's .s4/config before anything
// else arrives, so that the stamps are kept under the right id. Where there
// is none, what the volume has is written down now.
func (v *Volume) identify(ctx context.Context, past *Past, target snapshot.Info) error {
	theirs, err := tree{past: past, s: target}.config(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return v.Config.Save()
	}
	if err != nil {
		return err
	}
	for _, key := range []string{keyName, keyID} {
		if value, ok := theirs.Get(key); ok {
			if err := v.Config.Set(key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishClone completes the configuration: a name and id where the snapshot
// brought none, and the way back to the repository, for this host alone where
// the snapshot says something else.
func (v *Volume) finishClone(loc borgio.Location, encryption, name string, rename bool, result *CloneResult) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if own := v.Name(); own == "" || rename && own != name {
		if err := errors.Join(v.Config.Set(keyName, name), v.Config.Save()); err != nil {
			return err
		}
	}
	// PLACE/NAME where the repository is named like the volume; otherwise
	// the repository itself is the place.
	place := loc
	place.Archive = ""
	if path.Base(loc.Path) == name {
		place.Path = path.Dir(loc.Path)
	}
	if r, err := v.Remote("origin"); err != nil || r.URL != place.String() {
		err := errors.Join(v.local.Set("remote.origin.url", place.String()),
			v.local.Set("remote.origin.encryption", encryption), v.local.Save())
		if err != nil {
			return err
		}
	}
	result.Name, result.ID = name, v.ID()
	return v.state.save()
}
