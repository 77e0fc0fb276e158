package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How often a directory is looked at without a hint.
const (
	hinted   = 5 * time.Minute // all of it gives hints
	unhinted = 30 * time.Second
)

// Directory watches a plain directory tree by the kernel's hints.
type Directory struct {
	root    string
	every   time.Duration
	exclude func(path string, dir bool) bool
	log     *slog.Logger
	hints   *fsnotify.Watcher // nil where there are none to be had
	whole   bool              // all of it is watched
}

var _ Watcher = (*Directory)(nil)

// NewDirectory watches what is below root, but for what exclude takes out by
// its path below root. Hints that come within every of one another count once.
// Where the kernel watches no more directories, the rest is looked at more often.
func NewDirectory(ctx context.Context, root string, every time.Duration, exclude func(path string, dir bool) bool, log *slog.Logger) (*Directory, error) {
	d := &Directory{root: root, every: every, exclude: exclude, log: log}
	var err error
	if d.hints, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("no hints from the kernel; changes show later", "error", err)
		return d, nil
	}
	d.whole = true
	if err := d.add(ctx, root); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// add watches dir and all below it.
func (d *Directory) add(ctx context.Context, dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || !e.IsDir() {
			return nil //nolint:nilerr // gone meanwhile, or not to be read: the push will tell
		}
		rel, err := filepath.Rel(d.root, path)
		if err == nil && rel != "." && d.exclude(rel, true) {
			return fs.SkipDir
		}
		if err := d.hints.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if d.whole {
				d.log.Warn("not all directories give hints; changes there show later", "directory", path, "error", err)
			}
			d.whole = false
		}
		return nil
	})
}

// Next implements [Watcher].
func (d *Directory) Next(ctx context.Context) error {
	wait := unhinted
	if d.whole {
		wait = hinted
	}
	look := time.NewTimer(max(wait, d.every))
	defer look.Stop()
	var settle <-chan time.Time
	var events chan fsnotify.Event
	var trouble chan error
	if d.hints != nil {
		events, trouble = d.hints.Events, d.hints.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			return nil
		case <-settle:
			return nil
		case <-trouble: //nolint:errcheck // more than the kernel kept: new directories may be among it
			if err := d.add(ctx, d.root); err != nil {
				return err
			}
			return nil
		case e := <-events:
			counts, err := d.hear(ctx, e)
			if err != nil {
				return err
			}
			if counts && settle == nil {
				settle = time.After(d.every)
			}
		}
	}
}

// hear tells whether an event is about what is watched, and watches directories
// that came.
func (d *Directory) hear(ctx context.Context, e fsnotify.Event) (bool, error) {
	rel, err := filepath.Rel(d.root, e.Name)
	if err != nil || rel != "." && d.exclude(rel, false) {
		return false, nil //nolint:nilerr // what is elsewhere is not watched
	}
	if e.Has(fsnotify.Create) {
		return true, d.add(ctx, e.Name)
	}
	return true, nil
}

// Close implements [Watcher].
func (d *Directory) Close() error {
	if d.hints == nil {
		return nil
	}
	return d.hints.Close()
}
