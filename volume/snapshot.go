package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/snapshots"
)

// SnapshotResult is what taking a snapshot did.
type SnapshotResult struct {
	Snapshot snapshot.Info   `json:"snapshot"`
	Deleted  []snapshot.Info `json:"deleted"` // by the retention rules
}

// Snapshot keeps the volume as it is now as a btrfs snapshot, and deletes those
// that the retention rules let go.
//
// Errors: errors.ErrUnsupported where the volume is not a btrfs subvolume;
// snapshot.ErrLocked.
func (v *Volume) Snapshot(ctx context.Context, message string) (*SnapshotResult, error) {
	if !v.subvolume {
		return nil, hint.With(fmt.Errorf("%s is not a btrfs subvolume, and only those have snapshots of their own: %w", v.Shown, errors.ErrUnsupported),
			"make it one with: s4 init --btrfs, or keep it at a remote with: s4 push")
	}
	if may, err := btrfsvol.MayDelete(v.Root); err != nil {
		return nil, err
	} else if !may {
		return nil, hint.With(fmt.Errorf("only root could delete a btrfs snapshot here again: %w", fs.ErrPermission),
			"run as root, or mount the file system with -o user_subvol_rm_allowed")
	}
	if err := v.acquire(ctx); err != nil {
		return nil, err
	}
	defer v.unlock()
	past, err := v.Past(ctx)
	if err != nil {
		return nil, err
	}
	line, err := past.Timeline(ctx)
	if err != nil {
		return nil, err
	}
	info, err := v.store().Take(ctx, v.Root, v.newSnapshot(message, line, Reporter{}))
	if err != nil {
		return nil, err
	}
	result := &SnapshotResult{Snapshot: info}
	if result.Deleted, err = v.retain(ctx); err != nil {
		return result, err
	}
	if _, err := past.meetLocal(v.Root); err != nil {
		return result, err
	}
	if err := past.refreshLocal(ctx); err != nil {
		return result, err
	}
	if line, err = past.Timeline(ctx); err != nil {
		return result, err
	}
	if shown, ok := newest(line, markOf(info).is); ok {
		result.Snapshot = shown
	}
	return result, nil
}

// store is where the volume's btrfs snapshots are.
func (v *Volume) store() snapshots.Store { return snapshots.In(v.path(SnapshotsDir)) }

// newSnapshot describes a snapshot that is about to be made on top of the base,
// after all of held.
func (v *Volume) newSnapshot(message string, held []snapshot.Info, report Reporter) snapshot.Info {
	info := snapshot.Info{ID: uuid.NewString(), Volume: v.ID(), Message: message, Time: pushTime(time.Now(), held, report)}
	if v.state.Base != nil {
		info.Parent = v.state.Base.ID
	}
	// Who did it is good to know, and not worth failing for.
	info.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		info.User = u.Username
	}
	return info
}

// retain deletes the btrfs snapshots that the rules let go. Those that a remote
// was last pushed from stay: the next push to it is compared with them.
func (v *Volume) retain(ctx context.Context) ([]snapshot.Info, error) {
	rules, err := v.rules()
	if err != nil {
		return nil, err
	}
	store := v.store()
	if err := errors.Join(store.Tidy(), atomicfile.Clear(v.path(LocalDir), time.Hour)); err != nil {
		return nil, err
	}
	held, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	pinned := map[string]bool{}
	if v.state.Base != nil {
		pinned[v.state.Base.ID] = true
	}
	for _, r := range v.state.Repositories {
		pinned[r.Pushing] = true // which may be under way
		if s, ok := newest(held, func(s snapshot.Info) bool { return s.ID != r.Pushing && r.hasSeen(s.ID) }); ok {
			pinned[s.ID] = true
		}
	}
	_, drop := rules.Choose(held, func(s snapshot.Info) bool { return pinned[s.ID] }, time.Local)
	for i, s := range drop {
		if err := store.Delete(s.Handle); err != nil {
			return drop[:i], err
		}
	}
	return drop, nil
}

// rules are the retention rules for btrfs snapshots, as configured.
func (v *Volume) rules() (snapshots.Rules, error) {
	r := snapshots.Default
	for name, keep := range counts(&r) {
		if err := v.count("snapshots."+name, keep); err != nil {
			return r, err
		}
	}
	return r, nil
}

// counts are the rules that are numbers, by name.
func counts(r *snapshots.Rules) map[string]*int {
	return map[string]*int{
		"last": &r.Last, "hourly": &r.Hourly, "daily": &r.Daily,
		"weekly": &r.Weekly, "monthly": &r.Monthly, "yearly": &r.Yearly,
	}
}

// count reads how many snapshots a setting keeps, where it is set.
func (v *Volume) count(key string, keep *int) error {
	value, err := GetSetting(v, v.access, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := parseCount(value)
	if err != nil {
		return hint.With(fmt.Errorf("%w: %s is %q, not a number of snapshots", snapshot.ErrUsage, key, value),
			"such as: s4 config set "+key+" 7 (0 is none, all is all)")
	}
	*keep = n
	return nil
}

// parseCount reads how many snapshots a rule keeps: a number, or "all", which is -1.
func parseCount(value string) (int, error) {
	if value == "all" {
		return -1, nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	return int(n), err
}

// localSource is the volume's btrfs snapshots on the time line.
type localSource struct {
	*history.BtrfsSource
	dir *os.File // the store, also where a mount covers its path
}

// openLocalSource opens the store below root as a source; nil where there is
// none yet.
func (p *Past) openLocalSource(root string) (*localSource, error) {
	dir, err := os.Open(root + "/" + SnapshotsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	at, err := btrfsvol.Info(path)
	if errors.Is(err, btrfsvol.ErrNotSubvolume) || errors.Is(err, btrfsvol.ErrNotBtrfs) { // the stub in a copy
		return nil, dir.Close()
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	id := at.UUID.String()
	list := func(ctx context.Context) ([]snapshot.Info, error) {
		infos, err := snapshots.In(path).List(ctx)
		for i := range infos {
			infos[i].Source = history.BtrfsSourceID(id)
		}
		return infos, err
	}
	return &localSource{history.NewBtrfsSource(id, path, list, private, p.log), dir}, nil
}
