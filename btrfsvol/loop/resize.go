package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// ResizeOptions are the options of [Resize].
type ResizeOptions struct {
	Reserve int64        // what the host keeps free; see [Reserve]
	Log     *slog.Logger // nil discards

	before func(step string) // tests stop a process here
}

// Resize changes the size of the mounted volume in which dir is, while it is
// used, and returns what it then is. A larger one than the host's disk could
// hold is possible, and logged; none may be had while that disk has no more
// than its reserve. Shrinking moves data and may take long; when ctx ends, it
// is given up and the volume is as large as before. It gives the host back what
// was cut off.
//
// After an error the volume is usable and has its old size. After a crash it
// has the old size or the new one.
//
// Errors: *[TooSmallError], *[HostFullError], [ErrNotMounted], [ErrBusy], and
// ENOSPC where data could not be moved out of the part to be cut off.
func Resize(ctx context.Context, dir string, to Target, o ResizeOptions) (Usage, error) {
	m, err := openMounted(dir)
	if err != nil {
		return Usage{}, fmt.Errorf("resize: %w", err)
	}
	defer m.close()
	u, err := m.resizeLocked(ctx, to, o)
	if err != nil {
		return u, fmt.Errorf("resize %s: %w", dir, err)
	}
	return u, nil
}

func (m *mountedFS) resizeLocked(ctx context.Context, to Target, o ResizeOptions) (Usage, error) {
	if err := m.image.lock(ctx); err != nil {
		return Usage{}, err
	}
	if _, err := m.info(); err != nil { // it may have changed before the lock
		return Usage{}, err
	}
	// What was just written or deleted counts only when it is on the disk.
	if err := unix.Syncfs(int(m.file.Fd())); err != nil {
		return Usage{}, err
	}
	u, err := m.usage()
	if err != nil {
		return u, err
	}
	size := to.resolve(u, o.Reserve)
	if err := admit(u, to, size, o); err != nil {
		return u, err
	}
	if to.kind == asSmall {
		err = m.shrinkFar(ctx, u, size, o)
	} else {
		err = m.setSize(ctx, size, o)
	}
	if err != nil {
		return u, err
	}
	if _, err := m.info(); err != nil {
		return u, err
	}
	return m.usage()
}

// admit refuses sizes that are not possible or not wise, before anything is
// changed.
func admit(u Usage, to Target, size int64, o ResizeOptions) error {
	if size < u.Size && size < u.Min || size < MinResize && size != u.Size {
		return &TooSmallError{Size: size, Min: u.Min}
	}
	reserve := Reserve(o.Reserve, u.HostSize)
	if to.kind == asLarge && size == u.Size && u.Max(o.Reserve) < u.Size {
		return &HostFullError{Free: u.HostFree, Reserve: reserve}
	}
	if size > u.Size {
		if u.HostFree <= reserve {
			return &HostFullError{Free: u.HostFree, Reserve: reserve, Want: size - u.Size}
		}
		if size > u.Max(o.Reserve) {
			logger(o.Log).Warn("the volume can become larger than what the host's disk has",
				"size", size, "allocated", u.Allocated, "free", u.HostFree, "reserve", reserve)
		}
	}
	return nil
}

// shrinkFar shrinks to size or, where data cannot be packed so closely, to
// something above it.
func (m *mountedFS) shrinkFar(ctx context.Context, u Usage, size int64, o ResizeOptions) error {
	for step := max(size/8, 256*mib); ; step *= 2 {
		err := m.setSize(ctx, size, o)
		if !errors.Is(err, unix.ENOSPC) || size+step >= u.Size {
			return err
		}
		logger(o.Log).Info("the volume cannot be made so small; trying less", "size", size)
		size += step
		size -= size % sector
	}
}

// setSize makes file system, image and device as large as size, in the order
// in which the image is never too small. Whatever an earlier run left is made
// right, too.
func (m *mountedFS) setSize(ctx context.Context, size int64, o ResizeOptions) error {
	steps := []struct {
		name string
		do   func() error
	}{
		{"shrink", func() error {
			if size >= m.size {
				return nil
			}
			return m.shrink(ctx, size)
		}},
		{"image", func() error { return m.image.setSize(size) }},
		{"device", func() error { return m.device.setCapacity() }},
		{"grow", func() error {
			if size <= m.size {
				return nil
			}
			return m.resize(m.sizeArg(size))
		}},
		{"done", func() error { return nil }},
	}
	was := m.size
	for _, step := range steps {
		if o.before != nil {
			o.before(step.name)
		}
		err := ctx.Err()
		if err == nil || size < was && step.name != "shrink" { // half a shrink is carried through
			err = step.do()
		}
		if err != nil {
			if size > was { // the promise is taken back
				err = errors.Join(err, m.image.setSize(was), m.device.setCapacity())
			}
			return err
		}
	}
	return nil
}

// setSize makes the image as large as size, but never smaller than the file
// system that is on it.
func (i *image) setSize(size int64) error {
	if err := i.restat(); err != nil {
		return err
	}
	if i.stat.Size != size {
		s, err := ReadSuperblock(i.file)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.path, err)
		}
		if s.TotalBytes > size {
			return fmt.Errorf("image %s: its file system has still %d bytes; not cut off at %d", i.path, s.TotalBytes, size)
		}
		if err := i.file.Truncate(size); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	// Also when there is nothing to do: an earlier run may not have come here.
	if err := i.file.Sync(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

// shrink moves what lies behind size and makes the file system end there. When
// ctx ends first, btrfs is told to give up, which it does with the size it had.
func (m *mountedFS) shrink(ctx context.Context, size int64) error {
	done := make(chan error, 1)
	go func() { done <- m.resize(m.sizeArg(size)) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		if err = m.cancel(done); err != nil {
			return ctx.Err()
		}
	}
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("too little room to move data out of the way: %w", err)
	}
	if err != nil {
		return err
	}
	// The new size must be on the disk before the image ends there.
	return unix.Syncfs(int(m.file.Fd()))
}

// cancel asks btrfs to give a resize up until its own answer is there. It may
// have ended meanwhile, or not have begun (ENOTCONN).
func (m *mountedFS) cancel(done <-chan error) error {
	for {
		_ = m.resize("cancel")
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
