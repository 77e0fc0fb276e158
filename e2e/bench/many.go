package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The history with very many snapshots is of a small tree, of which a few files
// change from one snapshot to the next.
const (
	manyFiles = 2000
	manySmall = 200 // files that are read
)

// manyView is what some of its snapshots must hold.
type manyView struct {
	oldest *tree
	walked map[int]int // entries of three snapshots, by number
	story  story
}

func newManyView(p params, snapshots int) manyView {
	t := newTiny(p, manyFiles)
	v := manyView{oldest: newTiny(p, manyFiles), walked: map[int]int{0: t.entries()}}
	n := 0
	v.story = tell(t, snapshots, func(after int) []change {
		changes := t.advance(after)
		if n = after + 1; n == snapshots/2 || n == snapshots-1 {
			v.walked[n] = t.entries()
		}
		return changes
	})
	return v
}

// many: a mount that shows very many snapshots.
func (s *session) many() error {
	return s.with(groupMany, func(m *mount) error {
		return s.manyIn(m, newManyView(s.params, s.Many))
	})
}

func (s *session) manyIn(m *mount, v manyView) error {
	if err := s.manyShelf(m); err != nil {
		return err
	}
	oldest, err := m.snapshot(when(0))
	if err != nil {
		return err
	}
	files := v.oldest.pick(1+manySmall, 1, sizeMax)
	start := time.Now()
	if err := firstByte(filepath.Join(oldest, files[0].path)); err != nil {
		return err
	}
	s.seconds("manyFirst", time.Since(start))
	if err := s.manyFind(m, v.walked); err != nil {
		return err
	}
	if err := s.readSmall("manySmall", oldest, v.oldest, files[1:]); err != nil {
		return err
	}
	if s.tool.name == nameS4 {
		if err := s.manyVersions(m, v.story); err != nil {
			return err
		}
	}
	return s.resident(m, "many")
}

// manyShelf lists the snapshots, in three ways.
func (s *session) manyShelf(m *mount) error {
	names, err := s.listAll("manyList", m, s.Many)
	if err != nil {
		return err
	}
	shelf, err := m.shelf()
	if err != nil {
		return err
	}
	shelf += "/" // it may be a link
	out, took, err := s.output(s.ctx, command{name: "ls", argv: []string{"ls", shelf}})
	if err != nil {
		return err
	}
	var lines lineCounter
	if _, err := lines.Write(out); err != nil || int(lines) != names {
		return errors.Join(err, fmt.Errorf("ls: %d names instead of %d", lines, names))
	}
	s.samples["manyLs"] = took.Wall
	return s.find("manyShelf", names+1, shelf, "-maxdepth", "1")
}

func (s *session) manyFind(m *mount, walked map[int]int) error {
	var dirs []string
	sum := 0
	for _, n := range slices.Sorted(maps.Keys(walked)) {
		dir, err := m.snapshot(when(n))
		if err != nil {
			return err
		}
		dirs = append(dirs, dir)
		sum += walked[n]
	}
	return s.find("manyFind", sum, dirs...)
}

// manyVersions looks at all versions of a file, which s4 shows as a directory.
func (s *session) manyVersions(m *mount, story story) error {
	shelf, err := m.shelf()
	if err != nil {
		return err
	}
	start := time.Now()
	listed, err := os.ReadDir(filepath.Join(filepath.Dir(shelf), "versions", story.path))
	s.seconds("manyVersions", time.Since(start))
	if err == nil && len(listed) != story.versions {
		err = fmt.Errorf("%d versions of %s are shown instead of %d", len(listed), story.path, story.versions)
	}
	return err
}
