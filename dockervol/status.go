package dockervol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/snapshots"
	"github.com/s4-storage/s4/volume"
)

// Status tells of a volume: as it is while it is mounted, else as it was when it
// was last unmounted.
func (b *Backend) Status(ctx context.Context, v dockerplugin.Volume) (map[string]any, error) {
	status := map[string]any{}
	if v.Options.Remote != "" {
		status["remote"] = v.Options.Remote
	}
	var onDisk unix.Stat_t
	if err := unix.Stat(imagePath(v), &onDisk); err != nil {
		return status, fmt.Errorf("image: %w", err)
	}
	status["size"], status["on_disk"] = iec(onDisk.Size), iec(onDisk.Blocks*512)
	k := b.keeper(v)
	if k == nil {
		data, err := os.ReadFile(statusPath(v))
		if errors.Is(err, fs.ErrNotExist) {
			return status, nil
		}
		if err == nil {
			err = json.Unmarshal(data, &status)
		}
		return status, err
	}
	k.addTo(status)
	return status, b.current(ctx, v, status)
}

// current adds what is known of a mounted volume.
func (b *Backend) current(ctx context.Context, v dockerplugin.Volume, status map[string]any) error {
	u, err := loop.ReadUsage(liveDir(v))
	if err != nil {
		return err
	}
	status["used"], status["free"] = iec(u.Used), iec(u.Free)
	taken, err := snapshots.In(filepath.Join(liveDir(v), volume.SnapshotsDir)).List(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	status["snapshots"] = len(taken)
	if !replicated(v) {
		return nil
	}
	own, err := volume.Open(liveDir(v), b.access)
	if err != nil {
		return err
	}
	defer own.Close()
	state, err := own.Replication("replicate")
	if errors.Is(err, fs.ErrNotExist) { // not begun
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range state.Remotes {
		if !r.LastPush.IsZero() {
			status["last_push"], status["lag"] = clock(r.LastPush), fmt.Sprintf("%.1fs", r.Lag)
		}
		if !r.LastGood.IsZero() {
			status["last_good"] = clock(r.LastGood)
		}
		if r.Error != "" {
			status["replication"] = "failing since " + clock(r.Failing) + ": " + r.Error
		}
	}
	return nil
}

// noteStatus keeps what is known of a volume that is about to be unmounted.
func (b *Backend) noteStatus(ctx context.Context, v dockerplugin.Volume) {
	status := map[string]any{}
	err := b.current(ctx, v, status)
	delete(status, "free") // which changes with the host's disk
	if err == nil {
		var data []byte
		if data, err = json.Marshal(status); err == nil {
			err = atomicfile.Write(statusPath(v), data, 0o600)
		}
	}
	if err != nil {
		b.log.Warn("the volume's status is not kept", "volume", v.Name, "err", err)
	}
}

func statusPath(v dockerplugin.Volume) string { return filepath.Join(v.Dir, "status.json") }

func iec(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
