package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/e2e/bench/probe"
	"github.com/s4-storage/s4/e2e/bench/proc"
)

const (
	replicateImage = 40 << 30 // bytes, sparse
	lightWriting   = 30 * time.Second
	heavyWriting   = 20 * time.Second
	heavyPause     = 5 * time.Millisecond
	idleFor        = time.Minute
	changedFiles   = 10
	changeRounds   = 7
	manifestPoll   = 5 * time.Millisecond
)

// replicated is a volume on a btrfs of the bench's own, with a remote beside it.
type replicated struct {
	*session
	dir, volume, repo string
	files             int
}

// replicate: how far behind a remote is while files are written, what replicate
// costs while nothing is, and what a small change of a large volume costs.
func (s *session) replicate() (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: only root may mount", errSkipped)
	}
	r := &replicated{session: s, dir: filepath.Join(s.dir, "replicate")}
	if err := os.RemoveAll(r.dir); err != nil {
		return err
	}
	mnt := filepath.Join(r.dir, "btrfs")
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	image := filepath.Join(r.dir, "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, replicateImage)); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop,noatime", image, mnt}} {
		if _, _, err := s.output(s.ctx, command{name: argv[0], argv: argv}); err != nil {
			return fmt.Errorf("%w: %w", errSkipped, err)
		}
	}
	defer func() { err = errors.Join(err, unix.Unmount(mnt, 0)) }()
	sizes := []int{10_000, 100_000}
	if s.wanted(groupMillion) {
		sizes = append(sizes, s.Million)
	}
	for i, files := range sizes {
		r.volume, r.files = filepath.Join(mnt, fmt.Sprint("v", files)), files
		r.repo = filepath.Join(r.dir, "remote", filepath.Base(r.volume))
		if err := r.fill(); err != nil {
			return err
		}
		if i == 0 {
			if err := r.running(); err != nil {
				return err
			}
		}
		if err := r.change(); err != nil {
			return err
		}
	}
	return nil
}

// s4 runs a command in the volume.
func (r *replicated) s4(args ...string) (spent, error) {
	_, took, err := r.output(r.ctx, r.tool.command(r.volume, args...))
	return took, err
}

// fill makes the volume with its files, and pushes it.
func (r *replicated) fill() error {
	r.say("replicate: a volume of %d files", r.files)
	if err := btrfsvol.Create(r.volume); err != nil {
		return err
	}
	for i := range r.files {
		path := r.file(i)
		if i%filesPerDir == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "file %d\n", i), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init"}, {"remote", "add", "--encryption", "none", "origin", filepath.Dir(r.repo)}, {"push"}} {
		if _, err := r.s4(args...); err != nil {
			return err
		}
	}
	return nil
}

func (r *replicated) file(i int) string {
	return filepath.Join(r.volume, "files", strconv.Itoa(i/filesPerDir), strconv.Itoa(i))
}

// change takes the parts of what a small change costs apart: the snapshot with
// what is written out for it, the difference, and a whole push.
func (r *replicated) change() error {
	old := filepath.Join(filepath.Dir(r.volume), "old")
	fresh := filepath.Join(filepath.Dir(r.volume), "new")
	if err := btrfsvol.Snapshot(r.volume, old, true); err != nil {
		return err
	}
	var took, told, pushed, cpu []float64
	for range changeRounds {
		for range changedFiles {
			if err := os.WriteFile(r.file(rand.IntN(r.files)), strconv.AppendInt(nil, rand.Int64(), 10), 0o644); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := errors.Join(btrfsvol.Sync(r.volume), btrfsvol.Snapshot(r.volume, fresh, true)); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds())
		start = time.Now()
		changes, err := btrfsvol.Changes(r.ctx, old, fresh, btrfsvol.Options{})
		if err == nil && len(changes) < changedFiles/2 {
			err = fmt.Errorf("%d changes are found", len(changes))
		}
		if err != nil {
			return err
		}
		told = append(told, time.Since(start).Seconds())
		if err := errors.Join(btrfsvol.Delete(old), os.Rename(fresh, old)); err != nil {
			return err
		}
		spent, err := r.s4("push")
		if err != nil {
			return err
		}
		pushed, cpu = append(pushed, spent.Wall), append(cpu, spent.CPU)
	}
	key := fmt.Sprint("change", r.files)
	r.samples[key+"Snapshot"], r.samples[key+"Difference"] = probe.Median(took), probe.Median(told)
	r.samples[key+"Push"], r.samples[key+"PushCPU"] = probe.Median(pushed), probe.Median(cpu)
	return btrfsvol.Delete(old)
}

// running measures a replicate that runs.
func (r *replicated) running() (err error) {
	cmd := exec.CommandContext(r.ctx, r.tool.program, "replicate", "--json")
	cmd.Dir, cmd.Env = r.volume, r.env
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) }()
	if err := r.behind("replicateLight", lightWriting, time.Second); err != nil {
		return err
	}
	if err := r.behind("replicateHeavy", heavyWriting, heavyPause); err != nil {
		return err
	}
	r.say("replicate: an idle minute")
	before, err := proc.CPU(cmd.Process.Pid, proc.OfItself)
	if err != nil {
		return err
	}
	select {
	case <-r.ctx.Done():
		return r.ctx.Err()
	case <-time.After(idleFor):
	}
	after, err := proc.CPU(cmd.Process.Pid, proc.OfItself)
	r.samples["replicateIdle"] = 100 * (after - before).Seconds() / idleFor.Seconds()
	return err
}

// writes are when each of a row of writes began.
type writes struct {
	mu    sync.Mutex
	began []time.Time
	err   error
}

// behind writes for so long, a file of 4 KB after every pause, and measures how
// long after each the remote's manifest lists an archive that has it.
func (r *replicated) behind(key string, during, pause time.Duration) error {
	r.say("replicate: a file every %v", pause)
	counter := filepath.Join(r.volume, "counter")
	if err := os.WriteFile(counter, fmt.Appendf(nil, "%09d\n", 0), 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	var w writes
	var writing sync.WaitGroup
	writing.Go(func() { w.write(ctx, counter, filepath.Join(r.volume, key), during, pause) })
	lags, err := r.listed(&w, int(during/pause))
	cancel()
	writing.Wait()
	if err := errors.Join(err, w.err); err != nil {
		return err
	}
	slices.Sort(lags)
	r.samples[key], r.samples[key+"99"] = probe.Median(lags), lags[len(lags)*99/100]
	return nil
}

// write writes one file after the other, and their number into the counter.
func (w *writes) write(ctx context.Context, counter, dir string, during, pause time.Duration) {
	f, err := os.OpenFile(counter, os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		err = os.MkdirAll(dir, 0o755)
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	body := make([]byte, 4096)
	for i := 0; i < int(during/pause) && err == nil; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.mu.Lock()
		w.began = append(w.began, time.Now())
		w.mu.Unlock()
		copy(body, strconv.AppendInt(nil, rand.Int64(), 10))
		if err = os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), body, 0o644); err == nil {
			_, err = f.WriteAt(fmt.Appendf(nil, "%09d\n", i+1), 0)
		}
	}
	w.err = err
}

// listed gives how long each of so many writes took to be listed.
func (r *replicated) listed(w *writes, count int) (lags []float64, err error) {
	loc, err := borgio.ParseLocation(r.repo)
	if err != nil {
		return nil, err
	}
	repo, err := borgio.Open(r.ctx, loc, borgio.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	var newest borgio.ID
	for deadline := time.Now().Add(r.Limit); len(lags) < count; time.Sleep(manifestPoll) {
		m, err := repo.Manifest(r.ctx)
		if err != nil {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d writes came to the remote", len(lags), count)
		}
		last := m.Archives[len(m.Archives)-1]
		if last.ID == newest {
			continue
		}
		newest = last.ID
		now := time.Now()
		n, err := r.counted(last.Name)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		for i := len(lags); i < min(n, len(w.began)); i++ {
			lags = append(lags, now.Sub(w.began[i]).Seconds())
		}
		w.mu.Unlock()
	}
	return lags, nil
}

// counted reads the counter in the btrfs snapshot of which that archive is. It
// may have none yet.
func (r *replicated) counted(archive string) (int, error) {
	name := strings.TrimPrefix(archive, filepath.Base(r.volume)+"-")
	name = name[:max(0, strings.LastIndexByte(name, '-'))]
	text, err := os.ReadFile(filepath.Join(r.volume, ".s4/snapshots", name, "counter"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil || len(text) == 0 {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
