package main

import (
	"errors"
	"io/fs"

	"github.com/s4-storage/s4/volume"
)

// ConfigCmd is `s4 config`.
type ConfigCmd struct {
	Get   ConfigGetCmd   `cmd:"" help:"Print a setting."`
	Set   ConfigSetCmd   `cmd:"" help:"Change a setting."`
	Add   ConfigAddCmd   `cmd:"" help:"Add to a setting that is a list."`
	Unset ConfigUnsetCmd `cmd:"" help:"Remove a setting."`
	List  ConfigListCmd  `cmd:"" help:"List all settings."`

	Global bool `help:"The user's settings for all volumes instead of the volume's."`
}

// volume opens the volume whose settings are meant; nil for the global ones.
func (c *ConfigCmd) volume(a *app, required bool) (*volume.Volume, error) {
	if c.Global {
		return nil, nil
	}
	v, err := a.volume()
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil, nil
	}
	return v, err
}

func (c *ConfigCmd) with(a *app, required bool, do func(*volume.Volume) error) error {
	v, err := c.volume(a, required)
	if err != nil {
		return err
	}
	if v != nil {
		defer v.Close()
	}
	return do(v)
}

// ConfigGetCmd is `s4 config get`.
type ConfigGetCmd struct {
	Key string `arg:"" help:"Such as volume.name or remote.origin.url."`
}

// Run does it.
func (c *ConfigGetCmd) Run(a *app, parent *ConfigCmd) error {
	return parent.with(a, false, func(v *volume.Volume) error {
		values, err := volume.GetSettings(v, a.access, c.Key)
		switch {
		case err != nil:
			return err
		case a.JSON && volume.Listed(c.Key):
			return a.printJSON(map[string][]string{c.Key: values})
		case a.JSON:
			return a.printJSON(map[string]string{c.Key: values[0]})
		}
		for _, value := range values {
			if err := a.print("%s\n", value); err != nil {
				return err
			}
		}
		return nil
	})
}

// ConfigSetCmd is `s4 config set`.
type ConfigSetCmd struct {
	Key   string   `arg:"" help:"Such as remote.origin.compression."`
	Value []string `arg:"" help:"Its new value, or all values of a list such as push.exclude."`
}

// Run does it.
func (c *ConfigSetCmd) Run(a *app, parent *ConfigCmd) error {
	return parent.with(a, true, func(v *volume.Volume) error {
		return volume.SetSetting(v, a.access, c.Key, c.Value...)
	})
}

// ConfigAddCmd is `s4 config add`.
type ConfigAddCmd struct {
	Key   string   `arg:"" help:"Such as push.exclude."`
	Value []string `arg:"" help:"What to add."`
}

// Run does it.
func (c *ConfigAddCmd) Run(a *app, parent *ConfigCmd) error {
	return parent.with(a, true, func(v *volume.Volume) error {
		return volume.AddSetting(v, c.Key, c.Value...)
	})
}

// ConfigUnsetCmd is `s4 config unset`.
type ConfigUnsetCmd struct {
	Key string `arg:"" help:"Setting to remove."`
}

// Run does it.
func (c *ConfigUnsetCmd) Run(a *app, parent *ConfigCmd) error {
	return parent.with(a, true, func(v *volume.Volume) error {
		return volume.UnsetSetting(v, a.access, c.Key)
	})
}

// ConfigListCmd is `s4 config list`.
type ConfigListCmd struct{}

// Run does it.
func (c *ConfigListCmd) Run(a *app, parent *ConfigCmd) error {
	return parent.with(a, false, func(v *volume.Volume) error {
		settings := volume.Settings(v, a.access)
		if a.JSON {
			if settings == nil {
				settings = []volume.Setting{}
			}
			return a.printJSON(settings)
		}
		for _, s := range settings {
			if err := a.print("%s=%s\n", s.Key, s.Value); err != nil {
				return err
			}
		}
		return nil
	})
}
