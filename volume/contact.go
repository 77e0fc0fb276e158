package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// reachOrCreate opens the remote's repository, making it on first use, and anew
// where that was begun and never finished.
func (v *Volume) reachOrCreate(ctx context.Context, remote Remote, o PushOptions, result *PushResult) (*repository, error) {
	repo, err := v.reach(ctx, remote)
	if err == nil {
		return repo, nil
	}
	if repo == nil || !errors.Is(err, borgio.ErrNotRepository) {
		return nil, err
	}
	loc, begun := repo.Location, errors.Is(err, borgio.ErrUnfinished)
	if err := v.mayCreate(loc, begun, remote, o.Force); err != nil {
		return nil, err
	}
	if remote.Encryption != "none" {
		if err := v.access.NewPassphrase(ctx, loc); err != nil {
			return nil, err
		}
	}
	if begun {
		o.Report.note("The repository %s was begun and never finished; nothing is in it", loc)
	}
	o.Report.note("Creating repository %s (encryption: %s)", loc, remote.Encryption)
	if err := v.access.Create(ctx, loc, remote.Encryption); err != nil {
		return nil, err
	}
	result.Created = true
	opened, err := v.access.Open(ctx, loc)
	if err != nil {
		return nil, err
	}
	return &repository{Repository: opened, Location: loc, Adopted: repo.Adopted}, nil
}

// mayCreate refuses to make a repository where there was one, or is something else
// than one that was begun.
func (v *Volume) mayCreate(loc borgio.Location, begun bool, remote Remote, force bool) error {
	if _, known, ok := v.state.at(loc.String(), remote.URL); ok && !force {
		return hint.With(&awayError{known.URL},
			"is its disk mounted? To begin a new one in its place: s4 push --force "+remote.Name)
	}
	if !loc.IsRemote() && !begun {
		if names, _ := os.ReadDir(loc.Path); len(names) > 0 {
			return hint.With(fmt.Errorf("%w: %s is there, is not empty and is not a repository", snapshot.ErrRefused, loc),
				"move it away or choose another place with: s4 remote set-url "+remote.Name+" URL")
		}
	}
	return nil
}

// Probe tells why a push to a remote would be refused now, or could not begin: it
// cannot be reached, does not let us in, or has snapshots that are in the way. A
// repository that would have to be made is no reason. Errors: those of
// [Volume.Push].
func (v *Volume) Probe(ctx context.Context, remote string) error {
	r, err := v.Remote(remote)
	if err != nil {
		return err
	}
	repo, err := v.reach(ctx, r)
	switch {
	case err == nil:
	case repo != nil && errors.Is(err, borgio.ErrNotRepository):
		return v.mayCreate(repo.Location, errors.Is(err, borgio.ErrUnfinished), r, false)
	default:
		return err
	}
	if err := v.acquire(ctx); err != nil {
		return errors.Join(err, repo.Close())
	}
	defer v.unlock()
	known, err := v.meet(repo, r, false)
	if err != nil {
		return err
	}
	_, held, err := v.holdings(ctx, history.BorgSourceID(repo.ID().String()), true)
	if err != nil {
		return err
	}
	return v.mayPush(known, held, r, false)
}

// awayError says that a repository which was pushed to is not there. It may have
// been deleted, and making another must not happen by itself; or its disk is
// away, and will come back.
type awayError struct{ url string }

func (e *awayError) Error() string {
	return fmt.Sprintf("%v: the repository %s, pushed to before, is not there", snapshot.ErrRefused, e.url)
}

func (e *awayError) Unwrap() []error { return []error{snapshot.ErrRefused, snapshot.ErrUnreachable} }

// meet remembers a repository that was reached and keeps it open for the time
// line. It refuses, and closes, one that is not what it should be: another one
// than before in its place, unless that is accepted, or one that would store in
// the clear what was to be encrypted.
func (v *Volume) meet(repo *repository, remote Remote, accept bool) (*repositoryState, error) {
	id, url := repo.ID().String(), repo.Location.String()
	if before, _, ok := v.state.at(url); ok && before != id {
		if !accept {
			return nil, errors.Join(hint.With(fmt.Errorf("%w: another repository than before is at %s", snapshot.ErrRefused, url),
				"if that is meant, accept it with --force"), repo.Close())
		}
		delete(v.state.Repositories, before)
	}
	if wanted, ok := v.setting("remote." + remote.Name + ".encryption"); ok && secret(wanted) && !secret(repo.Encryption()) {
		return nil, errors.Join(hint.With(fmt.Errorf("%w: %s is to be encrypted (%s), but the repository %s is not (%s)",
			snapshot.ErrRefused, remote.Name, wanted, url, repo.Encryption()),
			"if that is meant: s4 config set remote."+remote.Name+".encryption "+repo.Encryption()), repo.Close())
	}
	known := v.state.repository(id)
	known.URL, known.Encryption, known.Adopted = url, repo.Encryption(), repo.Adopted
	known.Contact = time.Now().UTC()
	if old := v.reached[id]; old != nil {
		if err := old.Close(); err != nil {
			v.log.Warn("let go of a repository", "error", err)
		}
	}
	v.reached[id] = repo.Repository
	return known, nil
}

// secret tells whether a mode keeps content from who holds the repository.
func secret(encryption string) bool {
	return encryption != "none" && !strings.HasPrefix(encryption, "authenticated")
}
