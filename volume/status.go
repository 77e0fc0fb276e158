package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// maxListed bounds how many changes a status lists by name.
const maxListed = 1000

// Status is what s4 knows of a volume without the network.
type Status struct {
	Name     string         `json:"name"`
	ID       string         `json:"id"`
	Root     string         `json:"root"`
	Mounted  bool           `json:"mounted"` // in place, through s4
	Base     *snapshot.Info `json:"base,omitempty"`
	Pruned   bool           `json:"pruned,omitempty"`   // the real base is kept nowhere; Base is the newest before it
	Arriving bool           `json:"arriving,omitempty"` // a clone or pull was interrupted
	Clean    bool           `json:"clean"`
	Changed  int            `json:"changed"` // paths
	Changes  []Change       `json:"changes"` // the first of them
	Unread   []string       `json:"unread,omitempty"`
	Remotes  []RemoteStatus `json:"remotes"`
	Index    IndexStatus    `json:"index"`

	Btrfs     bool         `json:"btrfs"`     // a subvolume, which has snapshots of its own
	Snapshots int          `json:"snapshots"` // btrfs snapshots kept here
	Replicate *Replication `json:"replicate,omitempty"`
	Sync      *Replication `json:"sync,omitempty"`
}

// RemoteStatus is what is known of one remote since it was last reached.
type RemoteStatus struct {
	Remote
	Repository string    `json:"repository,omitempty"` // its URL; "" when never reached
	LastPush   time.Time `json:"last_push,omitzero"`
	Contact    time.Time `json:"contact,omitzero"`
	// Ahead tells that the base or changes on top of it are not there yet.
	Ahead bool `json:"ahead"`
	// Behind counts its snapshots that this volume has not pulled.
	Behind int `json:"behind"`
}

// IndexStatus is the state of the index.
type IndexStatus struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"` // bytes
	Snapshots int    `json:"snapshots"`
	Pending   int    `json:"pending"` // known but not indexed yet
}

// Status looks at the live tree and at what is remembered of the remotes.
func (v *Volume) Status(ctx context.Context) (*Status, error) {
	past, err := v.Past(ctx)
	if err != nil {
		return nil, err
	}
	s := &Status{Name: v.Name(), ID: v.ID(), Root: v.Shown, Mounted: v.Root != v.Shown,
		Arriving: v.state.Arriving != nil, Changes: []Change{}, Remotes: []RemoteStatus{}}
	base, ok, err := v.base(ctx, past)
	if err != nil {
		return nil, err
	}
	if ok {
		s.Base, s.Pruned = &base, !v.state.Base.is(base)
	}
	for c, err := range v.changes(ctx, past) {
		if err != nil {
			if c.Path == "" {
				return nil, err
			}
			s.Unread = append(s.Unread, err.Error())
			continue
		}
		if s.Changed++; s.Changed <= maxListed {
			s.Changes = append(s.Changes, c)
		}
	}
	s.Clean = s.Changed == 0 && len(s.Unread) == 0
	for _, r := range v.Remotes() {
		rs, err := v.remoteStatus(ctx, past, r, s)
		if err != nil {
			return nil, err
		}
		s.Remotes = append(s.Remotes, rs)
	}
	if err := v.localStatus(ctx, s); err != nil {
		return nil, err
	}
	return s, v.indexStatus(ctx, past, &s.Index)
}

// localStatus tells what is kept here, and what keeps it in step.
func (v *Volume) localStatus(ctx context.Context, s *Status) error {
	s.Btrfs = v.subvolume
	if s.Btrfs {
		taken, err := v.store().List(ctx)
		if err != nil {
			return err
		}
		s.Snapshots = len(taken)
	}
	for job, state := range map[string]**Replication{"replicate": &s.Replicate, "sync": &s.Sync} {
		var err error
		if *state, err = v.Replication(job); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (v *Volume) remoteStatus(ctx context.Context, past *Past, r Remote, s *Status) (RemoteStatus, error) {
	rs := RemoteStatus{Remote: r, Ahead: true}
	place, err := reach.ParseLocation(r.URL)
	if err != nil {
		return rs, err
	}
	own := v.ownLocation(place)
	for id, known := range v.state.Repositories {
		if known.URL != own.String() && known.URL != place.String() {
			continue
		}
		rs.Repository, rs.LastPush, rs.Contact, rs.Encryption = known.URL, known.LastPush, known.Contact, known.Encryption
		held, err := past.Index.Snapshots(ctx, history.BorgSourceID(id))
		if err != nil {
			return rs, err
		}
		rs.Ahead = !s.Clean || v.state.Base == nil || !slices.ContainsFunc(held, v.state.Base.is)
		for _, h := range held {
			if known.holds(h, v.ID()) && !known.hasSeen(h.ID) {
				rs.Behind++
			}
		}
	}
	return rs, nil
}

func (v *Volume) indexStatus(ctx context.Context, past *Past, s *IndexStatus) error {
	s.Path = v.indexPath()
	if info, err := os.Stat(s.Path); err == nil {
		s.Size = info.Size()
	}
	all, err := past.Index.Snapshots(ctx, "")
	if err != nil {
		return err
	}
	s.Snapshots = len(all)
	for _, i := range all {
		if !i.Indexed {
			s.Pending++
		}
	}
	return nil
}
