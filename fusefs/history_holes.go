package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// Lseek finds holes and data, from the index where that knows them, or else from
// a content that does. Where no holes are known, all is data.
func (f *historyFS) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	ctx := request(&in.InHeader, cancel)
	h, err := f.file(ctx, in.NodeId)
	if err != nil {
		return f.fail("lseek", in.NodeId, err)
	}
	defer f.recent.leave(h)
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	off, err := h.seek(ctx, f.history, int64(in.Offset), in.Whence == unix.SEEK_HOLE)
	if err != nil {
		return f.fail("lseek", h.id, err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

func (h *historyFile) seek(ctx context.Context, src History, off int64, hole bool) (int64, error) {
	var extents []snapshot.Extent
	if h.entry.Holes > 0 {
		var err error
		if extents, err = src.Content(ctx, h.entry.Version); err != nil {
			return 0, err
		}
		if len(extents) == 0 { // the source has no names for them
			if file, err := h.open(ctx, src); err == nil {
				if s, ok := file.(snapshot.Seeker); ok {
					return s.Seek(ctx, off, hole)
				}
			}
		}
	}
	off, ok := seek(extents, h.entry.Size, off, hole)
	if !ok {
		return 0, syscall.ENXIO
	}
	return off, nil
}

// seek gives the first offset at or after off that lies in a hole, or in data,
// as lseek(2) says: the end of a file is a hole. Not ok means there is none.
// No extents mean a file without holes.
func seek(extents []snapshot.Extent, size, off int64, hole bool) (int64, bool) {
	if off < 0 || off >= size {
		return 0, false
	}
	if len(extents) == 0 && !hole {
		return off, true
	}
	end := int64(0)
	for _, e := range extents {
		start := end
		end += int64(e.Size)
		if end > off && e.Hole == hole {
			return max(start, off), true
		}
	}
	return size, hole
}
