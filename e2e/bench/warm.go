package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// warm fills the tool's caches and brings its repositories into the page
// cache. All of s4's snapshots are looked at, so that nothing is left to index.
func (s *session) warm() error {
	kinds, err := s.kinds()
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if err := readAll(s.repository(s.tool, kind)); err != nil {
			return err
		}
		if s.tool.name != nameS4 {
			continue
		}
		for n := range s.snapshotsOf(kind) {
			if _, err := s.run(s.ctx, s.tool, s.dir, "ls", "--repo", s.repository(s.tool, kind), s4Time(when(n))); err != nil {
				return err
			}
		}
	}
	if !slices.ContainsFunc(groups(), func(g group) bool { return g.tools == nil && s.wanted(g.name) && g.measures(s.tool) }) {
		return nil
	}
	if err := s.with("history", func(m *mount) error {
		for _, at := range []time.Time{s.view.oldAt, s.view.anotherAt} {
			if err := listSnapshot(m, at); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return s.with("big", func(m *mount) error { return listSnapshot(m, when(0)) })
}

func listSnapshot(m *mount, at time.Time) error {
	dir, err := m.snapshot(at)
	if err == nil {
		_, err = os.ReadDir(dir)
	}
	return err
}

// repositoryKinds are all that a bench directory may have.
func repositoryKinds() []string {
	return []string{"history", "big", "sealed", "clustered", groupMillion, groupMany}
}

// kinds are those of the repositories that the tool reads in this run.
func (s *session) kinds() (all []string, err error) {
	if s.tool.dump == nil { // it has none
		return nil, nil
	}
	for _, kind := range repositoryKinds() {
		optional := kind == groupMillion || kind == groupMany // named as the groups
		switch _, err := os.Stat(s.repository(s.tool, kind)); {
		case errors.Is(err, fs.ErrNotExist), optional && !s.wanted(kind):
		case err != nil:
			return nil, err
		default:
			all = append(all, kind)
		}
	}
	return all, nil
}

func (s *session) snapshotsOf(kind string) int {
	switch kind {
	case "history":
		return s.Snapshots
	case "clustered":
		return clusteredSnapshots
	case groupMillion:
		return millionSnapshots
	case groupMany:
		return s.Many
	}
	return 1
}

// bringIn reads a repository of the tool's into the page cache, if it has one
// of that kind: borg, for one, makes the kernel forget what it has read.
func (s *session) bringIn(kind string) error {
	kinds, err := s.kinds()
	if err != nil || !slices.Contains(kinds, kind) {
		return err
	}
	return readAll(s.repository(s.tool, kind))
}

// readAll reads all files below dir.
func readAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}
