package borgio

import (
	"context"
	"fmt"

	"github.com/s4-storage/s4/borgio/internal/keys"
)

// CreateOptions are what making a repository may need; the zero value is good.
type CreateOptions struct {
	// Options are those of Open. Passphrase is asked when the environment has
	// neither BORG_NEW_PASSPHRASE nor what gives a passphrase elsewhere.
	Options
	// Parents makes the directories above the repository, too.
	Parents bool
}

// Create makes a repository that has no archive yet, with a new key of a mode:
// none, authenticated, authenticated-blake2, repokey, repokey-blake2, keyfile or
// keyfile-blake2. A key file is put where borg looks for it. It gives the
// repository's id. One that was begun and never finished is begun anew.
//
// Killed at any moment, it leaves nothing or a whole repository; in a directory that
// was there, and at a remote, it may leave one that is [ErrUnfinished].
//
// Errors: [ErrLocked] while somebody else makes one there, [fs.ErrExist] where something is already, [ErrNoPassphrase],
// [ErrUnsupported] for another mode; when remote also [ErrUnreachable] and its
// kinds.
func Create(ctx context.Context, loc Location, mode string, opts CreateOptions) (ID, error) {
	id, err := create(ctx, loc, mode, opts, createStore)
	if err != nil {
		return id, fmt.Errorf("create repository %s: %w", loc, err)
	}
	return id, nil
}

// storeMaker makes an empty repository, and holds its lock.
type storeMaker func(context.Context, Location, CreateOptions) (target, ID, error)

func create(ctx context.Context, loc Location, mode string, opts CreateOptions, makeStore storeMaker) (id ID, err error) {
	typ, err := keys.TypeOf(mode)
	if err != nil {
		return id, err
	}
	comp, err := newCompressor("")
	if err != nil {
		return id, err
	}
	r, full, err := newRepository(loc, opts.Options)
	if err != nil {
		return id, err
	}
	defer r.Close()
	opts.Options = full
	var passphrase string
	if typ != keys.TypePlain { // asked first: a repository without a key is good for nothing
		if passphrase, err = keys.NewPassphrase(ctx, r.env, opts.Passphrase); err != nil {
			return id, err
		}
	}
	target, id, err := makeStore(ctx, loc, opts)
	if err != nil {
		return id, err
	}
	r.id = id
	text := ""
	if r.key, text, err = keys.Generate(ctx, typ, id, passphrase); err == nil {
		err = r.keepKey(ctx, target, text)
	}
	if err != nil {
		_ = target.rollback() // the first error tells more
		return id, err
	}
	return id, r.newTransaction(target, comp, newDraft(), 0).Commit(ctx)
}

// keepKey puts the text of a new key where its mode keeps it.
func (r *Repository) keepKey(ctx context.Context, target target, text string) error {
	switch {
	case !r.key.Keyed:
		return nil
	case r.key.Keyfile:
		path, err := keys.WriteFile(r.env, r.id, text, r.loc.Host, r.loc.Path)
		if err == nil {
			r.log.Info("key file written; without it the repository cannot be read", "path", path)
		}
		return err
	}
	return target.saveKey(ctx, text)
}
