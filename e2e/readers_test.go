package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// readersKnown is what the readers compare with.
type readersKnown struct {
	live map[string][]byte // files that stay as they are

	mu     sync.Mutex
	snaps  []*knownSnapshot
	pruned int
}

type knownSnapshot struct {
	name, archive string
	files         map[string][]byte
	doomed        atomic.Bool // set before it is deleted
}

// TestManyReaders lets 64 read live files and snapshots at once, while new ones are
// pushed and old ones deleted beside them. Every byte is compared; only of a
// snapshot that is deleted may reading fail.
func TestManyReaders(t *testing.T) {
	t.Parallel()
	long, limit := 10*time.Second, 150
	if os.Getenv("S4_LONG") != "" {
		long = time.Minute
	}
	if raceEnabled {
		limit = 300 // the detector remembers what each thread did with each byte
	}
	v := newInhabited(t)
	known := &readersKnown{live: map[string][]byte{}}
	for i := range 12 {
		known.live[fmt.Sprint("stays/", i)] = noise(uint64(i), 200_000+i)
	}
	for name, data := range known.live {
		writeFile(t, filepath.Join(v.dir, name), data)
	}
	mnt := filepath.Join(filepath.Dir(v.dir), "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	v.run("s4", "push") // a mount looks where there was something when it began
	v.run("s4", "mount", mnt)
	for i := range 3 {
		known.push(t, v, mnt, i)
	}
	pid := v.daemon(mnt)
	readAll(t, mnt, known, 2*time.Second, nil) // what is opened once is open now
	time.Sleep(3 * time.Second)                // descriptors kept for a moment go by time
	files := daemonFiles(t, v, pid)
	readAll(t, mnt, known, long, func(round int) {
		known.push(t, v, mnt, round+3)
		known.prune(t, v, mnt)
	})
	if known.pruned == 0 {
		t.Error("nothing was pruned meanwhile")
	}
	peak := daemonPeak(t, pid)
	t.Logf("%d snapshots pruned, at most %d MiB", known.pruned, peak)
	if peak > limit {
		t.Errorf("the mount took %d MiB, more than %d", peak, limit)
	}
	eventually(t, 30*time.Second, fmt.Sprint(files, " descriptors again"), func() bool { return daemonFiles(t, v, pid) <= files })
	v.umount(mnt)
}

// noise is content that can be made again.
func noise(seed uint64, size int) []byte {
	data := make([]byte, size)
	var key [32]byte
	copy(key[:], strconv.FormatUint(seed, 10))
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// push changes some files, pushes, and notes what the snapshot holds once the
// mount shows it.
func (k *readersKnown) push(t *testing.T, v *inhabited, mnt string, round int) {
	s := &knownSnapshot{files: map[string][]byte{}}
	for name, data := range k.live {
		s.files[name] = data
	}
	for i := range 8 {
		last := round - (round+i)%3 // a third of them are new in each
		name, data := fmt.Sprint("changes/", i), noise(uint64(1000+i+100*last), 150_000+1000*i)
		writeFile(t, filepath.Join(v.dir, name), data)
		s.files[name] = data
	}
	v.run("s4", "push")
	list := strings.Fields(v.run("borg", "list", "--short", v.repo))
	s.archive = list[len(list)-1]
	s.name = s.archive[len("v-"):strings.LastIndexByte(s.archive, '-')]
	eventually(t, 30*time.Second, s.name+" is shown", func() bool {
		_, err := os.Stat(filepath.Join(mnt, ".s4/history", s.name))
		return err == nil
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.snaps = append(k.snaps, s)
}

// prune deletes the oldest snapshot for good. Who has a file of it open reads on
// what is right, or gets an error.
func (k *readersKnown) prune(t *testing.T, v *inhabited, mnt string) {
	k.mu.Lock()
	s := k.snaps[0]
	k.snaps = k.snaps[1:]
	left := len(k.snaps)
	k.mu.Unlock()
	want := s.files["changes/0"]
	f, err := os.Open(filepath.Join(mnt, ".s4/history", s.name, "changes/0"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	begin := make([]byte, 4096)
	if _, err := f.ReadAt(begin, 0); err != nil || !bytes.Equal(begin, want[:4096]) {
		t.Errorf("before it is deleted: %v", err)
	}
	s.doomed.Store(true)
	if k.pruned%2 == 0 {
		v.run("s4", "prune", "--keep-last", strconv.Itoa(left))
	} else {
		v.run("borg", "delete", v.repo+"::"+s.archive)
		v.run("borg", "compact", v.repo)
	}
	k.pruned++
	for off := 0; off < len(want); off += 10_000 {
		buf := make([]byte, min(10_000, len(want)-off))
		if _, err := f.ReadAt(buf, int64(off)); err == nil && !bytes.Equal(buf, want[off:off+len(buf)]) {
			t.Errorf("wrong bytes at %d of a deleted snapshot's open file", off)
		}
	}
}

// readAll reads with 64 at once until the time is over, and calls beside meanwhile.
func readAll(t *testing.T, mnt string, k *readersKnown, long time.Duration, beside func(round int)) {
	t.Helper()
	var over atomic.Bool
	var reads atomic.Int64
	var all sync.WaitGroup
	defer func() {
		over.Store(true)
		all.Wait()
		t.Logf("%d reads", reads.Load())
	}()
	for i := range 64 {
		rng := rand.New(rand.NewPCG(uint64(i), 9)) //nolint:gosec // reproducible on purpose
		all.Go(func() {
			for !over.Load() && !t.Failed() {
				if err := k.readOne(mnt, rng, i%2 == 0); err != nil {
					t.Error(err)
				}
				reads.Add(1)
				time.Sleep(5 * time.Millisecond) // for those beside
			}
		})
	}
	end := time.Now().Add(long)
	for round := 0; beside != nil && time.Now().Before(end) && !t.Failed(); round++ {
		beside(round)
	}
	time.Sleep(time.Until(end))
}

// readOne reads a range, or all, of one file.
func (k *readersKnown) readOne(mnt string, rng *rand.Rand, live bool) error {
	files, top, gone := k.live, mnt, func() bool { return false }
	if !live {
		k.mu.Lock()
		s := k.snaps[rng.IntN(len(k.snaps))]
		k.mu.Unlock()
		files, top, gone = s.files, filepath.Join(mnt, ".s4/history", s.name), s.doomed.Load
	}
	name := fmt.Sprint("stays/", rng.IntN(12))
	if !live && rng.IntN(2) == 0 {
		name = fmt.Sprint("changes/", rng.IntN(8))
	}
	want, off := files[name], 0
	if rng.IntN(4) > 0 {
		off = rng.IntN(len(want) - 1)
		want = want[off:min(len(want), off+rng.IntN(20_000))]
	}
	path := filepath.Join(top, name)
	got, err := readRange(path, off, len(want))
	switch {
	case err != nil && gone():
		return nil
	case err == nil && !bytes.Equal(got, want):
		return fmt.Errorf("%s: wrong bytes among %d from %d", path, len(want), off)
	}
	return err
}

func readRange(path string, off, size int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, size)
	_, err = f.ReadAt(buf, int64(off))
	return buf, err
}

// daemonFiles counts the descriptors of the mount's process. Some pipes are kept
// for splice(2), by as many as read at once; of the repository's segments up to 32,
// whichever were read last; of the index six connections with two files each and
// one for all, as many as were used at once. These count from there on.
func daemonFiles(t *testing.T, v *inhabited, pid int) int {
	t.Helper()
	others, segments, ofIndex := 0, 0, 0
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case strings.HasPrefix(target, "pipe:"):
		case strings.HasPrefix(target, v.repo+"/data/"):
			segments++
		case strings.Contains(target, "/s4/index/"):
			ofIndex++
		default:
			others++
		}
	}
	return others + max(0, segments-32) + max(0, ofIndex-6*2-1)
}

// daemonPeak is the most memory a process ever had, in MiB.
func daemonPeak(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}
