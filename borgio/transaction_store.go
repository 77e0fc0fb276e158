package borgio

import (
	"context"

	"github.com/s4-storage/s4/borgio/internal/chunker"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// store makes plain an object of the repository, unless it is one. It is safe
// for concurrent use; of several that store the same, one does and the others
// wait.
func (t *Transaction) store(ctx context.Context, plain []byte) (Chunk, error) {
	c := Chunk{ID: t.repo.key.ID(plain), Size: uint32(len(plain))}
	p, mine, err := t.claim(ctx, c.ID)
	if err != nil {
		return c, err
	}
	if !mine {
		c.Stored = p.stored
		return c, p.err
	}
	p.stored, p.err = t.storeNew(ctx, c.ID, plain)
	t.mu.Lock()
	delete(t.pending, c.ID)
	if t.err == nil {
		t.err = p.err
	}
	t.mu.Unlock()
	close(p.ready)
	c.Stored = p.stored
	return c, p.err
}

// claim tells what has become of an object, or that it is the caller's to store.
func (t *Transaction) claim(ctx context.Context, id ID) (p *pending, mine bool, err error) {
	t.mu.Lock()
	if t.err != nil {
		defer t.mu.Unlock()
		return nil, false, t.err
	}
	p, others := t.pending[id]
	if !others {
		p = &pending{ready: make(chan struct{})}
		t.pending[id] = p
	}
	t.mu.Unlock()
	if !others {
		return p, true, nil
	}
	select {
	case <-p.ready:
		return p, false, nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// storeNew stores an object if the repository does not have it, and tells how
// long it is stored; 0 where that is not known.
func (t *Transaction) storeNew(ctx context.Context, id ID, plain []byte) (uint32, error) {
	if there, stored, err := t.lookUp(ctx, id); there || err != nil {
		return stored, err
	}
	stored, err := t.put(ctx, id, plain)
	if err == nil {
		t.added.Add(int64(stored))
	}
	return stored, err
}

// lookUp asks the target for an object. A remote knows only after it was made to
// list all: for a few objects that is not worth it, and to put what is there
// already does no harm.
func (t *Transaction) lookUp(ctx context.Context, id ID) (there bool, stored uint32, err error) {
	err = t.withTarget(func() error {
		known := false
		there, known = t.target.has(id)
		if !known {
			if t.unknown++; t.unknown > blindPuts && !t.listed {
				if err := t.target.loadIDs(ctx); err != nil {
					return err
				}
				t.listed = true
				there, _ = t.target.has(id)
			}
		}
		if there {
			stored = t.target.storedSize(id)
		}
		return nil
	})
	return there, stored, err
}

// smallObject is the length up to which objects are made in memory that is kept
// for that.
const smallObject = 64 << 10

// put compresses, encrypts and stores an object, and tells how long it is
// stored.
func (t *Transaction) put(ctx context.Context, id ID, plain []byte) (uint32, error) {
	key := t.repo.key
	room := key.Overhead() + compress.Bound(len(plain))
	var memory []byte
	if room <= smallObject {
		memory = t.takeScratch()
		defer t.giveScratch(memory)
	} else {
		b := t.repo.pool.Get(room)
		defer b.Release()
		memory = b.Data
	}
	object := t.comp.Append(memory[:key.Overhead()], plain)
	var iv uint64
	if key.Encrypted {
		var err error
		if iv, err = t.nonces.Take(ctx, keys.Blocks(len(object)-key.Overhead())); err != nil {
			return 0, err
		}
	}
	key.Encrypt(object, iv)
	if err := t.withTarget(func() error { return t.target.put(ctx, id, object) }); err != nil {
		return 0, err
	}
	return uint32(len(object)), nil
}

func (t *Transaction) takeScratch() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.scratch)
	if n == 0 {
		return make([]byte, smallObject)
	}
	s := t.scratch[n-1]
	t.scratch = t.scratch[:n-1]
	return s
}

func (t *Transaction) giveScratch(s []byte) {
	t.mu.Lock()
	t.scratch = append(t.scratch, s)
	t.mu.Unlock()
}

// idleChunkers is how many chunkers are kept that have grown for large files.
const idleChunkers = 2

func (t *Transaction) takeChunker() *chunker.Chunker {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.chunkers)
	if n == 0 {
		return chunker.New(t.hash)
	}
	c := t.chunkers[n-1]
	t.chunkers = t.chunkers[:n-1]
	return c
}

func (t *Transaction) giveChunker(c *chunker.Chunker) {
	c.Reset(nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.chunkers) >= idleChunkers && c.Memory() > 1<<20 {
		return
	}
	t.chunkers = append(t.chunkers, c)
}

// there reports whether an object that an archive lists is in the repository, as
// far as it can be told without asking.
func (t *Transaction) there(id ID) bool {
	t.targeting.Lock()
	defer t.targeting.Unlock()
	there, known := t.target.has(id)
	return there || !known
}
