package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// BtrfsSource is a volume's btrfs snapshots as a source. They lie beside each
// other in one directory, each a whole tree under its handle, and must be
// read-only. Nothing is kept open between two calls but files that are read, so
// that a snapshot that is deleted gives its space back.
type BtrfsSource struct {
	id      string
	dir     string
	list    func(ctx context.Context) ([]snapshot.Info, error)
	exclude func(path string, dir bool) bool
	log     *slog.Logger
	idle    time.Duration // how long a file is kept open that is not read
}

var (
	_ snapshot.Source = (*BtrfsSource)(nil)
	_ pathOpener      = (*BtrfsSource)(nil)
	_ finder          = (*BtrfsSource)(nil)
)

// BtrfsSourceID is the [snapshot.Source] id of the btrfs snapshots of the volume
// with that id.
func BtrfsSourceID(id string) string { return "btrfs:" + id }

// NewBtrfsSource makes a source of the btrfs snapshots in dir of the volume with
// that id. List tells which there are. Of their Infos Source is not looked at,
// and ID, Volume and Series may be empty. What a snapshot has in common with the archive
// made from it (ID, Volume, Time to the second) must be equal there. Exclude, if
// it is not nil, hides paths and all below them. A nil log discards.
func NewBtrfsSource(id string, dir string, list func(ctx context.Context) ([]snapshot.Info, error), exclude func(path string, dir bool) bool, log *slog.Logger) *BtrfsSource {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &BtrfsSource{id: id, dir: dir, list: list, exclude: exclude, log: log, idle: 5 * time.Second}
}

// ID implements [snapshot.Source].
func (s *BtrfsSource) ID() string { return BtrfsSourceID(s.id) }

// Local implements [snapshot.Source].
func (s *BtrfsSource) Local() bool { return true }

// Snapshots implements [snapshot.Source].
func (s *BtrfsSource) Snapshots(ctx context.Context) ([]snapshot.Info, error) {
	infos, err := s.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("list btrfs snapshots: %w", err)
	}
	all := make([]snapshot.Info, 0, len(infos))
	for _, i := range infos {
		i.Source = s.ID()
		i.ID, i.Volume = cmp.Or(i.ID, i.Handle), cmp.Or(i.Volume, s.id)
		i.Series = cmp.Or(i.Series, seriesOf(i))
		all = append(all, i)
	}
	return all, nil
}

// Open implements [snapshot.Source]. It cannot be done: a btrfs snapshot has no
// names for pieces of content. See [BtrfsSource.OpenPath].
func (s *BtrfsSource) Open(context.Context, []snapshot.Extent) (snapshot.File, error) {
	return nil, fmt.Errorf("open content in a btrfs snapshot: %w", errors.ErrUnsupported)
}

// FindItem gives what the snapshot has at path.
func (s *BtrfsSource) FindItem(_ context.Context, info snapshot.Info, path string) (*snapshot.Item, error) {
	root, err := s.root(info)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if s.hidden(path) {
		return nil, fs.ErrNotExist
	}
	live, err := root.Stat(path)
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, fs.ErrNotExist
	case err != nil:
		return nil, err
	}
	return &snapshot.Item{Path: path, Entry: live.Entry}, nil
}

// hidden tells whether path is excluded, or a directory above it is.
func (s *BtrfsSource) hidden(path string) bool {
	if s.exclude == nil || path == "" {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && s.exclude(path[:i], true) {
			return true
		}
	}
	return s.exclude(path, false)
}

// root opens a snapshot's tree.
func (s *BtrfsSource) root(info snapshot.Info) (*worktree.Root, error) {
	if info.Handle == "" || info.Handle == "." || info.Handle == ".." || strings.ContainsRune(info.Handle, '/') {
		return nil, fmt.Errorf("btrfs snapshot %q: %w", info.Handle, fs.ErrInvalid)
	}
	dir, err := worktree.Open(s.dir)
	if err != nil {
		return nil, s.explain(info, err)
	}
	defer dir.Close()
	root, err := dir.OneMount().Sub(info.Handle)
	if err != nil {
		return nil, s.explain(info, err)
	}
	return root, nil
}

// explain tells of which snapshot an error is, and whether it means damage.
func (s *BtrfsSource) explain(info snapshot.Info, err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) {
		err = classified{err, snapshot.ErrDamaged}
	}
	return fmt.Errorf("btrfs snapshot %s: %w", info.Handle, err)
}
