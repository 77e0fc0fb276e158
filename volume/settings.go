package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/s4-storage/s4/internal/config"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// files are the volume's configuration files, the one that wins first.
func (v *Volume) files() []*config.File { return []*config.File{v.local, v.Config} }

func (v *Volume) saveConfig() error {
	for _, f := range v.files() {
		if err := f.Save(); err != nil {
			return err
		}
	}
	return nil
}

// Setting is one configured value and where it comes from.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "local", "volume" or "global"
}

// Settings lists every configured value, the winning one of each key, or all of a list.
// v may be nil: then the global ones alone.
func Settings(v *Volume, a *reach.Access) []Setting {
	type layer struct {
		origin string
		file   *config.File
	}
	layers := []layer{{"global", a.Global}}
	if v != nil {
		layers = []layer{{"local", v.local}, {"volume", v.Config}, {"global", a.Global}}
	}
	var all []Setting
	set := map[string]bool{}
	for _, l := range layers {
		for key, value := range l.file.All() {
			if listed(key) && l.origin == "volume" || !listed(key) && !set[key] {
				set[key] = true
				all = append(all, Setting{key, value, l.origin})
			}
		}
	}
	return all
}

// GetSetting returns the winning value of key. Errors: fs.ErrNotExist.
func GetSetting(v *Volume, a *reach.Access, key string) (string, error) {
	files := []*config.File{a.Global}
	if v != nil {
		files = append(v.files(), a.Global)
	}
	for _, f := range files {
		if value, ok := f.Get(key); ok {
			return value, nil
		}
	}
	return "", fmt.Errorf("%s is not set: %w", key, fs.ErrNotExist)
}

// GetSettings returns the values of key: all of a list, or the one that wins. Errors:
// fs.ErrNotExist.
func GetSettings(v *Volume, a *reach.Access, key string) ([]string, error) {
	if listed(key) && v != nil {
		if values := v.Config.Values(key); len(values) > 0 {
			return values, nil
		}
		return nil, fmt.Errorf("%s is not set: %w", key, fs.ErrNotExist)
	}
	value, err := GetSetting(v, a, key)
	return []string{value}, err
}

// Listed tells whether a key has a list of values.
func Listed(key string) bool { return listed(key) }

// SetSetting gives key its value in the volume's configuration, or globally
// when v is nil. A list gets all of its values. Secrets and the volume's id are not
// accepted.
func SetSetting(v *Volume, a *reach.Access, key string, values ...string) error {
	if listed(key) {
		return v.setList(key, values)
	}
	if len(values) != 1 {
		return fmt.Errorf("%w: %s has one value", snapshot.ErrUsage, key)
	}
	value := values[0]
	if v == nil {
		if err := a.Global.Set(key, value); err != nil {
			return fmt.Errorf("%w: %w", snapshot.ErrUsage, err)
		}
		return a.Global.Save()
	}
	switch key {
	case keyName:
		if err := CheckName(value); err != nil {
			return err
		}
	case keyID:
		return fmt.Errorf("%w: a volume's id never changes", snapshot.ErrRefused)
	case reach.KeyPassCommand:
		return fmt.Errorf("%w: %s belongs into the global configuration (--global), never into an archive", snapshot.ErrRefused, key)
	}
	if err := v.Config.Set(key, value); err != nil {
		return fmt.Errorf("%w: %w", snapshot.ErrUsage, err)
	}
	return v.Config.Save()
}

// AddSetting adds values to those of a list that it does not have. Errors:
// snapshot.ErrUsage for a key that has one value.
func AddSetting(v *Volume, key string, values ...string) error {
	if !listed(key) {
		return hint.With(fmt.Errorf("%w: %s has one value", snapshot.ErrUsage, key), "set it with: s4 config set")
	}
	var all []string
	if v != nil {
		all = v.Config.Values(key)
	}
	for _, value := range values {
		if !slices.Contains(all, value) {
			all = append(all, value)
		}
	}
	return v.setList(key, all)
}

// setList gives key its values; none unset it. v may be nil, which is an error.
func (v *Volume) setList(key string, values []string) error {
	if v == nil {
		return hint.With(fmt.Errorf("%w: %s belongs to a volume, so that all its copies have the same", snapshot.ErrUsage, key), "set it in each, without --global")
	}
	if _, err := pathspec.NewExclusion(values); err != nil {
		return err
	}
	if err := v.Config.SetAll(key, values); err != nil {
		return fmt.Errorf("%w: %w", snapshot.ErrUsage, err)
	}
	return v.Config.Save()
}

// UnsetSetting removes key where SetSetting would have put it.
// Errors: fs.ErrNotExist.
func UnsetSetting(v *Volume, a *reach.Access, key string) error {
	f := a.Global
	if v != nil {
		f = v.Config
		if key == keyName || key == keyID {
			return fmt.Errorf("%w: a volume cannot be without %s", snapshot.ErrRefused, key)
		}
	}
	return errors.Join(f.Unset(key), f.Save())
}
