package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
)

// dataVersion changes whenever the same parameters make other data.
const dataVersion = 1

// stamp tells what a directory holds, so that the next run can use it again.
type stamp struct {
	Version int `json:"version"`
	params
	Tools  []string `json:"tools"`  // whose repositories are complete
	Made   []string `json:"made"`   // of the extras
	BigSum uint32   `json:"bigSum"` // as drain counts
}

func (b *bench) stampFile() string { return filepath.Join(b.dir, "stamp.json") }

// data is what prepare makes below the bench's directory.
var data = []string{"corpus", "big", "repos", "home", "mnt", "fresh", "tiny", "ssh", "live", "replicate", "push", "growth"}

// takeOver reads the stamp and empties a directory that holds other data. A
// directory without a stamp that is not empty is somebody else's.
func (b *bench) takeOver() error {
	want := stamp{Version: dataVersion, params: b.params}
	text, err := os.ReadFile(b.stampFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		names, err := os.ReadDir(b.dir)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("%s is neither empty nor from an earlier run", b.dir)
		}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(text, &b.stamp); err != nil {
			return fmt.Errorf("%s: %w", b.stampFile(), err)
		}
	}
	if b.stamp.Version != want.Version || b.stamp.params != want.params {
		b.stamp = want
		for _, name := range data {
			if err := os.RemoveAll(filepath.Join(b.dir, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"repos", "home", "mnt"} {
		if err := os.MkdirAll(filepath.Join(b.dir, name), 0o755); err != nil {
			return err
		}
	}
	return b.saveStamp()
}

func (b *bench) saveStamp() error {
	text, err := json.MarshalIndent(b.stamp, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.stampFile(), append(text, '\n'), 0o644)
}

// when is the time of a snapshot. The distant future or past would make no
// difference; a fixed one makes names known beforehand.
func when(n int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n)
}

// writers are the tools that still need their repositories.
func (b *bench) writers() []*tool {
	var all []*tool
	for _, t := range []*tool{toolBorg(), toolRestic(), toolKopia()} {
		// borg writes what s4 reads, measured or not.
		if mine := b.tool(t.name); mine != nil {
			t = mine
		} else if t.name != nameBorg {
			continue
		}
		if !slices.Contains(b.stamp.Tools, t.name) {
			all = append(all, t)
		}
	}
	return all
}

// prepare makes corpus, history and big file in every repository that is not
// there yet, unless nothing in this run needs them.
func (b *bench) prepare(ctx context.Context) error {
	if !b.needsHistory() {
		return b.prepareExtras(ctx)
	}
	writers := b.writers()
	if len(writers) == 0 {
		b.say("using the repositories in %s", b.dir)
		return b.prepareExtras(ctx)
	}
	if err := b.checkSpace(len(writers)); err != nil {
		return err
	}
	writers, err := b.each(writers, func(t *tool) error { return b.initialise(ctx, t) })
	if err != nil {
		return err
	}
	if writers, err = b.makeHistory(ctx, writers); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	if writers, err = b.makeBig(ctx, writers); err != nil {
		return fmt.Errorf("big file: %w", err)
	}
	for _, t := range writers {
		b.stamp.Tools = append(b.stamp.Tools, t.name)
	}
	if err := b.saveStamp(); err != nil {
		return err
	}
	return b.prepareExtras(ctx)
}

// each does something with every tool and gives those with which it worked.
// Peers are left out where they fail; without borg there is nothing to measure.
func (b *bench) each(all []*tool, do func(*tool) error) (good []*tool, err error) {
	for _, t := range all {
		switch err := do(t); {
		case err == nil:
			good = append(good, t)
		case t.name == nameBorg:
			return nil, err
		default:
			b.drop(t, err)
		}
	}
	return good, nil
}

// initialise makes the tool's empty repositories.
func (b *bench) initialise(ctx context.Context, t *tool) error {
	for _, kind := range []string{"history", "big"} {
		for _, suffix := range []string{"", ".config", ".cache"} {
			if err := os.RemoveAll(b.repository(t, kind) + suffix); err != nil {
				return err
			}
		}
		for _, args := range t.init(b.repository(t, kind)) {
			if _, err := b.run(ctx, t, b.dir, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkSpace refuses to fill the disk with repositories.
func (b *bench) checkSpace(writers int) error {
	const perFile = 16 << 10 // the mean and what it takes on disk, with changes
	return b.room(uint64(1+writers) * (uint64(b.Files)*perFile + uint64(b.Big)))
}

// room refuses to fill the disk.
func (b *bench) room(need uint64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &s); err != nil {
		return err
	}
	if have := s.Bavail * uint64(s.Bsize); have < need {
		return fmt.Errorf("%s has %s of space, and about %s are needed", b.dir, humanize.Bytes(have), humanize.Bytes(need))
	}
	return nil
}

func (b *bench) makeHistory(ctx context.Context, writers []*tool) ([]*tool, error) {
	dir := filepath.Join(b.dir, "corpus")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	t := newTree(b.params)
	b.say("making %s files, %s, in %s", humanize.Comma(int64(len(t.files))), humanize.Bytes(uint64(t.bytes())), dir)
	if err := t.write(dir); err != nil {
		return nil, err
	}
	for n := range b.Snapshots {
		if n > 0 {
			if err := t.apply(dir, t.advance(n-1)); err != nil {
				return nil, err
			}
		}
		var err error
		if writers, err = b.backup(ctx, writers, "history", dir, n); err != nil {
			return nil, err
		}
	}
	return writers, nil
}

func (b *bench) makeBig(ctx context.Context, writers []*tool) ([]*tool, error) {
	if !slices.Contains(b.stamp.Made, madeBigFile) {
		if err := b.makeBigFile(ctx); err != nil {
			return nil, err
		}
		b.stamp.Made = append(b.stamp.Made, madeBigFile)
	}
	return b.backup(ctx, writers, "big", filepath.Dir(b.bigFile()), 0)
}

// backup stores a directory as snapshot n with every tool and says how long
// that took: for orientation, not a measure.
func (b *bench) backup(ctx context.Context, writers []*tool, kind, dir string, n int) ([]*tool, error) {
	took := ""
	writers, err := b.each(writers, func(t *tool) error {
		start := time.Now()
		_, err := b.run(ctx, t, dir, t.backup(b.repository(t, kind), when(n))...)
		took += fmt.Sprintf("  %s %.1f s", t.name, time.Since(start).Seconds())
		return err
	})
	b.say("%s, snapshot %d:%s", kind, n+1, took)
	return writers, err
}
