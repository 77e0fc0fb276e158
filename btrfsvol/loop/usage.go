package loop

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Usage is how full a volume and its host's disk are, in bytes.
type Usage struct {
	UUID string
	Size int64 // of the file system
	Used int64 // by files and what btrfs needs for them
	Free int64 // what can still be written, by btrfs's estimate
	Min  int64 // the least that [Resize] shrinks to

	Image     string
	ImageSize int64 // what it promises; Size or more
	Allocated int64 // what it takes of the host's disk

	HostSize int64
	HostFree int64 // for programs that are not root
}

// Max is the size at which a volume, filled up, leaves the host's disk just
// its reserve, in whole MiB. It may be less than the volume's size.
func (u Usage) Max(reserve int64) int64 {
	return (u.Allocated + u.HostFree - Reserve(reserve, u.HostSize)) / mib * mib
}

// Reserve is what a host's disk of a given size keeps free: reserve bytes, or
// with 0 the default, a twentieth of the disk but at least 1 GiB and at most
// 10 GiB. Less than 0 is none.
func Reserve(reserve, hostSize int64) int64 {
	switch {
	case reserve > 0:
		return reserve
	case reserve < 0:
		return 0
	}
	return min(max(hostSize/20, gib), 10*gib)
}

// minFor is the size to which a file system can be shrunk that has so much
// used: a tenth more, or 128 MiB, so that btrfs, which writes before it frees,
// has where to write.
func minFor(used int64) int64 {
	size := used + max(used/10, 128*mib)
	return max((size+mib-1)/mib*mib, MinResize)
}

// ReadUsage returns the usage of the volume in which dir is.
//
// Errors: [ErrNotMounted].
func ReadUsage(dir string) (Usage, error) {
	m, err := openMounted(dir)
	if err != nil {
		return Usage{}, fmt.Errorf("usage: %w", err)
	}
	defer m.close()
	u, err := m.usage()
	if err != nil {
		return u, fmt.Errorf("usage of %s: %w", dir, err)
	}
	return u, nil
}

func (m *mountedFS) usage() (Usage, error) {
	var volume, host unix.Statfs_t
	if err := unix.Fstatfs(int(m.file.Fd()), &volume); err != nil {
		return Usage{}, err
	}
	if err := unix.Fstatfs(int(m.image.file.Fd()), &host); err != nil {
		return Usage{}, err
	}
	if err := m.image.restat(); err != nil {
		return Usage{}, err
	}
	raw, err := m.space()
	if err != nil {
		return Usage{}, err
	}
	return Usage{
		UUID:      m.uuid,
		Size:      m.size,
		Used:      int64(volume.Blocks-volume.Bfree) * volume.Bsize,
		Free:      int64(volume.Bavail) * volume.Bsize,
		Min:       minFor(raw),
		Image:     m.image.path,
		ImageSize: m.image.stat.Size,
		Allocated: m.image.stat.Blocks * 512,
		HostSize:  int64(host.Blocks) * host.Bsize,
		HostFree:  int64(host.Bavail) * host.Bsize,
	}, nil
}

// Trim gives what the volume in which dir is does not use back to the host,
// and returns how many bytes btrfs said were unused. Deleted files go back by
// themselves after a while (discard=async); Trim is for right now, and for
// images that were mounted in another way.
func Trim(ctx context.Context, dir string) (int64, error) {
	m, err := openMounted(dir)
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	defer m.close()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	// What was deleted is free only when that is on the disk.
	if err := unix.Syncfs(int(m.file.Fd())); err != nil {
		return 0, fmt.Errorf("trim %s: %w", dir, err)
	}
	r := trimRange{length: math.MaxUint64}
	if err := ioctl(m.file, iocTrim, &r); err != nil {
		return 0, fmt.Errorf("trim %s: %w", dir, err)
	}
	return int64(r.length), nil
}
