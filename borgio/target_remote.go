package borgio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/serve"
)

// remoteTarget puts objects into a repository through "borg serve".
type remoteTarget struct {
	w     *serve.Writer
	sizes map[ID]uint32   // of what was put
	ids   map[ID]struct{} // what was there before; nil: not asked
	pool  *buffer.Pool    // nil: it is another's
}

var _ target = (*remoteTarget)(nil)

// beginRemote begins a transaction on a remote repository. A holder of its lock is
// waited for so long, a second at least.
//
// Errors: [ErrLocked], [ErrUnreachable] and its kinds.
func (r *Repository) beginRemote(ctx context.Context, wait time.Duration) (target, error) {
	s, ok := r.store.(remoteStore)
	if !ok {
		return nil, errors.New("the repository is not remote")
	}
	w, err := s.client.Begin(ctx, wait)
	if err != nil {
		return nil, err
	}
	return &remoteTarget{w: w, sizes: map[ID]uint32{}}, nil
}

func createRemote(ctx context.Context, loc Location, opts Options, c creation) (target, ID, error) {
	if c.quota != 0 {
		return nil, ID{}, fmt.Errorf("%w: the quota of a remote repository is set on the server", ErrUnsupported)
	}
	pool := &buffer.Pool{}
	w, err := serve.Create(ctx, serveOptions(loc, opts), serve.CreateOptions{AppendOnly: c.appendOnly, MakeParents: c.makeParents}, pool)
	if err != nil {
		pool.Close()
		return nil, ID{}, err
	}
	return &remoteTarget{w: w, sizes: map[ID]uint32{}, ids: map[ID]struct{}{}, pool: pool}, w.ID(), nil
}

func (t *remoteTarget) has(id ID) (there, known bool) {
	if _, put := t.sizes[id]; put {
		return true, true
	}
	_, there = t.ids[id]
	return there, t.ids != nil
}

func (t *remoteTarget) loadIDs(ctx context.Context) error {
	if t.ids != nil {
		return nil
	}
	ids := map[ID]struct{}{}
	if err := t.w.List(ctx, func(id [32]byte) { ids[id] = struct{}{} }); err != nil {
		return err
	}
	t.ids = ids
	return nil
}

func (t *remoteTarget) storedSize(id ID) uint32 { return t.sizes[id] }

func (t *remoteTarget) get(ctx context.Context, id ID, _ int) (*buffer.Buffer, error) {
	b, err := t.w.Get(ctx, id)
	return b, objectError(id, err)
}

func (t *remoteTarget) put(ctx context.Context, id ID, stored []byte) error {
	err := t.w.Put(ctx, id, stored)
	if err == nil {
		t.sizes[id] = uint32(len(stored))
	}
	return err
}

func (t *remoteTarget) delete(ctx context.Context, id ID) (int64, error) {
	return 0, t.w.Delete(ctx, id)
}

func (t *remoteTarget) freeNonce(ctx context.Context) (uint64, bool, error) {
	return t.w.FreeNonce(ctx)
}

func (t *remoteTarget) reserveNonces(ctx context.Context, next, start uint64) error {
	return t.w.ReserveNonces(ctx, next, start)
}

func (t *remoteTarget) saveKey(ctx context.Context, text string) error {
	return t.w.SaveKey(ctx, text)
}

func (t *remoteTarget) flush(ctx context.Context) error { return t.w.Flush(ctx) }

func (t *remoteTarget) commit(ctx context.Context) error {
	defer t.over()
	return t.w.Commit(ctx)
}

func (t *remoteTarget) compact(ctx context.Context, threshold float64) (int64, error) {
	defer t.over()
	return -1, t.w.Compact(ctx, threshold)
}

func (t *remoteTarget) rollback() error {
	defer t.over()
	return t.w.Rollback()
}

// over gives memory back.
func (t *remoteTarget) over() {
	if t.pool != nil {
		t.pool.Close()
	}
	t.sizes, t.ids = nil, nil
}
