package dockervol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/image"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// DefaultSize is how large a volume is that nobody gave a size.
const DefaultSize = 10 << 30

// Config says how volumes are kept.
type Config struct {
	Access  *reach.Access // how remotes are reached; with nobody to ask
	Program string        // s4 itself, which serves history=on
	Log     *slog.Logger
}

// Backend keeps volumes. It is safe for concurrent use.
type Backend struct {
	access  *reach.Access
	program string
	log     *slog.Logger

	ctx    context.Context // of keepers
	cancel context.CancelFunc

	mu      sync.Mutex
	keepers map[string]*keeper // of mounted volumes, by directory
}

var _ dockerplugin.Backend = (*Backend)(nil)

// New makes a backend. Close it after use.
func New(c Config) *Backend {
	b := &Backend{access: c.Access, program: c.Program, log: c.Log, keepers: map[string]*keeper{}}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Close ends the keepers and waits for them. What is mounted stays so: the next
// backend's Mount carries on.
func (b *Backend) Close() {
	b.cancel()
	b.mu.Lock()
	all := b.keepers
	b.keepers = map[string]*keeper{}
	b.mu.Unlock()
	for _, k := range all {
		k.stop()
	}
}

// Where things are in a volume's directory.
func imagePath(v dockerplugin.Volume) string  { return filepath.Join(v.Dir, "image.img") }
func liveDir(v dockerplugin.Volume) string    { return filepath.Join(v.Dir, "live") }
func dataDir(v dockerplugin.Volume) string    { return filepath.Join(v.Dir, "data") }
func historyDir(v dockerplugin.Volume) string { return filepath.Join(v.Dir, "history") }
func servedDir(v dockerplugin.Volume) string  { return filepath.Join(v.Dir, "served") }

// nameOf is the name of the s4 volume.
func nameOf(v dockerplugin.Volume) string {
	if v.Options.Name != "" {
		return v.Options.Name
	}
	return v.Name
}

// record describes a volume's image. The image needs no UUID to be told from
// others: its directory is the volume's own.
func record(v dockerplugin.Volume, dir string) *image.Record {
	return &image.Record{Image: imagePath(v), Dir: dir, Compress: compress(v.Options.Compress),
		Grow: v.Options.Autogrow != dockerplugin.NoGrowth, Limit: max(v.Options.Autogrow, 0)}
}

// compress is the option as btrfs takes it.
func compress(option string) string {
	if option == "off" {
		return ""
	}
	return option
}

// Create makes the volume's image, and looks whether its remote has it already.
func (b *Backend) Create(ctx context.Context, v dockerplugin.Volume) (fills bool, err error) {
	if v.Options.Remote != "" {
		_, err := b.repository(ctx, v)
		missing := errors.Is(err, borgio.ErrNotRepository)
		switch {
		case missing && v.Options.From != "":
			return false, hint.With(fmt.Errorf("there is no %s at %s to bring back from %s: %w", nameOf(v), v.Options.Remote, v.Options.From, fs.ErrNotExist),
				"leave out -o from for an empty volume")
		case err != nil && !missing:
			return false, err
		}
		fills = !missing
	}
	fills = fills || v.Source != ""
	return fills, b.makeImage(ctx, v)
}

func (b *Backend) makeImage(ctx context.Context, v dockerplugin.Volume) error {
	size := v.Options.Size
	if size == 0 {
		size = DefaultSize
		if limit := v.Options.Autogrow; limit > 0 {
			size = min(size, limit)
		}
	}
	return record(v, liveDir(v)).Make(ctx, size, "s4 "+v.Name, b.log)
}

// repository is where the remote has the volume: below the place for volumes, or
// the place itself where that is a repository. Errors: borgio.ErrNotRepository.
func (b *Backend) repository(ctx context.Context, v dockerplugin.Volume) (borgio.Location, error) {
	place, err := reach.ParseLocation(v.Options.Remote)
	if err != nil {
		return place, err
	}
	own := place
	own.Path = path.Join(place.Path, nameOf(v))
	err = b.probe(ctx, own)
	if !errors.Is(err, borgio.ErrNotRepository) {
		return own, err
	}
	switch errPlace := b.probe(ctx, place); {
	case errPlace == nil:
		return place, nil
	case errors.Is(errPlace, snapshot.ErrUnreachable), errors.Is(errPlace, snapshot.ErrKey), ctx.Err() != nil:
		return own, errPlace
	}
	return own, err
}

func (b *Backend) probe(ctx context.Context, loc borgio.Location) error {
	r, err := b.access.Open(ctx, loc)
	if err != nil {
		return err
	}
	return r.Close()
}

// Delete frees the volume's directory; all of a volume is in it.
func (b *Backend) Delete(ctx context.Context, v dockerplugin.Volume) error {
	if k := b.letGo(v); k != nil {
		k.stop()
	}
	return b.unmount(ctx, v)
}

// Exchange lets two volumes change images. What an image's .s4 says of its name
// and remote is put right at the next mount.
func (b *Backend) Exchange(ctx context.Context, one, two dockerplugin.Volume) error {
	for _, v := range []dockerplugin.Volume{one, two} {
		if err := os.Remove(statusPath(v)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, v := range []dockerplugin.Volume{one, two} {
		if err := b.endRestore(ctx, v); err != nil {
			return err
		}
	}
	err := unix.Renameat2(unix.AT_FDCWD, imagePath(one), unix.AT_FDCWD, imagePath(two), unix.RENAME_EXCHANGE)
	if err != nil {
		return fmt.Errorf("exchange the images of %s and %s: %w", one.Name, two.Name, err)
	}
	return nil
}

// stays is how long something may stay in use that is about to end.
const stays = 10 * time.Second

// patiently does something again while it is refused for being in use.
func patiently(ctx context.Context, busy func(error) bool, do func() error) error {
	for since := time.Now(); ; {
		err := do()
		if err == nil || !busy(err) || time.Since(since) > stays {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// empty tells whether there is nothing in a directory.
func empty(dir string) (bool, error) {
	names, err := os.ReadDir(dir)
	return len(names) == 0, err
}
