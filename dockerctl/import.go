package dockerctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/image"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// ImportOptions say how a docker volume becomes one of s4.
type ImportOptions struct {
	Options map[string]string // of the new one
	// Confirm is asked when the copy is complete, whether the original may go.
	Confirm func(context.Context) (bool, error)
	Note    func(format string, args ...any)
}

// importUse is for what the driver mounts for an import.
const importUse = "s4-import"

// Import makes a docker volume of the driver local one of s4, under the same
// name and with its labels, and tells whether the original is gone. Where that
// was not confirmed, the copy waits with the driver: to import again takes what
// has not changed.
//
// Errors: snapshot.ErrRefused where a container refers to the volume, where
// something in it was changed meanwhile, and where there is another volume of
// that name at the remote; fs.ErrNotExist.
func (h *Host) Import(ctx context.Context, name string, o ImportOptions) (done bool, err error) {
	v, err := h.importable(ctx, name)
	if err != nil {
		return false, err
	}
	options, err := sized(ctx, v.Mountpoint, o.Options)
	if err != nil {
		return false, err
	}
	o.Note("Copying %s, and comparing", v.Mountpoint)
	// The copy lies beside, where it is not replicated.
	beside := name + ".s4-import"
	copied, err := h.prepare(ctx, v, options)
	if err == nil && !copied {
		err = h.copyTo(ctx, v, beside, options)
	}
	if err != nil {
		return false, err
	}
	ok, err := o.Confirm(ctx)
	if err != nil || !ok {
		return false, err
	}
	// What was done while somebody thought about it counts.
	if _, err := h.importable(ctx, name); err != nil {
		return false, err
	}
	if !copied {
		err := h.mounted(ctx, beside, func(at string) error { return same(ctx, v.Mountpoint, at) })
		if err == nil {
			err = h.Plugin.Exchange(ctx, name, beside)
		}
		if err != nil {
			return false, err
		}
	}
	if err := h.Engine.RemoveVolume(ctx, name); err != nil {
		return false, err
	}
	ctx = context.WithoutCancel(ctx)
	// The driver has it already; the engine learns of it and keeps the labels.
	if err := h.create(ctx, name, options, v.Labels); err != nil {
		return true, hint.With(fmt.Errorf("the volume is with s4's driver, but docker does not know its labels: %w", err), "docker volume inspect "+name)
	}
	if copied {
		return true, nil
	}
	return true, h.Plugin.Remove(ctx, beside) // which is empty
}

// prepare has the driver make the volume, of which the engine does not know yet,
// and tells whether it has the original's content already: an earlier import was
// interrupted right before its end.
func (h *Host) prepare(ctx context.Context, v dockerapi.Volume, options map[string]string) (copied bool, err error) {
	err = h.Plugin.Create(ctx, v.Name, options)
	if err != nil && strings.Contains(err.Error(), "exists with other options") {
		// The engine would have said so if it had known this one.
		if err = h.Plugin.Remove(ctx, v.Name); err == nil {
			err = h.Plugin.Create(ctx, v.Name, options)
		}
	}
	if err != nil {
		return false, err
	}
	err = h.mounted(ctx, v.Name, func(at string) error {
		names, err := os.ReadDir(at)
		if copied = len(names) > 0; err != nil || !copied {
			return err
		}
		return same(ctx, v.Mountpoint, at)
	})
	if errors.Is(err, snapshot.ErrRefused) {
		err = hint.With(fmt.Errorf("%w: the remote or an earlier import has another volume %s", snapshot.ErrRefused, v.Name),
			"choose another name at the remote with: -o name=NAME")
		err = errors.Join(err, h.Plugin.Remove(context.WithoutCancel(ctx), v.Name))
	}
	return copied, err
}

// importable is a volume that can be imported now.
func (h *Host) importable(ctx context.Context, name string) (dockerapi.Volume, error) {
	v, err := h.Engine.Volume(ctx, name)
	switch {
	case err != nil:
		return v, err
	case v.Driver == h.Driver:
		return v, fmt.Errorf("%w: docker volume %s is one of s4 already", snapshot.ErrRefused, name)
	case v.Driver != "local":
		return v, fmt.Errorf("%w: docker volume %s is of driver %s; only those of driver local are imported", snapshot.ErrRefused, name, v.Driver)
	case v.Options["device"] != "" || v.Options["type"] != "":
		return v, fmt.Errorf("%w: docker volume %s is a mount of %s", snapshot.ErrRefused, name, v.Options["device"])
	}
	users, err := h.users(ctx, name, false)
	if err == nil && len(users) > 0 {
		err = hint.With(fmt.Errorf("%w: %s is used by %s", snapshot.ErrRefused, name, strings.Join(users, ", ")),
			"docker can replace a volume only when no container refers to it, not even a stopped one: docker compose down, or docker rm")
	}
	return v, err
}

// sized gives a volume that nobody gave a size one that the content fits in.
func sized(ctx context.Context, dir string, given map[string]string) (map[string]string, error) {
	options := map[string]string{}
	for k, v := range given {
		options[k] = v
	}
	if options["size"] == "" {
		fit, err := image.Fit(ctx, dir)
		if err != nil {
			return nil, err
		}
		const step = 1 << 30 // so that a second try finds what the first has made
		if fit > 10*step {
			options["size"] = strconv.FormatInt((fit+step-1)/step, 10) + "G"
		}
	}
	_, err := dockerplugin.ParseOptions(options)
	return options, err
}

// copyTo sees to it that the driver has a copy of the volume under that name.
func (h *Host) copyTo(ctx context.Context, v dockerapi.Volume, name string, options map[string]string) error {
	mine := map[string]string{}
	for _, key := range []string{"size", "autogrow", "compress"} {
		if value, ok := options[key]; ok {
			mine[key] = value
		}
	}
	var err error
	for range 2 {
		if err = h.Plugin.Create(ctx, name, mine); err == nil {
			err = h.mounted(ctx, name, func(at string) error {
				names, err := os.ReadDir(at)
				if err == nil && len(names) == 0 {
					err = image.CopyTree(ctx, v.Mountpoint, at)
				}
				if err != nil {
					return err
				}
				return same(ctx, v.Mountpoint, at)
			})
		}
		earlier := err != nil && strings.Contains(err.Error(), "exists with other options") || errors.Is(err, snapshot.ErrRefused)
		if !earlier {
			return err
		}
		// An earlier copy that is not what the original is now.
		if errRemove := h.Plugin.Remove(ctx, name); errRemove != nil {
			return errors.Join(err, errRemove)
		}
	}
	return err
}

// mounted does something with a volume of the driver while it is mounted.
func (h *Host) mounted(ctx context.Context, name string, do func(at string) error) error {
	at, err := h.Plugin.Mount(ctx, name, importUse)
	if err != nil {
		return err
	}
	err = do(at)
	return errors.Join(err, h.Plugin.Unmount(context.WithoutCancel(ctx), name, importUse))
}

// same makes sure that a copy is what the original is.
func same(ctx context.Context, original, copied string) error {
	names, err := os.ReadDir(original)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		// The driver makes it an s4 volume, which changes the root's time.
		if err := appears(ctx, filepath.Join(copied, ".s4")); err != nil {
			return err
		}
	}
	info, err := os.Stat(original)
	if err != nil {
		return err
	}
	if err := os.Chtimes(copied, time.Time{}, info.ModTime()); err != nil {
		return err
	}
	return image.Compare(ctx, original, copied, func(path string, _ bool) bool { return path == ".s4" })
}

func appears(ctx context.Context, path string) error {
	for since := time.Now(); ; {
		_, err := os.Lstat(path)
		if !errors.Is(err, fs.ErrNotExist) || time.Since(since) > time.Minute {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
