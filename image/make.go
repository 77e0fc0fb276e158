package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/snapshot"
)

// Options say what to make.
type Options struct {
	Size int64 // bytes; 0 fits it to the content
	// Grow lets it grow by itself, up to Limit bytes (0: none).
	Grow  bool
	Limit int64
	Note  func(format string, args ...any) // one line of news; may be nil
	Log   *slog.Logger

	// passed is told where tests come between: "compared", "mounting", "swapped"; may be nil.
	passed func(step string)
}

func (o Options) pass(step string) {
	if o.passed != nil {
		o.passed(step)
	}
}

func (o Options) note(format string, args ...any) {
	if o.Note != nil {
		o.Note(format, args...)
	}
}

// create makes an image with an empty live tree for dir, and no record.
func create(ctx context.Context, dir string, o Options) (r *Record, err error) {
	if err := tidy(ctx); err != nil {
		o.Log.Warn("clear away what a killed process left", "error", err)
	}
	r = &Record{Image: filepath.Join(Place(), filepath.Base(dir)+"-"+uuid.NewString()[:8]+".img"), Dir: dir, Grow: o.Grow, Limit: o.Limit}
	if err := r.begin(); err != nil {
		return nil, err
	}
	if err := r.Make(ctx, o.Size, label(dir), o.Log); err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

// Make makes the record's image, with an empty live tree, and sets its UUID.
// After an error there is none. Errors: those of [loop.Create]; snapshot.ErrUsage
// for a size that is too small.
func (r *Record) Make(ctx context.Context, size int64, label string, log *slog.Logger) error {
	super, err := loop.Create(ctx, r.Image, size, loop.CreateOptions{Label: label, Log: log})
	if err != nil {
		return asUsage(err)
	}
	r.UUID = super.UUID
	if err := r.WithTop(ctx, log, func(top string) error { return btrfsvol.Create(filepath.Join(top, Subvolume)) }); err != nil {
		return errors.Join(err, os.Remove(r.Image))
	}
	return nil
}

// WithTop does something with all of the image's file system, mounted for that
// time where nobody else looks; the live tree is the directory [Subvolume] in it.
// Errors: those of do and [loop.Mount].
func (r *Record) WithTop(ctx context.Context, log *slog.Logger, do func(top string) error) error {
	top, done, err := r.mountTop(ctx, log)
	if err != nil {
		return err
	}
	return errors.Join(do(top), done())
}

// mountTop mounts all of the image's file system where nobody else looks, until done.
func (r *Record) mountTop(ctx context.Context, log *slog.Logger) (top string, done func() error, err error) {
	top = topOf(r.Image)
	err = os.Mkdir(top, 0o700)
	if errors.Is(err, fs.ErrExist) { // a killed process has left it
		if err = loop.Unmount(ctx, top); errors.Is(err, loop.ErrNotMounted) {
			err = nil
		}
	}
	if err != nil {
		return "", nil, err
	}
	if _, err := loop.Mount(ctx, r.Image, top, loop.MountOptions{UUID: r.UUID, Log: log}); err != nil {
		return "", nil, errors.Join(err, os.Remove(top))
	}
	return top, func() error {
		err := loop.Unmount(context.WithoutCancel(ctx), top)
		if err == nil {
			err = os.Remove(top)
		}
		return err
	}, nil
}

// Release takes away what a [Record.WithTop] that was killed has left mounted.
func (r *Record) Release(ctx context.Context) error {
	top := topOf(r.Image)
	err := loop.Unmount(ctx, top)
	if err == nil || errors.Is(err, loop.ErrNotMounted) {
		err = os.Remove(top)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// label is what an image's file system is called: people see it in lsblk.
func label(dir string) string {
	name := "s4 " + filepath.Base(dir)
	return name[:min(len(name), 255)]
}

// fitting is the size of an image for so much content: with room to change all
// of it once while snapshots keep what was.
func fitting(content int64) int64 {
	const least = 1 << 30
	return max(least, 2*content+content/8)
}

// asUsage makes a size that cannot be a matter of how it was typed.
func asUsage(err error) error {
	if small, ok := errors.AsType[*loop.TooSmallError](err); ok {
		return fmt.Errorf("%w: %w", snapshot.ErrUsage, small)
	}
	return err
}

// remove takes an image away, and the mount of its live tree.
func (r *Record) remove() error {
	defer r.end()
	ctx := context.Background()
	err := loop.Unmount(ctx, r.Dir)
	if errors.Is(err, loop.ErrNotMounted) || errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err // never delete what is in use
	}
	for _, path := range []string{recordPath(r.Image), r.Image} {
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Attach mounts the live tree where it belongs; where it is mounted already it
// does nothing. Errors: those of [loop.Mount].
func (r *Record) Attach(ctx context.Context, log *slog.Logger) error {
	_, err := loop.Mount(ctx, r.Image, r.Dir, loop.MountOptions{UUID: r.UUID, Subvolume: Subvolume, Compress: r.Compress, Log: log})
	return err
}

// Detach unmounts the live tree. Errors: those of [loop.Unmount]; files in use
// are unix.EBUSY.
func (r *Record) Detach(ctx context.Context) error { return loop.Unmount(ctx, r.Dir) }

// KeepRoom lets the volume grow if it is getting full and may.
func (r *Record) KeepRoom(ctx context.Context, log *slog.Logger) (loop.Growth, error) {
	if !r.Grow {
		return loop.Growth{}, nil
	}
	return loop.Grow(ctx, r.Dir, loop.GrowPolicy{Limit: r.Limit}, log)
}
