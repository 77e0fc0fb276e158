package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// with mounts a repository for as long as do takes.
func (s *session) with(kind string, do func(m *mount) error) (err error) {
	m, err := s.mount(s.ctx, s.tool, s.repository(s.tool, kind))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	return do(m)
}

// list: from the start of the program to the names of all snapshots.
func (s *session) list() error {
	return s.with("history", func(m *mount) error {
		_, err := s.listAll("list", m, s.Snapshots)
		return err
	})
}

// listAll lists a fresh mount's snapshots, and gives the number of names.
func (s *session) listAll(key string, m *mount, snapshots int) (names int, err error) {
	shelf, err := m.shelf()
	if err != nil {
		return 0, err
	}
	listed, err := os.ReadDir(shelf)
	took := time.Since(m.started)
	if err != nil {
		return 0, err
	}
	for n := range snapshots {
		if name := m.tool.folder(when(n)); !slices.ContainsFunc(listed, func(e os.DirEntry) bool { return e.Name() == name }) {
			return 0, fmt.Errorf("snapshot %s is not listed", name)
		}
	}
	s.seconds(key, took)
	return len(listed), nil
}

// first: from the start of the program to the first byte of a known file, and
// then of another one.
func (s *session) first() error {
	return s.with("history", func(m *mount) error {
		start := m.started
		for i, f := range s.view.known {
			dir, err := m.snapshot(s.view.oldAt)
			if err != nil {
				return err
			}
			path := filepath.Join(dir, f.path)
			if err := firstByte(path); err != nil {
				return err
			}
			s.seconds([]string{"first", "second"}[i], time.Since(start))
			if err := s.compare(path, f); err != nil {
				return err
			}
			start = time.Now()
		}
		return nil
	})
}

func firstByte(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.ReadFull(f, make([]byte, 1))
	return err
}

// compare reads a file of the old snapshot whole and checks what it holds.
func (s *session) compare(path string, f file) error {
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, s.view.old.content(f)) {
		err = fmt.Errorf("%s: wrong content", path)
	}
	return err
}

// browse: find over snapshots, then many small files, then the memory taken.
func (s *session) browse() error {
	return s.with("history", func(m *mount) error {
		old, err := m.snapshot(s.view.oldAt)
		if err != nil {
			return err
		}
		another, err := m.snapshot(s.view.anotherAt)
		if err != nil {
			return err
		}
		for _, walk := range []struct {
			key, dir string
			want     int
		}{{"find", old, s.view.oldCount}, {"again", old, s.view.oldCount}, {"another", another, s.view.anotherCount}} {
			if err := s.find(walk.key, walk.want, walk.dir); err != nil {
				return err
			}
		}
		large := 0
		for _, f := range s.view.old.files {
			if f.size > 1<<20 {
				large++
			}
		}
		if err := s.find("size", large, old, "-type", "f", "-size", findLarge); err != nil {
			return err
		}
		if err := s.readSmall("small", old, s.view.old, s.view.small); err != nil {
			return err
		}
		return s.usage(m, "")
	})
}

// readSmall reads files of a snapshot and checks what they hold.
func (s *session) readSmall(key, dir string, t *tree, files []file) (err error) {
	start := time.Now()
	got := make([][]byte, len(files))
	for i, f := range files {
		if got[i], err = os.ReadFile(filepath.Join(dir, f.path)); err != nil {
			return err
		}
	}
	s.seconds(key, time.Since(start))
	for i, f := range files {
		if !bytes.Equal(got[i], t.content(f)) {
			return fmt.Errorf("%s: wrong content", f.path)
		}
	}
	return nil
}

// find runs find(1) and checks the number of lines, of which none is kept.
func (s *session) find(key string, want int, args ...string) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.Limit)
	defer cancel()
	var stderr bytes.Buffer
	var got lineCounter
	cmd := exec.CommandContext(ctx, "find", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env, &got, &stderr
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("find: %w: %s", err, tail(stderr.String()))
	}
	if int(got) != want {
		return fmt.Errorf("find %v: %d lines instead of %d", args, got, want)
	}
	s.seconds(key, took)
	return nil
}

// lineCounter counts the lines that are written to it.
type lineCounter int

func (c *lineCounter) Write(b []byte) (int, error) {
	*c += lineCounter(bytes.Count(b, []byte{'\n'}))
	return len(b), nil
}

// resident records the memory that the mount's process has, and at most had.
func (s *session) resident(m *mount, key string) error {
	rss, peak, err := m.memory()
	if err != nil {
		return err
	}
	s.samples[key+"Rss"], s.samples[key+"Peak"] = float64(rss)/(1<<20), float64(peak)/(1<<20)
	return nil
}

// usage records what the mount's process has used so far.
func (s *session) usage(m *mount, suffix string) error {
	rss, peak, err := m.memory()
	if err != nil {
		return err
	}
	cpu, err := m.cpu()
	if err != nil {
		return err
	}
	s.samples["rss"+suffix] = float64(rss) / (1 << 20)
	s.samples["peak"+suffix] = float64(peak) / (1 << 20)
	s.seconds("cpu"+suffix, cpu)
	return nil
}

// big: one large file in sequence, through the mount.
func (s *session) big() error {
	return s.with("big", func(m *mount) error {
		dir, err := m.snapshot(when(0))
		if err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(dir, bigName))
		if err != nil {
			return err
		}
		defer f.Close()
		start := time.Now()
		if err := s.drainBig(f); err != nil {
			return err
		}
		s.samples["bigMount"] = s.rate(time.Since(start).Seconds())
		return s.usage(m, "Big")
	})
}

// drainBig reads the big file and checks what comes.
func (s *session) drainBig(r io.Reader) error {
	n, sum, err := drain(r)
	if err == nil && (n != s.Big || sum != s.stamp.BigSum) {
		err = fmt.Errorf("%s: wrong content, %d bytes", bigName, n)
	}
	return err
}

// rate is the MB/s at which the big file came.
func (s *session) rate(seconds float64) float64 { return float64(s.Big) / 1e6 / seconds }
