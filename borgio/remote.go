package borgio

import (
	"context"
	"errors"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/serve"
)

// remoteStore gets objects through "borg serve".
type remoteStore struct{ client *serve.Client }

var _ store = remoteStore{}

func openRemote(ctx context.Context, loc Location, opts Options, pool *buffer.Pool) (remoteStore, error) {
	c, err := serve.Open(ctx, serveOptions(loc, opts), pool)
	return remoteStore{c}, objectError(manifestID, err)
}

func serveOptions(loc Location, opts Options) serve.Options {
	return serve.Options{
		User: loc.User, Host: loc.Host, Port: loc.Port, Path: loc.Path, Name: loc.String(),
		Environ: opts.Environ, Logger: opts.Logger, Timeout: opts.Timeout, LockWait: opts.LockWait,
		Keep: opts.Keep, ControlDir: opts.ControlDir,
	}
}

func (s remoteStore) get(ctx context.Context, id ID, _ int) (*buffer.Buffer, error) {
	if id == manifestID {
		b, err := s.client.Manifest(ctx)
		return b, objectError(id, err)
	}
	b, err := s.client.Get(ctx, id)
	return b, objectError(id, err)
}

// objectError makes an IntegrityError of what the server says of an object.
func objectError(id ID, err error) error {
	switch {
	case errors.Is(err, serve.ErrNoObject):
		return &IntegrityError{Object: id, What: "lookup", Err: err}
	case errors.Is(err, serve.ErrBadObject):
		return &IntegrityError{Object: id, What: "segment entry", Err: err}
	}
	return err
}

// refresh has nothing to do: getting the manifest is what makes later gets see
// all that was committed before it.
func (s remoteStore) refresh(context.Context) (uint64, error) { return 0, nil }

func (s remoteStore) loadKey(ctx context.Context) (string, error) { return s.client.LoadKey(ctx) }

func (s remoteStore) close() error {
	s.client.Close()
	return nil
}
