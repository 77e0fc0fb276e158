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

// Restore brings a docker volume back from its remote beside the volume. With As
// it stays there; else the two change places, and what was there before is under
// the name that is returned. Neither is replicated while it lies beside.
//
// Errors: snapshot.ErrRefused where a running container has the volume, or it has
// no remote; fs.ErrNotExist.
func (h *Host) Restore(ctx context.Context, name string, o RestoreOptions) (beside string, err error) {
	v, err := h.ours(ctx, name)
	if err != nil {
		return "", err
	}
	options, err := restoreOptions(v, o.When)
	if err != nil {
		return "", err
	}
	beside = o.As
	labels := map[string]string{}
	if beside == "" {
		if err := h.unused(ctx, name); err != nil {
			return "", err
		}
		beside = name + ".before-" + time.Now().UTC().Format("20060102-150405")
		labels["s4.before-restore"] = name
	}
	if err := h.Create(ctx, beside, options, labels); err != nil {
		return "", err
	}
	if err := h.WaitFilled(ctx, beside, o.Tell); err != nil {
		// Nobody has asked for a volume that may be filled some day.
		return "", errors.Join(err, h.Engine.RemoveVolume(context.WithoutCancel(ctx), beside))
	}
	if o.As != "" {
		return beside, nil
	}
	err = h.unused(ctx, name)
	if err == nil {
		err = h.Plugin.Exchange(ctx, name, beside)
	}
	if err != nil {
		return "", errors.Join(err, h.Engine.RemoveVolume(context.WithoutCancel(ctx), beside))
	}
	return beside, nil
}

// restoreOptions are those of the volume that is filled beside v.
func restoreOptions(v dockerapi.Volume, when string) (map[string]string, error) {
	options := map[string]string{}
	maps.Copy(options, v.Options)
	if options["remote"] == "" {
		return nil, hint.With(fmt.Errorf("%w: docker volume %s has no remote to bring it back from", snapshot.ErrRefused, v.Name),
			"one that has: docker volume create -d s4 -o remote=URL NAME")
	}
	if options["name"] == "" {
		options["name"] = v.Name
	}
	options["replicate"] = "off"
	if delete(options, "from"); when != "" {
		options["from"] = when
	}
	return options, nil
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
