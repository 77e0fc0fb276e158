package borgio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/disk"
)

// localTarget puts objects into a repository's files.
type localTarget struct {
	w   *disk.Writer
	end func(committed bool) error // nil: nothing is left to do after the transaction
}

var _ target = (*localTarget)(nil)

// beginLocal begins a transaction on a local repository. A holder of its lock is
// waited for so long.
//
// Errors: [*LockedError], [ErrIntegrity] when it has to be repaired first.
func (r *Repository) beginLocal(ctx context.Context, wait time.Duration) (target, error) {
	s, ok := r.store.(localStore)
	if !ok {
		return nil, errors.New("the repository is not local")
	}
	w, err := s.repo.Begin(ctx, wait, r.env)
	if err != nil {
		return nil, err
	}
	return &localTarget{w: w}, nil
}

// creation says what a new repository is like.
type creation struct {
	appendOnly  bool
	quota       int64 // bytes; 0: none
	makeParents bool
}

// createTarget makes a repository, which has no manifest and no key yet, and begins
// the first transaction on it. Rolled back, the repository is removed again. Of
// opts only what the place needs is looked at; nothing in it may be nil.
//
// Errors: [ErrExists], [fs.ErrNotExist] when there is no directory for it to be in,
// [fs.ErrPermission], [ErrNoSpace]; when remote [ErrUnreachable] and its kinds.
func createTarget(ctx context.Context, loc Location, opts Options, c creation) (target, ID, error) {
	create := createLocal
	if loc.IsRemote() {
		create = createRemote
	}
	t, id, err := create(ctx, loc, opts, c)
	if err != nil {
		return nil, ID{}, fmt.Errorf("create repository %s: %w", loc, err)
	}
	return t, id, nil
}

func createLocal(ctx context.Context, loc Location, opts Options, c creation) (target, ID, error) {
	var id ID
	_, _ = rand.Read(id[:]) // it never fails
	own, err := disk.Create(loc.Path, disk.CreateOptions{ID: id, AppendOnly: c.appendOnly, StorageQuota: c.quota, MakeParents: c.makeParents})
	if err != nil {
		return nil, ID{}, err
	}
	t, err := beginCreated(ctx, loc.Path, own, opts)
	if err != nil {
		return nil, ID{}, errors.Join(err, disk.Remove(loc.Path, own))
	}
	return t, id, nil
}

func beginCreated(ctx context.Context, dir string, own bool, opts Options) (target, error) {
	pool := &buffer.Pool{}
	repo, err := disk.Open(ctx, dir, pool, opts.Logger)
	if err != nil {
		return nil, err
	}
	w, err := repo.Begin(ctx, 0, opts.Environ)
	if err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return &localTarget{w, func(committed bool) error {
		err := repo.Close()
		pool.Close()
		if !committed {
			err = errors.Join(err, disk.Remove(dir, own))
		}
		return err
	}}, nil
}

func (t *localTarget) has(id ID) (there, known bool) { return t.w.Has(id), true }

func (t *localTarget) loadIDs(context.Context) error { return nil }

func (t *localTarget) storedSize(id ID) uint32 { return t.w.StoredSize(id) }

func (t *localTarget) get(ctx context.Context, id ID, sizeHint int) (*buffer.Buffer, error) {
	b, err := t.w.Get(ctx, id, sizeHint)
	return b, diskError(id, err)
}

func (t *localTarget) put(ctx context.Context, id ID, stored []byte) error {
	return t.w.Put(ctx, id, stored)
}

func (t *localTarget) freeNonce(context.Context) (uint64, bool, error) { return t.w.FreeNonce() }

func (t *localTarget) reserveNonces(_ context.Context, next, start uint64) error {
	return t.w.ReserveNonces(next, start)
}

func (t *localTarget) saveKey(_ context.Context, text string) error { return t.w.SaveKey(text) }

func (t *localTarget) flush(context.Context) error { return t.w.Flush() }

func (t *localTarget) commit(ctx context.Context) error {
	err := t.w.Commit(ctx)
	return errors.Join(err, t.over(err == nil || errors.Is(err, ErrUnknown)))
}

func (t *localTarget) rollback() error {
	err := t.w.Rollback()
	return errors.Join(err, t.over(false))
}

// over does what is left to do after the transaction, once.
func (t *localTarget) over(committed bool) error {
	end := t.end
	t.end = nil
	if end == nil {
		return nil
	}
	return end(committed)
}
