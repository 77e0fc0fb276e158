package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/archive"
	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// archiving is a push's view on its way into the repository.
type archiving struct {
	*pushing
	info     snapshot.Info       // what the archive is to say of itself
	excluded *pathspec.Exclusion // as the view's own configuration says

	tx      *borgio.Transaction
	added   int64             // bytes, by the transactions before tx
	base    snapshot.Info     // the archive that outline is of
	outline *borgio.Outline   // nil where there is none to build on
	changes []btrfsvol.Change // since then; nil where btrfs cannot tell
	unread  []string          // what could not be read now
}

// run makes the archive, and tells in the result what became of it.
func (a *archiving) run(ctx context.Context) error {
	v := a.v
	info := a.info
	name := fmt.Sprintf("%s-%s-%s", archivePrefix(v.Name()), info.Time.Format(snapshot.DirFormat), info.ID[:min(8, len(info.ID))])
	every, err := v.duration("push.checkpoint", 30*time.Minute)
	if err != nil {
		return err
	}
	if err := a.prepare(ctx); err != nil {
		return err
	}
	if _, err := a.begin(ctx); err != nil {
		return err
	}
	defer func() {
		if err := a.tx.Rollback(); err != nil { // nothing, after the commit
			v.log.Warn("end the push", "error", err)
		}
	}()
	made, err := a.make(ctx, every, borgio.ArchiveInfo{
		Name: name, Comment: history.FormatComment(info.Message, v.ID(), info.ID, info.Parent),
		Hostname: info.Host, Username: info.User, Cmdline: []string{"s4", "push"}, Time: info.Time,
	})
	if err == nil {
		err = a.excludedStill()
	}
	if err == nil {
		err = v.keepUnread(a.repo.ID(), slices.Concat(a.missed, a.unread)) // whichever archive will count
	}
	if err == nil {
		err = a.tx.Commit(ctx)
	}
	if err != nil {
		return reach.Explain(err, a.repo.Location)
	}
	info.Source, info.Handle, info.Name = history.BorgSourceID(a.repo.ID().String()), made.Ref.ID.String(), name
	r := a.result
	info.Files, info.Size = made.Outline.Files(), made.Outline.Size()
	r.Committed = time.Now()
	r.Snapshot, r.Files, r.Size, r.Added = info, info.Files, info.Size, a.added+a.tx.Added()
	a.o.Report.progress(Progress{Verb: "pushing", Files: r.Files, TotalFiles: r.Files, Bytes: r.Size, TotalBytes: r.Size, Done: true})
	if err := v.keepOutline(a.repo.ID(), made.Outline); err != nil {
		v.log.Warn("the next push will take longer", "error", err)
	} else if err := v.keepUnread(a.repo.ID(), a.unread); err != nil {
		v.log.Warn("the next push will read more than it has to", "error", err)
	}
	return nil
}

// prepare does what needs no lock. Nothing of the repository must be read later but
// through the transaction: a connection for that has to wait for the lock.
func (a *archiving) prepare(ctx context.Context) (err error) {
	if a.excluded, err = exclusionAt(a.view.Root); err != nil {
		return err
	}
	if err := a.findBase(ctx); err != nil || a.outline == nil {
		return err
	}
	if a.changes, err = a.sinceBase(ctx); err != nil || a.changes != nil {
		return err
	}
	return a.past.Ensure(ctx, a.base.Num)
}

// begin takes the repository's lock, the first time or after a checkpoint.
func (a *archiving) begin(ctx context.Context) (*borgio.Transaction, error) {
	if a.tx != nil {
		a.added += a.tx.Added()
	}
	tx, err := a.repo.Begin(ctx, borgio.WriteOptions{Compression: a.v.compression(a.o.Remote), LockWait: lockWait})
	if err != nil {
		return nil, reach.Explain(err, a.repo.Location)
	}
	a.tx = tx
	if err := a.undisturbed(tx.Manifest()); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	return tx, nil
}

// undisturbed makes sure, under the lock, that nobody else has pushed since this
// push was allowed.
func (a *archiving) undisturbed(now *borgio.Manifest) error {
	if a.assumed && !equalArchives(now, a.before) {
		return errOutdated
	}
	for _, s := range now.Archives {
		if !slices.ContainsFunc(a.before.Archives, func(b borgio.ArchiveRef) bool { return b.ID == s.ID }) && !borgio.IsCheckpoint(s.Name) {
			return hint.With(fmt.Errorf("%w: somebody else has just pushed to %s: %s", snapshot.ErrLocked, a.repo.Location, s.Name), "push again")
		}
	}
	return nil
}

// findBase looks for an archive of this volume to build on: the one that was
// pushed from here last, or else the newest that s4 wrote.
func (a *archiving) findBase(ctx context.Context) error {
	outline, err := a.v.outline(a.repo.ID())
	if err != nil {
		a.v.log.Warn("begin a new outline", "error", err)
	}
	if outline != nil {
		for _, s := range a.held {
			if s.Handle == outline.Archive.String() {
				a.base, a.outline = s, outline
				return nil
			}
		}
	}
	known := a.v.state.repository(a.repo.ID().String())
	s, ok := newest(a.held, func(s snapshot.Info) bool { return known.holds(s, a.v.ID()) })
	if !ok {
		return nil
	}
	id, err := borgio.ParseID(s.Handle)
	if err != nil {
		return err
	}
	described, err := a.repo.Archive(ctx, id)
	if err == nil {
		outline, err = a.repo.Outline(ctx, described)
	}
	switch {
	case errors.Is(err, borgio.ErrNoOutline), errors.Is(err, borgio.ErrIntegrity):
		a.v.log.Info("archive all anew", "why", err)
		return nil // borg's, or damaged
	case err != nil:
		return reach.Explain(err, a.repo.Location)
	}
	a.base, a.outline = s, outline
	return nil
}

// make makes the archive in the cheapest way that there is.
func (a *archiving) make(ctx context.Context, every time.Duration, info borgio.ArchiveInfo) (archive.Result, error) {
	root, o, done, err := a.v.worktreeAt(ctx, a.view.Root)
	if err != nil {
		return archive.Result{}, err
	}
	defer done()
	o.Exclude = func(p string, dir bool) bool { return neverArchived(p, dir) || leftOut(a.excluded, p, dir) }
	m := &archive.Maker{Tx: a.tx, Every: every, Again: a.begin, Root: root, Exclude: o.Exclude, Moving: a.view.Snapshot == nil, Left: a.left}
	if a.o.Report.Progress != nil {
		total := Progress{Verb: "pushing"}
		if a.outline == nil {
			if total, err = measure(ctx, root, o); err != nil {
				return archive.Result{}, err
			}
		}
		m.Progress = func(p archive.Progress) {
			total.Files, total.Bytes, total.Path = p.Files, p.Bytes, p.Path
			a.o.Report.progress(total)
		}
	}
	if a.outline == nil {
		return m.All(ctx, nil, info)
	}
	if a.changes != nil {
		changed, err := archive.FromBtrfs(ctx, root, a.changes, o.Exclude, a.left)
		if errors.Is(err, archive.ErrTooTangled) {
			m.Moved = archive.Moved(a.changes)
			return m.All(ctx, a.outline, info)
		}
		if err != nil {
			return archive.Result{}, err
		}
		missed := slices.DeleteFunc(slices.Clone(a.missed), func(p string) bool { return hides(a.excluded, path.Dir(p), true) })
		return m.Update(ctx, a.outline, archive.Retry(ctx, root, changed, missed, o.Exclude, a.left), info)
	}
	o.Strict = true
	if same, err := a.configured(ctx, root, o); err != nil {
		return archive.Result{}, err
	} else if !same {
		return m.All(ctx, a.outline, info)
	}
	scan := archive.FromScan(root.Compare(ctx, tree{past: a.past, s: a.base}, o), a.left)
	return m.Update(ctx, a.outline, scan, info)
}

// configured tells whether the volume's configuration is as in the base. If not,
// other patterns may count than those under which the base was made, and a file that
// did not change may come or go, which comparing the trees under the new ones does
// not tell.
func (a *archiving) configured(ctx context.Context, root *worktree.Root, o worktree.Options) (bool, error) {
	o.Paths = []string{configKey}
	for _, err := range root.Compare(ctx, tree{past: a.past, s: a.base}, o) {
		return false, err
	}
	return true, nil
}

// excludedStill makes sure that the archive is made under the patterns in it.
func (a *archiving) excludedStill() error {
	now, err := exclusionAt(a.view.Root)
	if err == nil && !now.Equal(a.excluded) {
		err = hint.With(fmt.Errorf("%w: %s was changed while the volume was pushed", snapshot.ErrRefused, keyExclude), "push again")
	}
	return err
}

// sinceBase asks btrfs what has changed since the base; nil where it cannot tell.
func (a *archiving) sinceBase(ctx context.Context) ([]btrfsvol.Change, error) {
	if a.view.Snapshot == nil {
		return nil, nil
	}
	store := a.v.store()
	taken, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	base, ok := newest(taken, markOf(a.base).is)
	if !ok {
		return nil, nil
	}
	if then, err := exclusionAt(store.Path(base.Handle)); err != nil || !then.Equal(a.excluded) {
		return nil, err // files come or go that did not change
	}
	if known := a.view.since; known != nil && known.handle == base.Handle {
		return known.changes, nil
	}
	changes, err := btrfsvol.Changes(ctx, store.Path(base.Handle), a.view.Root, btrfsvol.Options{Exclude: LocalDir})
	if errors.Is(err, fs.ErrPermission) {
		a.v.log.Info("only root may ask btrfs what changed; all files are looked at")
		return nil, nil
	}
	if changes == nil {
		changes = []btrfsvol.Change{}
	}
	return changes, err
}

// left reports what is not in the archive, or perhaps not as it should be.
func (a *archiving) left(p string, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.o.Report.warn("%s vanished while the volume was pushed", p)
	case errors.Is(err, archive.ErrChanging):
		a.o.Report.warn("%s %v", p, err)
	default:
		a.unread = append(a.unread, p)
		a.result.unread(p, err, a.o.Report)
	}
}

// reason is what is wrong, without the path that is told anyway.
func reason(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}

// neverArchived hides what is this host's own, and what a killed pull has left.
func neverArchived(p string, dir bool) bool {
	return private(p, dir) || strings.HasPrefix(path.Base(p), tempPrefix)
}

// measure finds out how much there is to push, where somebody watches.
func measure(ctx context.Context, root *worktree.Root, o worktree.Options) (Progress, error) {
	total := Progress{Verb: "pushing"}
	for live, err := range root.Walk(ctx, o) {
		if err == nil && live.Mode&unix.S_IFMT == unix.S_IFREG {
			total.TotalFiles++
			total.TotalBytes += live.Size
		}
	}
	return total, ctx.Err()
}

// outlinePath is where the outline of the last archive pushed from here is.
func (v *Volume) outlinePath(repo borgio.ID) string {
	return v.path(LocalDir, "outlines", repo.String())
}

// outline is what is known of the archive last pushed from here; nil: nothing.
func (v *Volume) outline(repo borgio.ID) (*borgio.Outline, error) {
	data, err := os.ReadFile(v.outlinePath(repo))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return borgio.ParseOutline(data)
}

// keepOutline keeps it for the next push.
func (v *Volume) keepOutline(repo borgio.ID, o *borgio.Outline) error {
	at := v.outlinePath(repo)
	if err := os.MkdirAll(path.Dir(at), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(at, o.Append(nil), 0o600)
}
