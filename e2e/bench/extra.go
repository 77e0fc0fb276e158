package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
)

// madeBigFile names the big file in the stamp.
const madeBigFile = "big file"

// extra is data that only some groups need. borg alone stores it.
type extra struct {
	name   string // in the stamp
	groups []string
	make   func(*bench, context.Context) error
}

// extras are in the order in which they are made.
func (b *bench) extras() []extra {
	return []extra{
		{madeBigFile, []string{groupSSH, groupSSHSealed, groupSealed}, (*bench).makeBigFile},
		{"sealed", []string{groupSealed, groupSSHSealed}, (*bench).makeSealed},
		{"clustered", []string{groupIngest, groupLook}, (*bench).makeClustered},
		{fmt.Sprintf("many of %d", b.Many), []string{groupMany}, (*bench).makeMany},
		{fmt.Sprintf("million of %d", b.Million), []string{groupMillion}, (*bench).makeMillion},
	}
}

// prepareExtras makes what is not there yet of what this run needs. What fails
// costs only the groups that need it.
func (b *bench) prepareExtras(ctx context.Context) error {
	for _, e := range b.extras() {
		if slices.Contains(b.stamp.Made, e.name) || !slices.ContainsFunc(e.groups, b.wanted) {
			continue
		}
		if err := e.make(b, ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.say("%s: %v", e.name, err)
			b.failed[e.name] = err.Error()
			continue
		}
		b.stamp.Made = append(b.stamp.Made, e.name)
		if err := b.saveStamp(); err != nil {
			return err
		}
	}
	return nil
}

// borg is the one that writes, measured or not.
func (b *bench) borg() *tool {
	if t := b.tool(nameBorg); t != nil {
		return t
	}
	return toolBorg()
}

// bigFile is the file itself, as ssh reads it.
func (b *bench) bigFile() string { return filepath.Join(b.dir, "big", bigName) }

func (b *bench) makeBigFile(context.Context) error {
	if err := b.checkSpace(1); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.bigFile()), 0o755); err != nil {
		return err
	}
	b.say("making a file of %s", humanize.Bytes(uint64(b.Big)))
	sum, err := (&tree{seed: b.Seed}).writeBig(b.bigFile(), b.Big)
	b.stamp.BigSum = sum
	return err
}

// makeSealed stores the big file encrypted.
func (b *bench) makeSealed(ctx context.Context) error {
	return b.makeRepository(ctx, "sealed", "repokey-blake2", func(store func(dir string, n int) error) error {
		return store(filepath.Dir(b.bigFile()), 0)
	})
}

// makeRepository makes a repository of that kind anew; fill stores snapshots.
func (b *bench) makeRepository(ctx context.Context, kind, encryption string, fill func(store func(dir string, n int) error) error) error {
	t := b.borg()
	repo := b.repository(t, kind)
	if err := os.RemoveAll(repo); err != nil {
		return err
	}
	if _, err := b.run(ctx, t, b.dir, "init", "--encryption", encryption, repo); err != nil {
		return err
	}
	return fill(func(dir string, n int) error {
		start := time.Now()
		_, err := b.run(ctx, t, dir, t.backup(repo, when(n))...)
		b.say("%s, snapshot %d: %s %.1f s", kind, n+1, t.name, time.Since(start).Seconds())
		return err
	})
}

// The clustered history has as many files as the corpus, tiny ones. From one
// snapshot to the next as large a share of them changes as in the other
// history, but all in neighbouring directories. One directory is wide.
const (
	clusteredSnapshots = 6
	wideDir            = "wide"
	wideEntries        = 1000
)

func newClustered(p params) *tree {
	t := newTiny(p, p.Files)
	for i := range wideIn(p) {
		f := &t.files[len(t.files)-1-i]
		f.path = filepath.Join(wideDir, name(f.id))
	}
	return t
}

// wideIn is the number of entries of the wide directory: few if there are few
// files at all.
func wideIn(p params) int { return min(wideEntries, p.Files/10) }

func newTiny(p params, files int) *tree {
	t := &tree{seed: p.Seed, tiny: true}
	for range files {
		t.files = append(t.files, t.newFile())
	}
	return t
}

// advanceClustered makes the changes that follow snapshot n.
func (t *tree) advanceClustered(n int) []change {
	count := max(int(float64(len(t.files))*changedShare), 4)
	var changes []change
	for i := range count {
		at := (n*len(t.files)/clusteredSnapshots + i) % len(t.files)
		old := t.files[at]
		now := old
		now.version++
		now.size = t.sizeOf(now)
		t.files[at] = now
		changes = append(changes, change{&old, &now})
	}
	return changes
}

func (b *bench) makeClustered(ctx context.Context) error {
	t := newClustered(b.params)
	return b.makeTiny(ctx, "clustered", t, clusteredSnapshots, t.advanceClustered)
}

const millionSnapshots = 10

func (b *bench) makeMillion(ctx context.Context) error {
	t := newTiny(b.params, b.Million)
	return b.makeTiny(ctx, "million", t, millionSnapshots, t.advance)
}

func (b *bench) makeMany(ctx context.Context) error {
	t := newTiny(b.params, manyFiles)
	return b.makeTiny(ctx, groupMany, t, b.Many, t.advance)
}

func (b *bench) makeTiny(ctx context.Context, kind string, t *tree, snapshots int, advance func(n int) []change) error {
	dir := filepath.Join(b.dir, "tiny")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	b.say("%s: making %s tiny files", kind, humanize.Comma(int64(len(t.files))))
	if err := t.write(dir); err != nil {
		return err
	}
	if err := b.makeRepository(ctx, kind, "none", func(store func(dir string, n int) error) error {
		for n := range snapshots {
			if n > 0 {
				if err := t.apply(dir, advance(n-1)); err != nil {
					return err
				}
			}
			if err := store(dir, n); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
