package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/snapshot"
)

const noteSuffix = ".json"

// Store is where a volume's snapshots are. It need not be there yet.
type Store struct{ dir string }

// In is the store in the directory dir.
func In(dir string) Store { return Store{dir} }

// Path is the root directory of the snapshot with that handle.
func (s Store) Path(handle string) string { return filepath.Join(s.dir, handle) }

// note is a snapshot's Info as it is written down.
type note struct {
	ID      string    `json:"id"`
	Parent  string    `json:"parent,omitempty"`
	Volume  string    `json:"volume"`
	Time    time.Time `json:"time"`
	Host    string    `json:"host,omitempty"`
	User    string    `json:"user,omitempty"`
	Message string    `json:"message,omitempty"`
}

// List gives the snapshots, oldest first. Of each, Source is for the caller to
// set. A store that is not there has none.
func (s Store) List(ctx context.Context) ([]snapshot.Info, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var infos []snapshot.Info
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		taken, err := time.Parse(snapshot.DirFormat, stem(e.Name()))
		if err != nil || !e.IsDir() {
			continue
		}
		info, err := s.read(e.Name(), taken)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b snapshot.Info) int { return a.Time.Compare(b.Time) })
	return infos, nil
}

// stem is a handle without what tells it from others of the same second.
func stem(handle string) string {
	stem, _, _ := strings.Cut(handle, "_")
	return stem
}

func (s Store) read(handle string, taken time.Time) (snapshot.Info, error) {
	data, err := os.ReadFile(s.Path(handle) + noteSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return snapshot.Info{ID: handle, Handle: handle, Name: handle, Time: taken}, nil
	}
	var n note
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err != nil {
		return snapshot.Info{}, fmt.Errorf("read what is known of snapshot %s: %w", handle, err)
	}
	return snapshot.Info{ID: n.ID, Parent: n.Parent, Volume: n.Volume, Handle: handle, Name: handle,
		Time: n.Time, Host: n.Host, User: n.User, Message: n.Message}, nil
}

// Take makes a read-only snapshot of the subvolume live and completes info with
// its handle. Of info, ID, Parent, Volume, Time and Message are wanted.
//
// Errors: those of [btrfsvol.Snapshot]. After an error nothing is left.
func (s Store) Take(ctx context.Context, live string, info snapshot.Info) (snapshot.Info, error) {
	if err := s.make(); err != nil {
		return info, err
	}
	if err := ctx.Err(); err != nil {
		return info, err
	}
	info.Time = info.Time.UTC().Truncate(time.Second)
	handle := info.Time.Format(snapshot.DirFormat)
	for n := 2; ; n++ {
		_, err := os.Lstat(s.Path(handle))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return info, fmt.Errorf("take snapshot: %w", err)
		}
		handle = info.Time.Format(snapshot.DirFormat) + "_" + strconv.Itoa(n)
	}
	data, err := json.Marshal(note{info.ID, info.Parent, info.Volume, info.Time, info.Host, info.User, info.Message})
	if err != nil {
		return info, fmt.Errorf("take snapshot: %w", err)
	}
	if err := atomicfile.Write(s.Path(handle)+noteSuffix, append(data, '\n'), 0o600); err != nil {
		return info, fmt.Errorf("take snapshot: %w", err)
	}
	if err := btrfsvol.Snapshot(live, s.Path(handle), true); err != nil {
		return info, errors.Join(fmt.Errorf("take snapshot: %w", err), os.Remove(s.Path(handle)+noteSuffix))
	}
	info.Handle, info.Name = handle, handle
	return info, nil
}

// make sees to it that the store is there.
func (s Store) make() error {
	err := btrfsvol.Create(s.dir)
	if errors.Is(err, fs.ErrExist) {
		return s.replaceStub()
	}
	if err == nil {
		err = os.Chmod(s.dir, 0o700) // snapshots hold what files were readable once
	}
	if err != nil {
		return fmt.Errorf("make a place for snapshots: %w", err)
	}
	return nil
}

// replaceStub makes a store of the empty directory that stands in its place in
// a copy of the volume.
func (s Store) replaceStub() error {
	if _, err := btrfsvol.Info(s.dir); !errors.Is(err, btrfsvol.ErrNotSubvolume) {
		return err
	}
	if err := unix.Rmdir(s.dir); err != nil {
		return fmt.Errorf("make a place for snapshots: %s is in the way: %w", s.dir, err)
	}
	return s.make()
}

// Delete deletes the snapshot with that handle. One that is gone already is no
// error.
func (s Store) Delete(handle string) error {
	if err := btrfsvol.Delete(s.Path(handle)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete snapshot %s: %w", handle, err)
	}
	if err := os.Remove(s.Path(handle) + noteSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete snapshot %s: %w", handle, err)
	}
	return nil
}

// Tidy clears away what a killed process left: notes without a snapshot, and
// halves of notes. It is for whoever holds the volume's lock.
func (s Store) Tidy() error {
	if err := atomicfile.Clear(s.dir, 0); err != nil {
		return err
	}
	notes, err := filepath.Glob(filepath.Join(s.dir, "*"+noteSuffix))
	if err != nil {
		return err
	}
	for _, n := range notes {
		if _, err := os.Lstat(strings.TrimSuffix(n, noteSuffix)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Remove(n); err != nil {
			return fmt.Errorf("clear away a snapshot that was not made: %w", err)
		}
	}
	return nil
}
