package main

import (
	"context"
	"fmt"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// newDockerBackup is how the agent stores a docker volume: as the s4 volume of
// the same name in its mountpoint. This is the place to wire in snapshots
// (call Captured as soon as there is one), Exclude and Keep.
func newDockerBackup(a *app) dockeragent.Backup { return &dockerBackup{a} }

type dockerBackup struct{ a *app }

var _ dockeragent.Backup = (*dockerBackup)(nil)

// dockerRemote is the remote that the agent looks after.
const dockerRemote = "origin"

// Push stores the volume.
func (b *dockerBackup) Push(ctx context.Context, dv dockeragent.Volume) (r dockeragent.Result, err error) {
	if len(dv.Exclude) > 0 || !dv.Keep.IsZero() {
		return r, fmt.Errorf("%w: %s and %s are not supported yet", snapshot.ErrUsage, dockeragent.LabelExclude, dockeragent.LabelKeep)
	}
	v, _, err := volume.Init(dv.Path, volume.InitOptions{Name: dv.Name}, b.a.access)
	if err != nil {
		return r, err
	}
	defer v.Close()
	if _, err := v.Remote(dockerRemote); err != nil {
		_, err = v.AddRemote(dockerRemote, dv.Remote, "")
		if err != nil {
			return r, err
		}
	} else if err := v.SetRemoteURL(dockerRemote, dv.Remote); err != nil {
		return r, err
	}
	p, err := v.Push(ctx, volume.PushOptions{Remote: dockerRemote})
	if p == nil {
		return r, err
	}
	return dockeragent.Result{Snapshot: p.Snapshot.Name, Files: p.Files, Size: p.Size, Added: p.Added}, err
}
