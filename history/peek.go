package history

import (
	"context"
	"errors"
	"io/fs"

	"github.com/s4-storage/s4/snapshot"
)

// finder is a source that finds one path in a snapshot faster than it gives
// the whole tree. A path that is not there is fs.ErrNotExist.
type finder interface {
	FindItem(ctx context.Context, info snapshot.Info, path string) (*snapshot.Item, error)
}

// Peek gives the content of the regular file at path in a snapshot that is not
// indexed, and leaves it so: for one file, searching the tree is several times
// faster than indexing it. The file is nil where the index is to be asked: the
// snapshot is in it, or what is at the path is not simply a file.
func (h *History) Peek(ctx context.Context, num int64, path string) (snapshot.File, error) {
	info, err := h.x.Snapshot(ctx, num)
	if err != nil || info.Indexed {
		return nil, err
	}
	for s, src := range h.holders(ctx, num) {
		if !opensByPath(src) && s.Num != num {
			continue
		}
		var f snapshot.File
		if f, err = peek(ctx, src, s, path); f != nil || err == nil {
			return f, err
		}
	}
	return nil, err
}

func peek(ctx context.Context, src snapshot.Source, s snapshot.Info, path string) (snapshot.File, error) {
	find, ok := src.(finder)
	if !ok {
		return nil, nil
	}
	it, err := find.FindItem(ctx, s, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case it.Mode&modeType != modeRegular, it.LinkTo != "" && it.LinkTo != path:
		return nil, nil
	case it.Size == 0:
		return emptyFile{}, nil
	}
	if o, ok := src.(pathOpener); ok {
		return o.OpenPath(ctx, s, path, it.Entry)
	}
	return src.Open(ctx, it.Content)
}
