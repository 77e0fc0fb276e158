package borgio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/disk"
)

// localTarget puts objects into a repository's files.
type localTarget struct{ w *disk.Writer }

// madeTarget is a localTarget whose repository is being made.
type madeTarget struct {
	localTarget
	made *disk.Making
	pool *buffer.Pool
}

var (
	_ target = (*localTarget)(nil)
	_ target = (*madeTarget)(nil)
)

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
	return &localTarget{w}, nil
}

// creation says what a new repository is like.
type creation struct {
	appendOnly  bool
	quota       int64 // bytes; 0: none
	makeParents bool
}

// createTarget makes a repository, which has no manifest and no key yet, and begins
// the first transaction on it; in place of one that was begun and never finished,
// too. Rolled back, the repository is removed again, unless it was begun by somebody
// else at a remote. Of
// opts only what the place needs is looked at; nothing in it may be nil.
//
// Errors: [ErrExists], [ErrLocked], [fs.ErrNotExist] when there is no directory for it to be in,
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
	pool := &buffer.Pool{}
	made, err := disk.Create(ctx, loc.Path, disk.CreateOptions{
		ID: id, AppendOnly: c.appendOnly, StorageQuota: c.quota, MakeParents: c.makeParents,
		Environ: opts.Environ, Logger: opts.Logger,
	}, pool)
	if err != nil {
		pool.Close()
		return nil, ID{}, err
	}
	return &madeTarget{localTarget{made.Writer}, made, pool}, id, nil
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

func (t *localTarget) delete(ctx context.Context, id ID) (int64, error) {
	size, err := t.w.Delete(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return size, err
}

func (t *localTarget) freeNonce(context.Context) (uint64, bool, error) { return t.w.FreeNonce() }

func (t *localTarget) reserveNonces(_ context.Context, next, start uint64) error {
	return t.w.ReserveNonces(next, start)
}

func (t *localTarget) saveKey(_ context.Context, text string) error { return t.w.SaveKey(text) }

func (t *localTarget) flush(context.Context) error { return t.w.Flush() }

func (t *localTarget) commit(ctx context.Context) error { return t.w.Commit(ctx) }

func (t *localTarget) rollback() error { return t.w.Rollback() }

func (t *localTarget) compact(ctx context.Context, threshold float64) (int64, error) {
	return t.w.Compact(ctx, threshold)
}

func (t *madeTarget) commit(ctx context.Context) error {
	defer t.pool.Close()
	return t.made.Commit(ctx)
}

func (t *madeTarget) rollback() error {
	defer t.pool.Close()
	return t.made.Rollback()
}
