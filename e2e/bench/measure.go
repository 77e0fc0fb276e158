package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/e2e/bench/report"
)

// group is measures that are taken together.
type group struct {
	name     string
	tools    []string // nil: all that mount
	reads    string   // the kind of repository that is measured, to be in the page cache
	once     bool     // one sample is enough
	optional bool     // only when asked for
	take     func(*session) error
}

const (
	groupSealed    = "sealed"
	groupSSH       = "ssh"
	groupSSHSealed = "ssh-sealed"
	groupIngest    = "ingest"
	groupLive      = "live"
	groupLook      = "look"
	groupMillion   = "million"
)

// allGroups names all that are not optional.
const allGroups = "all"

func groups() []group {
	both := []string{nameS4, nameBorg}
	all := []string{nameS4, nameBorg, nameRestic, nameKopia}
	remote := []string{nameS4, nameBorg, nameCat}
	return []group{
		{name: "index", tools: []string{nameS4}, take: (*session).index},
		{name: "list", reads: "history", take: (*session).list},
		{name: "first", reads: "history", take: (*session).first},
		{name: "browse", reads: "history", take: (*session).browse},
		{name: "big", reads: "big", take: (*session).big},
		{name: groupLive, tools: []string{nameS4, nameLoopback, nameDisk}, take: (*session).live},
		{name: "file", reads: "history", tools: all, take: (*session).file},
		{name: "items", reads: "history", tools: both, take: (*session).items},
		{name: "stream", reads: "big", tools: both, take: (*session).streamPlain},
		{name: groupSealed, reads: "sealed", tools: all, take: (*session).streamSealed},
		{name: groupSSH, reads: "big", tools: remote, take: (*session).streamSSH},
		{name: groupSSHSealed, reads: "sealed", tools: both, take: (*session).streamSSHSealed},
		{name: groupIngest, reads: "history", tools: both, take: (*session).ingest},
		{name: groupLook, tools: []string{nameS4}, take: (*session).look},
		{name: "versions", reads: "history", tools: all[:3], take: (*session).versions},
		{name: "diff", reads: "history", tools: all[:3], take: (*session).diff},
		{name: "find", reads: "history", tools: []string{nameS4, nameRestic}, take: (*session).findName},
		{name: "growth", tools: []string{nameS4}, once: true, take: (*session).growth},
		{name: groupMillion, tools: both, once: true, optional: true, take: (*session).million},
	}
}

func groupNames() []string {
	var all []string
	for _, g := range groups() {
		all = append(all, g.name)
	}
	return all
}

// wanted reports whether this run takes the group of that name.
func (b *bench) wanted(name string) bool {
	if slices.Contains(b.Only, name) {
		return true
	}
	if len(b.Only) > 0 && !slices.Contains(b.Only, allGroups) {
		return false
	}
	return !slices.ContainsFunc(groups(), func(g group) bool { return g.name == name && g.optional })
}

// measures reports whether the group is taken with the tool.
func (g group) measures(t *tool) bool {
	if g.tools == nil {
		return t.mount != nil
	}
	return slices.Contains(g.tools, t.name)
}

// order gives the tools that the group measures as they take turns in run n.
// Were all tools rotated together, neighbours would follow each other in nearly
// every run.
func (g group) order(tools []*tool, n int) []*tool {
	mine := slices.DeleteFunc(slices.Clone(tools), func(t *tool) bool { return !g.measures(t) })
	if len(mine) == 0 {
		return nil
	}
	first := n % len(mine)
	return slices.Concat(mine[first:], mine[:first])
}

// small files, by size in bytes, and how many are read.
const (
	smallLeast, smallMost = 1 << 10, 64 << 10
	smallCount            = 1000
	oneLeast, oneMost     = 4000, 4192 // bytes
	findLarge             = "+1M"
)

// session is one tool's turn.
type session struct {
	*bench
	report  *report.Report
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
	one                    file   // of about 4 KB, in the old snapshot
	story                  story  // of the history
	newestCount            int
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
	one := v.old.pick(1, oneLeast, oneMost)
	if len(one) == 0 {
		one = v.known // in a very small corpus
	}
	v.one = one[0]
	newest := newTree(p)
	v.story = tell(newest, p.Snapshots, newest.advance)
	v.newestCount = newest.entries()
	return v, nil
}

// patience is how long a peer's turn may take to be taken more than once.
const patience = 20 * time.Second

// errSkipped: the program under measure cannot do this, which is no failure.
var errSkipped = errors.New("skipped")

// measure takes every measure with every tool. A group that fails with a tool
// is not taken with it again, and nothing else is lost; the error joins what
// happened.
func (b *bench) measure(ctx context.Context, r *report.Report) error {
	v, err := newView(b.params)
	if err != nil {
		return err
	}
	var errs []error
	over := map[string]bool{} // by group and tool
	turn := func(g group, t *tool, what string) {
		key := g.name + " with " + t.name
		if over[key] || ctx.Err() != nil {
			return
		}
		b.say("%s: %s", what, t.name)
		s := &session{b, r, ctx, t, v, map[string]float64{}}
		err := s.bringIn(g.reads)
		start := time.Now()
		if err == nil {
			err = g.take(s)
		}
		if err != nil && ctx.Err() == nil && t.name != nameS4 && !errors.Is(err, errSkipped) {
			// Peers whose mount is just there give an error now and then.
			// They get a second chance; s4 has to work.
			b.say("again: %v", err)
			start = time.Now()
			err = g.take(s)
		}
		if ctx.Err() != nil {
			return
		}
		// What it measured before it failed counts.
		for key, value := range s.samples {
			r.Add(key, t.name, value)
		}
		switch {
		case errors.Is(err, errSkipped):
			b.say("%s: %v", key, err)
			over[key] = true
			r.Skipped[key] = err.Error()
		case err != nil:
			b.say("%s failed: %v", key, err)
			over[key] = true
			r.Failed[key] = err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		case g.once:
			over[key] = true
		case t.name != nameS4 && time.Since(start) > patience && b.Runs > 1:
			over[key] = true
			r.Once = append(r.Once, key)
		}
	}
	warmUp := group{name: "warm up", take: (*session).warm}
	for _, t := range b.tools {
		turn(warmUp, t, "warm up")
	}
	for n := range b.Runs {
		for _, g := range groups() {
			if !b.wanted(g.name) {
				continue
			}
			for _, t := range g.order(b.tools, n) {
				turn(g, t, fmt.Sprintf("run %d of %d, %s", n+1, b.Runs, g.name))
			}
		}
	}
	return errors.Join(errs...)
}

// newReport notes what is measured, and with what.
func (b *bench) newReport(ctx context.Context) *report.Report {
	t := newTree(b.params)
	r := report.New(b.params, b.Runs, report.Corpus{Files: len(t.files), Entries: t.entries(), Bytes: t.bytes()})
	maps.Copy(r.Failed, b.failed)
	for _, t := range b.tools {
		if t.dump == nil {
			continue
		}
		out, err := b.run(ctx, t, b.dir, t.version...)
		if err != nil {
			out = []byte(err.Error())
		}
		r.Versions[t.name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
		for _, kind := range []string{"history", "big", "sealed", "clustered", "million"} {
			repo := b.repository(t, kind)
			if size, err := treeSize(repo); err == nil {
				r.Stored[filepath.Base(repo)] = size
			}
		}
	}
	return r
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

func (s *session) seconds(key string, d time.Duration) {
	s.samples[key] = d.Seconds()
}
