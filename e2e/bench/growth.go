package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/e2e/bench/probe"
)

const (
	growthLeast  = 100  // files of the smallest tree
	growthRounds = 3    // samples, as long as they
	growthSoon   = 5    // take so many seconds in all
	growthSmall  = 100  // bytes of the smallest file
	growthSizes  = 301  // how many sizes there are
	growthSpace  = 6000 // bytes on disk for each file: a block, an inode, what btrfs or the repository takes
)

// growth: what a first push, one of nothing new and one of ten changed files cost
// as the number of files grows. s4 is measured on btrfs, the others on a plain
// directory that they have in common.
func (s *session) growth() error {
	for _, n := range s.Growth {
		if err := s.grow(n); err != nil {
			return fmt.Errorf("%d files: %w", n, err)
		}
	}
	return nil
}

func (s *session) grow(files int) (err error) {
	dir := filepath.Join(s.dir, "growth")
	scratch := filepath.Join(dir, "scratch") // what a turn before has left goes
	mend := func() error { return removeWithLoop(filepath.Join(scratch, "btrfs"), scratch) }
	if err := inTurn(mend, func() error { return os.MkdirAll(scratch, 0o755) }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mend()) }()
	t := &manySmallFiles{seed: s.Seed, files: files}
	if s.tool.name == nameS4 {
		t.dir = filepath.Join(scratch, "btrfs", "files")
		err = s.growOnBtrfs(t)
	} else {
		t.dir = filepath.Join(dir, "plain-"+strconv.Itoa(files))
		err = s.growPlain(t)
	}
	if err != nil {
		return err
	}
	defer func() {
		if s.tool.name == namePlain { // others come to this directory
			err = errors.Join(err, os.RemoveAll(filepath.Join(t.dir, ".s4")))
		}
	}()
	p := &pushing{session: s, tree: t.dir, repo: filepath.Join(scratch, "repo")}
	n := strconv.Itoa(files)
	return inTurn(
		func() error { return t.read(s.ctx) },
		func() error { return p.begin(s.ownMode()) },
		func() error { return p.store("growFirst" + n) },
		func() error { return p.storeOften("growSame"+n, func() error { return nil }) },
		func() error { return p.storeOften("growTen"+n, func() error { return t.rewrite(pushTen) }) },
		func() error { return p.check(t.path(0)) },
	)
}

// growOnBtrfs makes the tree as a subvolume.
func (s *session) growOnBtrfs(t *manySmallFiles) error {
	if err := s.room(uint64(t.files) * growthSpace); err != nil {
		return err
	}
	mnt := filepath.Dir(t.dir)
	if err := s.loopBtrfs(mnt, int64(t.files)*3*growthSpace+4<<30); err != nil {
		return err
	}
	return errors.Join(btrfsvol.Create(t.dir), t.write(s.ctx))
}

// growPlain makes the tree, or makes it again what it was.
func (s *session) growPlain(t *manySmallFiles) error {
	// Left by a run that was interrupted.
	if err := os.RemoveAll(filepath.Join(t.dir, ".s4")); err != nil {
		return err
	}
	complete := t.dir + ".complete"
	if exists(complete) {
		t.version = -1
		return t.rewrite(pushTen)
	}
	if err := s.room(uint64(t.files) * growthSpace); err != nil {
		return err
	}
	s.say("growth: making %d files", t.files)
	if err := errors.Join(os.RemoveAll(t.dir), t.write(s.ctx)); err != nil {
		return err
	}
	return os.WriteFile(complete, nil, 0o644)
}

// storeOften takes a snapshot some times, each after something has happened, and
// records the medians.
func (p *pushing) storeOften(key string, before func() error) error {
	var wall, cpu, peak []float64
	for sum := 0.0; len(wall) < growthRounds && sum < growthSoon; {
		if err := before(); err != nil {
			return err
		}
		took, err := p.snapshot()
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		wall, cpu, peak = append(wall, took.Wall), append(cpu, took.CPU), append(peak, took.Peak)
		sum += took.Wall
	}
	p.record(key, spent{probe.Median(wall), probe.Median(cpu), probe.Median(peak)})
	return nil
}

// manySmallFiles is a tree of files of a few hundred bytes, no two of them equal.
// All of it follows from the seed and the number of files, and how often they were
// written anew.
type manySmallFiles struct {
	dir     string
	seed    uint64
	files   int
	version int
}

func (t *manySmallFiles) path(i int) string {
	return filepath.Join(dirOf(uint64(i)/filesPerDir), name(uint64(i)))
}

// content has the same size in every version.
func (t *manySmallFiles) content(i int) []byte {
	b := make([]byte, growthSmall+i*31%growthSizes)
	fill(b, rand.New(rand.NewPCG(t.seed+uint64(t.version)<<32, uint64(i))), isText(uint64(i)))
	return b
}

// write makes all files, and has them written out, so that what is measured next
// need not wait for it.
func (t *manySmallFiles) write(ctx context.Context) error {
	err := t.parallel(ctx, func(i int) error {
		path := filepath.Join(t.dir, t.path(i))
		if i%filesPerDir == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		return os.WriteFile(path, t.content(i), 0o644)
	})
	if err != nil {
		return err
	}
	d, err := os.Open(t.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// read brings all files into memory.
func (t *manySmallFiles) read(ctx context.Context) error {
	return t.parallel(ctx, func(i int) error {
		f, err := os.Open(filepath.Join(t.dir, t.path(i)))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

// rewrite writes n files anew that are in different places.
func (t *manySmallFiles) rewrite(n int) error {
	t.version++
	for k := range n {
		i := k * t.files / n
		if err := os.WriteFile(filepath.Join(t.dir, t.path(i)), t.content(i), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// parallel does something with every file, on all processors, with those of one
// directory in sequence.
func (t *manySmallFiles) parallel(ctx context.Context, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, runtime.NumCPU())
	var workers sync.WaitGroup
	for w := range errs {
		workers.Go(func() {
			for errs[w] == nil && ctx.Err() == nil {
				end := int(next.Add(filesPerDir))
				for i := end - filesPerDir; i < min(end, t.files) && errs[w] == nil; i++ {
					errs[w] = do(i)
				}
				if end >= t.files {
					return
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(append(errs, ctx.Err())...)
}
