package fusefs

import (
	"context"
	"log/slog"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// kernel is told what it must no longer believe. The calls may wait for
// requests under way, so no lock may be held and no request be answered
// meanwhile.
type kernel interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// tellNews tells the kernel when the time line changes, until ctx is done.
func (f *historyFS) tellNews(ctx context.Context, k kernel, poll time.Duration, log *slog.Logger) {
	shown, err := f.line.get(ctx)
	if err != nil {
		shown = newMoments(nil)
	}
	for range f.history.Watch(ctx, poll) {
		now, err := f.line.refresh(ctx, time.Now())
		if err != nil {
			if ctx.Err() == nil {
				log.Warn("news of the history cannot be read", "err", err)
			}
			continue
		}
		f.tell(k, shown, now)
		shown = now
	}
}

// tell drops what the kernel holds of the history directory, and of the root
// of a mount that follows the newest snapshot, where now differs from shown.
// An id or name that the kernel does not know is no error.
func (f *historyFS) tell(k kernel, shown, now *moments) {
	changed := len(shown.infos) != len(now.infos)
	for _, info := range shown.infos {
		if still, ok := now.dir(info.Dir); !ok || still.Num != info.Num {
			k.EntryNotify(idHistory, info.Dir)
			changed = true
		} else if still.Indexed != info.Indexed {
			if id, err := snapshotID(info.Num); err == nil {
				k.InodeNotify(id, 0, 0) // its own metadata is known now
			}
			changed = true
		}
	}
	for _, info := range now.infos {
		if _, ok := shown.dir(info.Dir); !ok {
			k.EntryNotify(idHistory, info.Dir)
			changed = true
		}
	}
	if !changed {
		return
	}
	k.EntryNotify(idHistory, nameLatest)
	k.InodeNotify(idHistory, 0, 0)
	if f.root.follow {
		k.InodeNotify(fuse.FUSE_ROOT_ID, 0, 0)
		k.InodeNotify(idDotS4, 0, 0)
	}
}
