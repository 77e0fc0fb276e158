package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	own      bool     // makes its data itself: needs neither history nor big file
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
	groupMany      = "many"
	groupReplicate = "replicate"
	groupPush      = "push"
	groupGrowth    = "growth"
)

// allGroups names all that are not optional.
const allGroups = "all"

func groups() []group {
	both := []string{nameS4, nameBorg}
	stores := []string{nameS4, namePlain, nameBorg, nameRestic, nameKopia}
	all := []string{nameS4, nameBorg, nameRestic, nameKopia}
	remote := []string{nameS4, nameBorg, nameCat}
	return []group{
		{name: "index", tools: []string{nameS4}, take: (*session).index},
		{name: "list", reads: "history", take: (*session).list},
		{name: "first", reads: "history", take: (*session).first},
		{name: "browse", reads: "history", take: (*session).browse},
		{name: "big", reads: "big", take: (*session).big},
		{name: "crawl", reads: "history", tools: []string{nameS4}, once: true, take: (*session).crawl},
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
		{name: "index-growth", tools: []string{nameS4}, once: true, own: true, take: (*session).indexGrowth},
		{name: groupPush, tools: append(all, nameCat), own: true, take: (*session).push},
		{name: groupGrowth, tools: stores, once: true, optional: true, own: true, take: (*session).growth},
		{name: groupMany, reads: groupMany, tools: both, once: true, optional: true, own: true, take: (*session).many},
		{name: groupReplicate, tools: []string{nameS4}, once: true, optional: true, own: true, take: (*session).replicate},
		{name: groupMillion, tools: both, once: true, optional: true, own: true, take: (*session).million},
	}
}

func groupNames() []string {
	var all []string
	for _, g := range groups() {
		all = append(all, g.name)
	}
	return all
}

// optionalGroups are taken only when asked for.
func optionalGroups() []string {
	var all []string
	for _, g := range groups() {
		if g.optional {
			all = append(all, g.name)
		}
	}
	return all
}

// needsHistory tells whether this run takes a group that looks at the history,
// the corpus or the big file.
func (b *bench) needsHistory() bool {
	return slices.ContainsFunc(groups(), func(g group) bool { return !g.own && b.wanted(g.name) })
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
		if err != nil && ctx.Err() == nil && !t.ours() && !errors.Is(err, errSkipped) {
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
		case !t.ours() && time.Since(start) > patience && b.Runs > 1:
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
	r := report.New(b.params, b.Runs, b.Growth, report.Corpus{Files: len(t.files), Entries: t.entries(), Bytes: t.bytes()})
	maps.Copy(r.Failed, b.failed)
	for _, g := range groups() {
		for _, t := range b.missing {
			if g.measures(t) {
				r.Missing[g.name] = append(r.Missing[g.name], t.name)
			}
		}
	}
	for _, t := range b.tools {
		if t.dump == nil {
			continue
		}
		out, err := b.run(ctx, t, b.dir, t.version...)
		if err != nil {
			out = []byte(err.Error())
		}
		r.Versions[t.name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
		for _, kind := range repositoryKinds() {
			repo := b.repository(t, kind)
			if size, err := treeSize(repo); err == nil {
				r.Stored[filepath.Base(repo)] = size
			}
		}
	}
	return r
}

// seconds records a time.
func (s *session) seconds(key string, d time.Duration) {
	s.samples[key] = d.Seconds()
}
