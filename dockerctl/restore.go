package dockerctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// RestoreOptions say what to bring back.
type RestoreOptions struct {
	When string // TIME; "" is the newest snapshot
	As   string // the new volume; "" puts what came back in the volume's place
	Tell func(state string)
}

// Restored tells what a restore has done: the volume is as it was then, and as
// it was before it is a docker volume of another name or, where there is no
// remote, a snapshot of the volume. With As only Beside is set.
type Restored struct {
	Beside       string
	To, Snapshot string // TIMEs
}

// Restore brings a docker volume back from its remote beside the volume, or from
// its snapshots on this host where it has no remote. With As it stays beside;
// else, from a remote, the two change places, and from this host the snapshot and
// the volume do. Nothing beside is replicated.
//
// Errors: snapshot.ErrRefused where a running container has the volume;
// fs.ErrNotExist.
func (h *Host) Restore(ctx context.Context, name string, o RestoreOptions) (r Restored, err error) {
	v, err := h.ours(ctx, name)
	if err != nil {
		return r, err
	}
	if o.As == "" {
		if err := h.unused(ctx, name); err != nil {
			return r, err
		}
	}
	if o.As == "" && v.Options["remote"] == "" {
		done, err := h.Plugin.Restore(ctx, name, o.When)
		return Restored{To: done.To, Snapshot: done.Before}, err
	}
	r.Beside, err = h.restoreBeside(ctx, v, o)
	return r, err
}

// restoreBeside fills a new volume and, unless it was given a name, has it change
// places with v.
func (h *Host) restoreBeside(ctx context.Context, v dockerapi.Volume, o RestoreOptions) (beside string, err error) {
	beside = o.As
	labels := map[string]string{}
	if beside == "" {
		beside = v.Name + ".before-" + time.Now().UTC().Format("20060102-150405")
		labels["s4.before-restore"] = v.Name
	}
	if err := h.Create(ctx, beside, restoreOptions(v, o.When), labels); err != nil {
		return "", err
	}
	if err := h.WaitFilled(ctx, beside, o.Tell); err != nil {
		// Nobody has asked for a volume that may be filled some day.
		return "", errors.Join(err, h.Engine.RemoveVolume(context.WithoutCancel(ctx), beside))
	}
	if o.As != "" {
		return beside, nil
	}
	err = h.unused(ctx, v.Name)
	if err == nil {
		err = h.Plugin.Exchange(ctx, v.Name, beside)
	}
	if err != nil {
		return "", errors.Join(err, h.Engine.RemoveVolume(context.WithoutCancel(ctx), beside))
	}
	return beside, nil
}

// restoreOptions are those of the volume that is filled beside v.
func restoreOptions(v dockerapi.Volume, when string) map[string]string {
	options := map[string]string{}
	maps.Copy(options, v.Options)
	delete(options, "volume")
	switch {
	case options["remote"] == "":
		options["volume"] = v.Name
	case options["name"] == "":
		options["name"] = v.Name
	}
	options["replicate"] = "off"
	if delete(options, "from"); when != "" {
		options["from"] = when
	}
	return options
}

// Resize changes the size of a docker volume of s4's driver, while it is used, and
// tells of the volume then. Errors: fs.ErrNotExist; snapshot.ErrRefused; what the
// driver says.
func (h *Host) Resize(ctx context.Context, name, size string) (Listed, error) {
	if _, err := h.ours(ctx, name); err != nil {
		return Listed{}, err
	}
	if err := h.Plugin.Resize(ctx, name, size); err != nil {
		return Listed{}, err
	}
	v, err := h.Engine.Volume(ctx, name)
	return Listed{v.Name, v.Labels, v.Status}, err
}

// unused refuses a volume that a running container has.
func (h *Host) unused(ctx context.Context, name string) error {
	users, err := h.users(ctx, name, true)
	if err == nil && len(users) > 0 {
		err = hint.With(fmt.Errorf("%w: %s is used by %s", snapshot.ErrRefused, name, strings.Join(users, ", ")),
			"docker stop "+strings.Join(users, " ")+", or bring it back beside with: --as NEW")
	}
	return err
}
