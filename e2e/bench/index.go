package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// index: what s4 does on first sight of a repository. Its mount shows the
// newest snapshot at once and reads the others in the background; the log
// tells of each.
func (s *session) index() (err error) {
	cache := filepath.Join(s.dir, "fresh")
	if err := os.RemoveAll(cache); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cache)) }()
	m, err := s.mount(s.ctx, s.tool, s.repository(s.tool, "history"), "XDG_CACHE_HOME="+cache, "S4_LOG=info")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := s.indexed(m, cache, "First"); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(m.log)
		if err != nil {
			return err
		}
		if bytes.Count(text, []byte(" msg=indexed ")) >= s.Snapshots {
			break
		}
		select {
		case <-m.ended:
			return fmt.Errorf("s4 mount ended: %s", m.said())
		case <-tick.C:
		}
	}
	if err := s.indexed(m, cache, "All"); err != nil {
		return err
	}
	_, peak, err := m.memory()
	if err != nil {
		return err
	}
	s.samples["indexPeak"] = float64(peak) / (1 << 20)
	return nil
}

// indexed records what it took to come so far.
func (s *session) indexed(m *mount, cache, suffix string) error {
	s.seconds("index"+suffix, time.Since(m.started))
	cpu, err := m.cpu()
	if err != nil {
		return err
	}
	s.seconds("indexCPU"+suffix, cpu)
	size, err := treeSize(cache)
	if err != nil {
		return err
	}
	s.samples["indexSize"+suffix] = float64(size) / (1 << 20)
	return nil
}

// treeSize is the size of all files below dir, with those that go away
// meanwhile left out.
func treeSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		switch info, err := e.Info(); {
		case err == nil:
			size += info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		return nil
	})
	return size, err
}
