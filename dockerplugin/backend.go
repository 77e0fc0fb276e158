package dockerplugin

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
)

// Volume is a docker volume as the backend sees it.
type Volume struct {
	Name    string
	Dir     string // its own directory, which exists; volume.json in it is the driver's
	Options Options
	Source  string // the directory of the volume that it is filled from; "" for none
}

// Volumes stores and mounts volumes. There is one call at a time for a volume,
// but for those of [Content]. All but Create may come again after a success or
// a crash, and then see to it that what they are for holds.
type Volumes interface {
	// Create makes a volume, or fails leaving what Delete can take away. It
	// tells whether there is content at the remote to fill it with.
	Create(ctx context.Context, v Volume) (fills bool, err error)
	// Mount returns the directory where the volume is usable from then on.
	Mount(ctx context.Context, v Volume) (string, error)
	// Unmount frees what Mount took: the volume is only stored.
	Unmount(ctx context.Context, v Volume) error
	// Delete takes away for good what a volume has outside of v.Dir, and frees
	// v.Dir for being deleted, whatever state the volume is in.
	Delete(ctx context.Context, v Volume) error
}

// Content is what a volume holds.
type Content interface {
	// Fill brings the content from the remote into a volume that is not
	// mounted for anybody. It carries on after an error or a crash. It may
	// leave the volume mounted.
	Fill(ctx context.Context, v Volume, report func(Progress)) error
	// Status is shown by `docker volume inspect`: snapshots, lag, remote. It
	// comes at any time, beside other calls, and may not wait for a network.
	Status(ctx context.Context, v Volume) (map[string]any, error)
}

// Upkeep is what a person has done with volumes. There is one call at a time for
// a volume, as for [Volumes].
type Upkeep interface {
	// Exchange lets two volumes that are not mounted change their contents, in
	// one step.
	Exchange(ctx context.Context, a, b Volume) error
	// Restore brings a volume that is not mounted back to a snapshot that it has
	// on this host, in one step.
	Restore(ctx context.Context, v Volume, when string) (Restored, error)
	// Resize changes the size of a volume, mounted or not. It may leave it
	// mounted.
	Resize(ctx context.Context, v Volume, size string) error
}

// Restored names snapshots, as a TIME.
type Restored struct {
	To     string // which the volume now is
	Before string // as it was before
}

// Backend is all of them.
type Backend interface {
	Volumes
	Content
	Upkeep
}

// Progress is how far a fill is.
type Progress struct {
	Done, Total int64 // bytes; Total is 0 where it is not known
}

func (p Progress) String() string {
	done := humanize.IBytes(uint64(max(p.Done, 0)))
	if p.Total <= 0 {
		return done
	}
	return fmt.Sprintf("%d%%, %s of %s", min(100, p.Done*100/p.Total), done, humanize.IBytes(uint64(p.Total)))
}
