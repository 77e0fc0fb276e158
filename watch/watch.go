// Package watch tells when the files of a volume may have changed.
//
// # Words
//
// A hint says that something may have changed, soon after it did. It is not
// relied on: hints get lost, and some writes give none (through a memory map,
// over a network file system). What decides is the look that whoever is told
// takes at the files; without hints it is taken now and then all the same.
//
// On btrfs no hints are needed: the generation of a subvolume's last change
// tells, for one system call, whether anything is different.
package watch

import (
	"context"
	"errors"
	"time"

	"github.com/s4-storage/s4/btrfsvol"
)

// Watcher waits for changes. It is for one goroutine.
type Watcher interface {
	// Next returns when the files may have changed since it last returned,
	// or since the Watcher was made. The error is that of ctx.
	Next(ctx context.Context) error
	Close() error
}

// Subvolume watches a btrfs subvolume by its generation.
type Subvolume struct {
	root  string
	every time.Duration
	seen  uint64
	told  time.Time // when a change was last told of
}

var _ Watcher = (*Subvolume)(nil)

// eagerly is how many times as often as changes are told of it is looked for one.
const eagerly = 4

// NewSubvolume watches the subvolume at root, and tells of changes that often at
// most; one that comes after a pause is told of in a fraction of that.
// Errors: [btrfsvol.ErrNotBtrfs] and [btrfsvol.ErrNotSubvolume].
func NewSubvolume(root string, every time.Duration) (*Subvolume, error) {
	s := &Subvolume{root: root, every: every}
	var err error
	s.seen, err = s.look()
	return s, err
}

// look tells the generation of the last change to a file. Without the sync it
// would show only when the kernel writes out by itself, half a minute later.
func (s *Subvolume) look() (uint64, error) {
	if err := btrfsvol.Sync(s.root); err != nil {
		return 0, err
	}
	info, err := btrfsvol.Info(s.root)
	return info.CTransid, err
}

// Next implements [Watcher].
func (s *Subvolume) Next(ctx context.Context) error {
	// Looking has all that was written here put on the disk, which whoever writes
	// all the time should not wait for more often than is of use.
	wait := max(time.Until(s.told.Add(s.every)), 0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		now, err := s.look()
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		if now != s.seen {
			s.seen, s.told = now, time.Now()
			return nil
		}
		wait = s.every / eagerly
	}
}

// Close implements [Watcher].
func (s *Subvolume) Close() error { return nil }
