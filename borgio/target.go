package borgio

import (
	"context"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// target is where a transaction's objects go. It holds the repository's
// exclusive lock from its making to commit or rollback. It is used by one
// goroutine at a time.
type target interface {
	// has tells whether an object is in the repository, or was put in this
	// transaction. known is false where that cannot be told without asking for
	// the list of all ids, which loadIDs does.
	has(id ID) (there, known bool)
	// loadIDs learns all ids: a remote's list; a local one has them already.
	loadIDs(ctx context.Context) error
	// storedSize is the length of an object as stored, in bytes; 0 where it is
	// not known without asking.
	storedSize(id ID) uint32
	// get reads an object as it was committed before the transaction, under the
	// lock; the buffer's reference is the caller's. As with store.get, a large one
	// may be mapped: see disk.OnFault.
	get(ctx context.Context, id ID, sizeHint int) (*buffer.Buffer, error)
	// put stores an object as it is; stored is the caller's again when it
	// returns. Puts are pipelined: the error of one may come out of a later one,
	// of flush, or of commit. After an error the transaction can only be rolled
	// back. The id should not be there already, unless it is the manifest's.
	put(ctx context.Context, id ID, stored []byte) error
	// delete removes an object; one that is not there is no error. size is about how
	// many bytes that will free, 0 where it is not known. Otherwise it is like put.
	delete(ctx context.Context, id ID) (size int64, err error)
	// freeNonce gives the next free counter block as the repository knows it;
	// not ok: it has noted none.
	freeNonce(ctx context.Context) (next uint64, ok bool, err error)
	// reserveNonces notes that the blocks from start up to next are used,
	// durably before it returns, whatever becomes of the transaction. It fails where
	// start is below what is noted.
	reserveNonces(ctx context.Context, next, start uint64) error
	// saveKey keeps the base64 text of a key in the repository. It takes effect at
	// once: only rolling back the repository's very making undoes it.
	saveKey(ctx context.Context, text string) error
	// flush waits until every put so far is written, or acknowledged.
	flush(ctx context.Context) error
	// commit makes all durable, and drops the lock. The manifest must have been
	// put last. Where it fails nothing was committed, unless the error is
	// ErrUnknown; it is never tried again.
	commit(ctx context.Context) error
	// compact removes segments of which more than that part could be freed, instead
	// of putting anything, and drops the lock. freed is in bytes, -1 where that is not
	// known. Where only appending is allowed nothing happens.
	compact(ctx context.Context, threshold float64) (freed int64, err error)
	// rollback undoes all that was not committed, and drops the lock; after
	// commit it does nothing.
	rollback() error
}
