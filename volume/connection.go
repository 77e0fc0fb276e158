package volume

import (
	"errors"
	"slices"

	"github.com/s4-storage/s4/borgio"
)

// Connection keeps a remote's repository open from one push to the next. The next
// one does not ask what the remote holds, but takes it to be what the last one left
// there, and finds out when it has the repository's lock. The zero value keeps
// nothing yet. It is for one push at a time.
type Connection struct {
	remote Remote
	repo   *repository // nil: none is kept
	left   *borgio.Manifest
}

// errOutdated says that the remote holds something else than the last push left.
var errOutdated = errors.New("the remote has changed")

// Close lets go of the repository. The next push looks what the remote holds.
func (c *Connection) Close() error {
	repo := c.repo
	c.repo, c.left = nil, nil
	if repo == nil {
		return nil
	}
	return repo.Close()
}

// to gives the repository if it is the remote's, for the caller to close, and what
// it is taken to hold; else nil.
func (c *Connection) to(remote Remote) (*repository, *borgio.Manifest) {
	if c == nil || c.repo == nil || c.remote != remote {
		return nil, nil
	}
	repo := *c.repo
	repo.Share()
	return &repo, c.left
}

// keep is told of a push that went well. It does nothing where c is nil.
func (c *Connection) keep(remote Remote, repo *repository, left *borgio.Manifest) error {
	if c == nil {
		return nil
	}
	kept := *repo
	kept.Share()
	err := c.Close()
	c.remote, c.repo, c.left = remote, &kept, left
	return err
}

// equalArchives tells whether two manifests name the same archives, but for
// checkpoints.
func equalArchives(a, b *borgio.Manifest) bool {
	ids := func(m *borgio.Manifest) []string {
		var ids []string
		for _, ref := range m.Archives {
			if !borgio.IsCheckpoint(ref.Name) {
				ids = append(ids, ref.ID.String())
			}
		}
		slices.Sort(ids)
		return ids
	}
	return slices.Equal(ids(a), ids(b))
}
