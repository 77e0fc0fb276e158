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

// group is measures that are taken together, on one mount.
type group struct {
	name   string
	s4Only bool
	take   func(*session) error
}

func groups() []group {
	return []group{
		{"index", true, (*session).index},
		{"list", false, (*session).list},
		{"first", false, (*session).first},
		{"browse", false, (*session).browse},
		{"big", false, (*session).big},
	}
}

func groupNames() []string {
	var all []string
	for _, g := range groups() {
		all = append(all, g.name)
	}
	return all
}

// small files, by size in bytes, and how many are read.
const (
	smallLeast, smallMost = 1 << 10, 64 << 10
	smallCount            = 1000
	findLarge             = "+1M"
)

// session is one tool's turn.
type session struct {
	*bench
	ctx     context.Context
	tool    *tool
	view    *view
	samples map[string]float64 // by key
}

// view is what the measured snapshots must hold.
type view struct {
	old, another           *tree
	oldAt, anotherAt       time.Time
	oldCount, anotherCount int // of entries
	small                  []file
	known                  []file // two small files in different directories
}

func newView(p params) (*view, error) {
	old, another := p.Snapshots/6, p.Snapshots/2
	v := &view{old: treeAt(p, old), another: treeAt(p, another), oldAt: when(old), anotherAt: when(another)}
	v.oldCount, v.anotherCount = v.old.entries(), v.another.entries()
	picked := v.old.pick(smallCount+1000, smallLeast, smallMost)
	if len(picked) < 2 {
		return nil, errors.New("too few small files in the corpus")
	}
	v.known = picked[:1]
	for i, f := range picked[1:] {
		if filepath.Dir(f.path) != filepath.Dir(picked[0].path) {
			v.known = append(v.known, f)
			v.small = slices.Delete(slices.Clone(picked[1:]), i, i+1)
			break
		}
	}
	if len(v.known) < 2 {
		return nil, errors.New("all small files of the corpus are in one directory")
	}
	v.small = v.small[:min(len(v.small), smallCount)]
	return v, nil
}

// measure takes every measure with every tool. A tool that fails is left out
// from then on; the error joins what happened.
func (b *bench) measure(ctx context.Context, r *report) error {
	v, err := newView(b.params)
	if err != nil {
		return err
	}
	var errs []error
	failed := map[string]bool{}
	turn := func(t *tool, what string, do func(*session) error) {
		if failed[t.name] || ctx.Err() != nil {
			return
		}
		b.say("%s: %s", what, t.name)
		s := &session{b, ctx, t, v, map[string]float64{}}
		err := do(s)
		if err != nil && ctx.Err() == nil && t.name != nameS4 {
			// Peers whose mount is just there give an error now and then.
			// They get a second chance; s4 has to work.
			b.say("again: %v", err)
			err = do(s)
		}
		if err != nil {
			b.say("%s is left out: %v", t.name, err)
			failed[t.name] = true
			r.Failed[t.name] = err.Error()
			errs = append(errs, fmt.Errorf("%s: %s: %w", what, t.name, err))
			return
		}
		for key, value := range s.samples {
			r.add(key, t.name, value)
		}
	}
	for _, t := range b.tools {
		turn(t, "warm up", (*session).warm)
	}
	for n := range b.Runs {
		order := slices.Concat(b.tools[n%len(b.tools):], b.tools[:n%len(b.tools)])
		for _, g := range groups() {
			if len(b.Only) > 0 && !slices.Contains(b.Only, g.name) {
				continue
			}
			for _, t := range order {
				if !g.s4Only || t.name == nameS4 {
					turn(t, fmt.Sprintf("run %d of %d, %s", n+1, b.Runs, g.name), g.take)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// with mounts a repository for as long as do takes.
func (s *session) with(kind string, do func(m *mount) error) (err error) {
	m, err := s.mount(s.ctx, s.tool, s.repository(s.tool, kind))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	return do(m)
}

// warm fills the tool's caches. All of s4's snapshots are looked at, so that
// no later mount still has some to index.
func (s *session) warm() error {
	if err := s.with("history", func(m *mount) error {
		look := []time.Time{s.view.oldAt, s.view.anotherAt}
		if s.tool.name == nameS4 {
			look = look[:0]
			for n := range s.Snapshots {
				look = append(look, when(n))
			}
		}
		for _, at := range look {
			dir, err := m.snapshot(at)
			if err == nil {
				_, err = os.ReadDir(dir)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return s.with("big", func(m *mount) error {
		dir, err := m.snapshot(when(0))
		if err != nil {
			return err
		}
		_, err = os.ReadDir(dir)
		return err
	})
}

// list: from the start of the program to the names of all snapshots.
func (s *session) list() error {
	return s.with("history", func(m *mount) error {
		shelf, err := m.shelf()
		if err != nil {
			return err
		}
		listed, err := os.ReadDir(shelf)
		took := time.Since(m.started)
		if err != nil {
			return err
		}
		for n := range s.Snapshots {
			if name := m.tool.folder(when(n)); !slices.ContainsFunc(listed, func(e os.DirEntry) bool { return e.Name() == name }) {
				return fmt.Errorf("snapshot %s is not listed", name)
			}
		}
		s.seconds("list", took)
		return nil
	})
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
		start := time.Now()
		got := make([][]byte, len(s.view.small))
		for i, f := range s.view.small {
			if got[i], err = os.ReadFile(filepath.Join(old, f.path)); err != nil {
				return err
			}
		}
		s.seconds("small", time.Since(start))
		for i, f := range s.view.small {
			if !bytes.Equal(got[i], s.view.old.content(f)) {
				return fmt.Errorf("%s: wrong content", f.path)
			}
		}
		return s.usage(m, "")
	})
}

// find runs find(1) and checks the number of lines.
func (s *session) find(key string, want int, args ...string) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.Limit)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "find", args...)
	cmd.Env, cmd.Stderr = s.env, &stderr
	start := time.Now()
	out, err := cmd.Output()
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("find: %w: %s", err, tail(stderr.String()))
	}
	if got := bytes.Count(out, []byte{'\n'}); got != want {
		return fmt.Errorf("find %v: %d lines instead of %d", args, got, want)
	}
	s.seconds(key, took)
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

// big: one large file in sequence, through the mount and as a stream.
func (s *session) big() error {
	repo := s.repository(s.tool, "big")
	if err := s.with("big", func(m *mount) error {
		dir, err := m.snapshot(when(0))
		if err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(dir, bigName))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := s.throughput("bigMount", f); err != nil {
			return err
		}
		return s.usage(m, "Big")
	}); err != nil {
		return err
	}
	args, err := s.tool.stream(s.ctx, s.bench, repo, when(0))
	if err != nil {
		return err
	}
	return s.stream(s.ctx, s.tool, s.dir, args, func(r io.Reader) error { return s.throughput("bigStream", r) })
}

func (s *session) throughput(key string, r io.Reader) error {
	start := time.Now()
	n, sum, err := drain(r)
	took := time.Since(start)
	if err == nil && (n != s.Big || sum != s.stamp.BigSum) {
		err = fmt.Errorf("%s: wrong content, %d bytes", bigName, n)
	}
	if err != nil {
		return err
	}
	s.samples[key] = float64(n) / 1e6 / took.Seconds()
	return nil
}

func (s *session) seconds(key string, d time.Duration) {
	s.samples[key] = d.Seconds()
}
