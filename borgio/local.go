package borgio

import (
	"context"
	"errors"
	"log/slog"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/disk"
)

// maxObjectSize bounds what is stored of one object, in bytes.
const maxObjectSize = disk.MaxObjectSize

// localStore gets objects from a repository's files.
type localStore struct{ repo *disk.Repository }

var (
	_ store      = localStore{}
	_ quickStore = localStore{}
)

func openLocal(ctx context.Context, dir string, pool *buffer.Pool, log *slog.Logger) (localStore, error) {
	r, err := disk.Open(ctx, dir, pool, log)
	return localStore{r}, err
}

func (s localStore) get(ctx context.Context, id ID, sizeHint int) (*buffer.Buffer, error) {
	b, err := s.repo.Get(ctx, id, sizeHint)
	return b, diskError(id, err)
}

// diskError makes an IntegrityError of what is wrong with an object's place.
func diskError(id ID, err error) error {
	if bad, ok := errors.AsType[*disk.ObjectError](err); ok {
		return &IntegrityError{Object: id, What: bad.Check, Err: bad.Err}
	}
	return err
}

func (s localStore) getAtHand(id ID, sizeHint int) (*buffer.Buffer, bool) {
	return s.repo.GetAtHand(id, sizeHint)
}

func (s localStore) refresh(ctx context.Context) (uint64, error) { return s.repo.Refresh(ctx) }

func (s localStore) loadKey(context.Context) (string, error) { return s.repo.LoadKey() }

// unfinished is the error for a repository that has no manifest.
func (s localStore) unfinished(missing error) error {
	if begun, err := s.repo.Unfinished(); err != nil || !begun {
		return missing
	}
	return ErrUnfinished
}

func (s localStore) close() error { return s.repo.Close() }
