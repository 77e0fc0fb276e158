package borgio

import (
	"context"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// store gives objects by id as they are stored: encrypted and compressed.
type store interface {
	// get gives one object; the buffer's reference is the caller's. sizeHint
	// is about how long it is, in bytes. A missing object is an
	// IntegrityError that wraps fs.ErrNotExist.
	get(ctx context.Context, id ID, sizeHint int) (*buffer.Buffer, error)
	// refresh makes later gets see at least what is committed now. While the
	// state that it gives stays the same, nothing has changed; zero means that
	// this cannot be told.
	refresh(ctx context.Context) (state uint64, err error)
	// loadKey gives the base64 text of the key kept in the repository, "" if none.
	loadKey(ctx context.Context) (string, error)
	close() error
}

// quickStore is a store that can tell what takes no waiting.
type quickStore interface {
	// getAtHand is store.get without waiting for anything. Where it would have
	// to, or where anything is wrong, ok is false.
	getAtHand(id ID, sizeHint int) (b *buffer.Buffer, ok bool)
}
