package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/e2e/bench/probe"
	"github.com/s4-storage/s4/e2e/bench/proc"
	"github.com/s4-storage/s4/e2e/bench/sshd"
)

const (
	replicateImage = 40 << 30 // bytes, sparse
	lightPause     = time.Second
	heavyPause     = 5 * time.Millisecond
	heavyWrites    = 4000
	idleFor        = time.Minute
	changedFiles   = 10
	changeRounds   = 7
	manifestPoll   = 5 * time.Millisecond
)

// replicated is a volume on a btrfs of the bench's own, with a remote beside it.
type replicated struct {
	*session
	dir, volume string
	files       int
	written     int // by all writers so far
}

// replicate: how far behind a remote is while files are written, what replicate
// costs while nothing is, and what a small change of a large volume costs.
func (s *session) replicate() (err error) {
	r := &replicated{session: s, dir: filepath.Join(s.dir, "replicate")}
	mnt := filepath.Join(r.dir, "btrfs")
	if err := removeWithLoop(mnt, r.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeWithLoop(mnt, r.dir)) }()
	if err := s.loopBtrfs(mnt, replicateImage); err != nil {
		return err
	}
	sizes := []int{10_000, 100_000}
	if s.wanted(groupMillion) {
		sizes = append(sizes, s.Million)
	}
	for i, files := range sizes {
		r.volume, r.files = filepath.Join(mnt, fmt.Sprint("v", files)), files
		if err := r.fill(); err != nil {
			return err
		}
		if i == 0 {
			if err := errors.Join(r.running(), r.runningFar()); err != nil {
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
	_, took, err := r.output(r.ctx, r.command(args...))
	return took, err
}

func (r *replicated) command(args ...string) command {
	c := r.tool.command(r.volume, args...)
	if r.server != nil {
		c.env = r.farEnv()
	}
	return c
}

// place is where a remote keeps its repositories.
func (r *replicated) place(remote string) string { return filepath.Join(r.dir, remote) }

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
	for _, args := range [][]string{{"init"}, {"remote", "add", "--encryption", "none", nearRemote, r.place(nearRemote)}, {"push"}} {
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
		spent, err := r.s4("push", nearRemote)
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

// A volume's remotes: a directory beside it, and one that is reached through ssh.
const (
	nearRemote = "origin"
	farRemote  = "far"
)

// running measures a replicate that runs.
func (r *replicated) running() error {
	return r.replicating(nearRemote, func(pid int) error {
		if err := r.behind("replicateLight", nearRemote, r.Writes, lightPause); err != nil {
			return err
		}
		if err := r.behind("replicateHeavy", nearRemote, heavyWrites, heavyPause); err != nil {
			return err
		}
		r.say("replicate: an idle minute")
		before, err := proc.CPU(pid, proc.OfItself)
		if err != nil {
			return err
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-time.After(idleFor):
		}
		after, err := proc.CPU(pid, proc.OfItself)
		r.samples["replicateIdle"] = 100 * (after - before).Seconds() / idleFor.Seconds()
		return err
	})
}

// runningFar measures one whose remote is reached through ssh.
func (r *replicated) runningFar() error {
	if err := r.startServer(); err != nil {
		return err
	}
	url := "ssh://" + sshd.Host + r.place(farRemote)
	for _, args := range [][]string{{"remote", "add", "--encryption", "none", farRemote, url}, {"push", farRemote}} {
		if _, err := r.s4(args...); err != nil {
			return err
		}
	}
	return r.replicating(farRemote, func(int) error {
		return r.behind("replicateFar", farRemote, r.Writes, lightPause)
	})
}

// replicating does something while replicate runs. What that says is shown when
// it fails.
func (r *replicated) replicating(remote string, do func(pid int) error) (err error) {
	c := r.command("replicate", "--json", remote)
	cmd := exec.CommandContext(r.ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir, cmd.Env = c.dir, append(slices.Clone(r.env), c.env...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		if err != nil {
			err = fmt.Errorf("%w: %s", err, tail(said.String()))
		}
	}()
	return do(cmd.Process.Pid)
}

// writes are when each of a row of writes began.
type writes struct {
	before int // what the counter says at first

	mu    sync.Mutex
	began []time.Time
	err   error
}

// behind writes so many files of 4 KB, one after every pause, and measures how
// long after each the remote's manifest lists an archive that has it. Pauses are
// between half and one and a half times as long, so that writes do not keep step
// with a replicate that looks at the volume as regularly. One write before tells
// when replicate has begun.
func (r *replicated) behind(key, remote string, count int, pause time.Duration) error {
	if _, err := r.follow(filepath.Join(r.volume, key+"-before"), remote, 1, pause); err != nil {
		return err
	}
	r.say("replicate: %d files, one every %v, to %s", count, pause, remote)
	lags, err := r.follow(filepath.Join(r.volume, key), remote, count, pause)
	if err != nil {
		return err
	}
	slices.Sort(lags)
	r.samples[key], r.samples[key+"99"] = probe.Median(lags), lags[(len(lags)*99-1)/100]
	return nil
}

// follow writes files into dir and gives how long each took to be listed.
func (r *replicated) follow(dir, remote string, count int, pause time.Duration) ([]float64, error) {
	ctx, cancel := context.WithCancel(r.ctx)
	w := writes{before: r.written}
	r.written += count
	var writing sync.WaitGroup
	writing.Go(func() { w.write(ctx, filepath.Join(r.volume, counterName), dir, count, pause) })
	lags, err := r.listed(&w, filepath.Join(r.place(remote), filepath.Base(r.volume)), count)
	cancel()
	writing.Wait()
	return lags, errors.Join(err, w.err)
}

// write writes one file after the other, and their number into the counter.
func (w *writes) write(ctx context.Context, counter, dir string, count int, pause time.Duration) {
	f, err := os.OpenFile(counter, os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		defer f.Close()
		err = os.MkdirAll(dir, 0o755)
	}
	body := make([]byte, 4096)
	due := time.Now()
	for i := 0; i < count && err == nil; i++ {
		due = due.Add(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		w.mu.Lock()
		w.began = append(w.began, time.Now())
		w.mu.Unlock()
		copy(body, strconv.AppendInt(nil, rand.Int64(), 10))
		if err = os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), body, 0o644); err == nil {
			_, err = f.WriteAt(fmt.Appendf(nil, "%09d\n", w.before+i+1), 0)
		}
	}
	w.err = err
}

// listed gives how long each of so many writes took to be listed in a repository,
// which is read on this machine wherever replicate sends it to.
func (r *replicated) listed(w *writes, path string, count int) (lags []float64, err error) {
	loc, err := borgio.ParseLocation(path)
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
		last := m.Archives[len(m.Archives)-1].ID
		if last == newest {
			continue
		}
		now := time.Now()
		n, err := counted(r.ctx, repo, last)
		if err != nil {
			return nil, err
		}
		newest = last
		w.mu.Lock()
		for i := len(lags); i < min(n-w.before, len(w.began)); i++ {
			lags = append(lags, now.Sub(w.began[i]).Seconds())
		}
		w.mu.Unlock()
	}
	return lags, nil
}

// counterName is a file that holds how many writes are over. It comes before most
// in an archive, so that little has to be read to find it.
const counterName = "counter"

// counted reads the counter in an archive: what it says is durable there. It may
// have none yet.
func counted(ctx context.Context, repo *borgio.Repository, id borgio.ID) (int, error) {
	archive, err := repo.Archive(ctx, id)
	if err != nil {
		return 0, err
	}
	for it, err := range repo.Items(ctx, archive) {
		if err != nil {
			return 0, err
		}
		if it.Path != counterName {
			continue
		}
		if it.Size == 0 { // only just made
			return 0, nil
		}
		text := make([]byte, it.Size)
		f := repo.OpenFile(it.Chunks)
		_, err := f.ReadAt(text, 0)
		if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return 0, nil
}
