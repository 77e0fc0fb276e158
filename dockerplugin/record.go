package dockerplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/s4-storage/s4/internal/atomicfile"
)

// state is where a volume is in its life.
type state string

const (
	creating state = "creating" // not for anybody to see yet; after a crash it is undone
	filling  state = "filling"
	ready    state = "ready"
)

// record is what is remembered of a volume. It is never changed, only replaced.
type record struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Given   map[string]string `json:"options"` // as they came
	State   state             `json:"state"`
	// Boot is the boot of the host that the mounts are of.
	Boot       string   `json:"boot,omitempty"`
	Mounts     []string `json:"mounts,omitempty"` // mount IDs
	Mountpoint string   `json:"mountpoint,omitempty"`

	options Options // what Given says
}

const recordName = "volume.json"

// readRecord reads the record in a volume's directory.
func readRecord(dir string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, recordName), err)
	}
	if err := CheckName(r.Name); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, recordName), err)
	}
	r.options, err = ParseOptions(r.Given)
	return r, err
}

func (r *record) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, recordName), append(data, '\n'), 0o600)
}

// with returns a copy that has one mount ID more.
func (r *record) with(id, mountpoint, boot string) *record {
	c := *r
	c.Mounts = slices.Clone(r.Mounts)
	if !slices.Contains(c.Mounts, id) {
		c.Mounts = append(c.Mounts, id)
	}
	c.Mountpoint, c.Boot = mountpoint, boot
	return &c
}

// without returns a copy that has one mount ID less.
func (r *record) without(id string) *record {
	c := *r
	c.Mounts = slices.DeleteFunc(slices.Clone(r.Mounts), func(m string) bool { return m == id })
	if len(c.Mounts) == 0 {
		return c.unmounted()
	}
	return &c
}

// unmounted returns a copy that has no mount ID.
func (r *record) unmounted() *record {
	c := *r
	c.Mounts, c.Mountpoint, c.Boot = nil, "", ""
	return &c
}

func (r *record) in(s state) *record {
	c := *r
	c.State = s
	return &c
}

// load reads the records of all volumes. One that cannot be read is told of, and
// left alone: its name stays taken, as its directory is there.
func (d *Driver) load() error {
	entries, err := os.ReadDir(d.volumesDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(d.volumesDir(), e.Name())
		r, err := readRecord(dir)
		if err == nil && r.Name != e.Name() {
			err = fmt.Errorf("it is of volume %s", r.Name)
		}
		if errors.Is(err, fs.ErrNotExist) && removeBlank(dir) == nil {
			continue
		}
		if err != nil {
			d.log.Error("this volume cannot be used", "dir", dir, "err", err)
			continue
		}
		d.records[r.Name] = r
	}
	return nil
}

// removeBlank removes a directory in which nothing was finished: a creation was
// interrupted as early as can be.
func removeBlank(dir string) error {
	parts, err := filepath.Glob(filepath.Join(dir, atomicfile.TempPrefix+"*"))
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

// record is that of a volume somebody may see. The error is fs.ErrNotExist.
func (d *Driver) record(name string) (*record, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.records[name]
	if r == nil || r.State == creating {
		return nil, fmt.Errorf("no such volume: %s: %w", name, fs.ErrNotExist)
	}
	return r, nil
}

// save replaces a volume's record, on disk first.
func (d *Driver) save(r *record) error {
	if err := r.write(d.dirOf(r.Name)); err != nil {
		return err
	}
	d.set(r.Name, r)
	return nil
}

// set replaces a volume's record in memory; nil forgets it.
func (d *Driver) set(name string, r *record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r == nil {
		delete(d.records, name)
		return
	}
	d.records[name] = r
}

func (d *Driver) volumesDir() string       { return filepath.Join(d.dir, "volumes") }
func (d *Driver) trashDir() string         { return filepath.Join(d.dir, "trash") }
func (d *Driver) dirOf(name string) string { return filepath.Join(d.volumesDir(), name) }

// volume is a record's volume as the backend sees it.
func (d *Driver) volume(r *record) Volume {
	v := Volume{Name: r.Name, Dir: d.dirOf(r.Name), Options: r.options}
	if source := r.options.Volume; source != "" {
		v.Source = d.dirOf(source)
	}
	return v
}
