package main

import (
	"context"
	"errors"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/snapshots"
	"github.com/s4-storage/s4/volume"
)

// newDockerBackup is how the agent stores a docker volume: as the s4 volume of
// the same name in its mountpoint.
func newDockerBackup(a *app) dockeragent.Backup { return &dockerBackup{a} }

type dockerBackup struct{ a *app }

var (
	_ dockeragent.Backup = (*dockerBackup)(nil)
	_ dockeragent.Prober = (*dockerBackup)(nil)
	_ dockeragent.Pruner = (*dockerBackup)(nil)
)

// dockerRemote is the remote that the agent looks after.
const dockerRemote = "origin"

// open makes the docker volume an s4 volume, with its remote where the agent
// wants it.
func (b *dockerBackup) open(dv dockeragent.Volume) (*volume.Volume, error) {
	v, _, err := volume.Init(dv.Path, volume.InitOptions{Name: dv.Name}, b.a.access)
	if err != nil {
		return nil, err
	}
	if _, err = v.Remote(dockerRemote); err != nil {
		_, err = v.AddRemote(dockerRemote, dv.Remote, "")
	} else {
		err = v.SetRemoteURL(dockerRemote, dv.Remote)
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// Probe tells why a push could not begin.
func (b *dockerBackup) Probe(ctx context.Context, dv dockeragent.Volume) error {
	v, err := b.open(dv)
	if err != nil {
		return err
	}
	defer v.Close()
	return v.Probe(ctx, dockerRemote)
}

// Push stores the volume.
func (b *dockerBackup) Push(ctx context.Context, dv dockeragent.Volume) (r dockeragent.Result, err error) {
	v, err := b.open(dv)
	if err != nil {
		return r, err
	}
	defer v.Close()
	if err := v.LeaveOut(dv.Exclude); err != nil {
		return r, err
	}
	p, err := v.Push(ctx, volume.PushOptions{Remote: dockerRemote, Captured: dv.Captured})
	if p == nil {
		return r, err
	}
	return dockeragent.Result{Snapshot: p.Snapshot.Name, Files: p.Files, Size: p.Size, Added: p.Added}, err
}

// Prune removes what the volume's rules let go.
func (b *dockerBackup) Prune(ctx context.Context, dv dockeragent.Volume) (r dockeragent.Pruned, err error) {
	v, err := b.open(dv)
	if err != nil {
		return r, err
	}
	defer v.Close()
	k := dv.Keep
	p, err := v.Prune(ctx, volume.PruneOptions{Remote: dockerRemote, Rules: snapshots.Rules{
		Last: k.Last, Hourly: k.Hourly, Daily: k.Daily, Weekly: k.Weekly, Monthly: k.Monthly, Yearly: k.Yearly, Within: k.Within,
	}})
	if p == nil {
		return r, err
	}
	return dockeragent.Pruned{Snapshots: p.Gone(), Freed: max(p.Freed, p.Removed)}, err
}
