package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
)

// Subvolume is the live tree's path in an image's file system.
const Subvolume = "volume"

// Place is where images and their records lie.
func Place() string {
	if dir := os.Getenv("S4_LOOP_DEV_PATH"); dir != "" {
		return dir
	}
	return "/var/lib/s4"
}

// Record says where an image belongs.
type Record struct {
	Image string `json:"image"` // path of the image
	Dir   string `json:"dir"`   // where it is mounted
	UUID  string `json:"uuid"`  // of its file system
	// Grow says that it grows by itself, up to Limit bytes, 0 being no limit.
	Grow  bool  `json:"grow"`
	Limit int64 `json:"limit,omitempty"`
	// Compress is btrfs's way to compress, such as "zstd:1"; "" is not to.
	Compress string `json:"compress,omitempty"`

	making *os.File // the lock while it is made; else nil
}

func recordPath(image string) string { return strings.TrimSuffix(image, ".img") + ".json" }

// Save writes the record down beside its image.
func (r *Record) Save() error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = atomicfile.Write(recordPath(r.Image), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note where image %s belongs: %w", r.Image, err)
	}
	r.end()
	return nil
}

// Records lists all there are in the place. One that cannot be read is an error
// beside those that can.
func Records() ([]*Record, error) {
	paths, err := filepath.Glob(filepath.Join(Place(), "*.json"))
	if err != nil {
		return nil, err
	}
	var all []*Record
	var errs []error
	for _, path := range paths {
		r, err := readRecord(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, r)
	}
	return all, errors.Join(errs...)
}

func readRecord(path string) (*Record, error) {
	data, err := os.ReadFile(path)
	r := &Record{}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err == nil && (r.Image == "" || r.Dir == "" || r.UUID == "") {
		err = errors.New("it does not name an image, a directory and a UUID")
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of an image, %s: %w", path, err)
	}
	// The place may have moved with all that is in it.
	if beside := strings.TrimSuffix(path, ".json") + ".img"; beside != r.Image {
		if _, err := os.Stat(beside); err == nil {
			r.Image = beside
		}
	}
	return r, nil
}

// Of finds the record of the volume at dir. Errors: fs.ErrNotExist.
func Of(dir string) (*Record, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	all, err := Records()
	for _, r := range all {
		if r.Dir == abs {
			return r, nil
		}
	}
	return nil, errors.Join(hint.With(fmt.Errorf("%s has no image of its own: %w", dir, fs.ErrNotExist),
		"make one with: s4 init --size 10G"), err)
}
