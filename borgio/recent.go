package borgio

import (
	"bytes"
	"context"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// recentBytes bounds what is kept of a transaction's metadata.
const recentBytes = 4 << 20

// recent is metadata that the last transaction stored in a remote repository. Who
// writes an archive reads what is new in it soon, and a reader that knows it would
// have to be opened there first.
type recent struct {
	plain map[ID][]byte
	bytes int
}

func (c *recent) add(id ID, plain []byte) {
	if _, there := c.plain[id]; there || c.bytes+len(plain) > recentBytes {
		return
	}
	if c.plain == nil {
		c.plain = map[ID][]byte{}
	}
	c.plain[id] = bytes.Clone(plain)
	c.bytes += len(plain)
}

// storeMetadata is store, for what is read again soon.
func (t *Transaction) storeMetadata(ctx context.Context, plain []byte) (Chunk, error) {
	c, err := t.store(ctx, plain)
	if err == nil && t.repo.loc.IsRemote() {
		t.mu.Lock()
		t.recent.add(c.ID, plain)
		t.mu.Unlock()
	}
	return c, err
}

// recently gives an object that was stored last, or nil.
func (r *Repository) recently(id ID, limit int) *buffer.Buffer {
	r.mu.Lock()
	plain, ok := r.recent.plain[id]
	r.mu.Unlock()
	if !ok || len(plain) > limit {
		return nil
	}
	b := r.pool.Get(len(plain))
	copy(b.Data, plain)
	return b
}
