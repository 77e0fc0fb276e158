package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// long tells whether the tests that go on for long may.
func long() bool { return os.Getenv("S4_LONG") == "1" }

// witness writes files that tell by themselves whether they are whole, and which
// version of them is there: a line with the file's and the version's number, over
// and over. Each version takes the place of the one before by a rename.
type witness struct {
	dir     string
	written atomic.Int64 // the last version, of whichever file
	work    sync.WaitGroup
	stop    chan struct{}
}

const witnessFiles = 10

// startWitness writes below dir/witness until it is told to end.
func startWitness(t *testing.T, dir string) *witness {
	t.Helper()
	w := &witness{dir: filepath.Join(dir, "witness"), stop: make(chan struct{})}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.work.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := int64(1); ; n++ {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			if err := w.write(n); err != nil {
				t.Error(err)
				return
			}
			w.written.Store(n)
		}
	})
	t.Cleanup(w.end)
	return w
}

func (w *witness) write(n int64) error {
	path := filepath.Join(w.dir, fmt.Sprint(n%witnessFiles))
	body := bytes.Repeat(testimony(n), int(1+n*7919%3000))
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	// Without it neither a snapshot of btrfs nor a crash need have the content
	// when it has the name.
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func testimony(n int64) []byte { return fmt.Appendf(nil, "file %d version %d\n", n%witnessFiles, n) }

// end stops the writing, once.
func (w *witness) end() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.work.Wait()
}

// heard reads the files below dir/witness, each of which must be whole, and gives
// the newest version among them.
func heard(t *testing.T, dir string) (newest int64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "witness/[0-9]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file, n int64
		if _, err := fmt.Sscanf(string(body), "file %d version %d\n", &file, &n); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		line := testimony(n)
		if fmt.Sprint(file) != filepath.Base(path) || len(body)%len(line) != 0 || !bytes.Equal(body, bytes.Repeat(line, len(body)/len(line))) {
			t.Errorf("%s is not whole: %.100q", path, body)
		}
		newest = max(newest, n)
	}
	return newest
}

// acknowledged gathers the snapshots that a job has told to be at the remote.
func (j *job) acknowledged(remote string, into map[string]bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if id, _ := e["snapshot"].(string); e["event"] == "pushed" && e["remote"] == remote && id != "" {
			into[id] = true
		}
	}
}

// count tells how many events of a kind a remote has had.
func (j *job) count(kind, remote string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e["event"] == kind && (remote == "" || e["remote"] == remote) {
			n++
		}
	}
	return n
}

// said is the error of the last failed attempt.
func (j *job) said() (text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e["event"] == "failed" {
			text, _ = e["error"].(string)
		}
	}
	return text
}

// sound wants of a repository that borg finds no fault with it, that it holds all
// that was acknowledged, and that its snapshots have whole files that never go
// back in time. It gives the version that the newest has.
func (v *inhabited) sound(repo string, acknowledged map[string]bool) (newest int64) {
	v.t.Helper()
	v.run("borg", "check", "--verify-data", repo)
	mnt, err := os.MkdirTemp(filepath.Dir(v.dir), "mnt")
	if err != nil {
		v.t.Fatal(err)
	}
	v.run("s4", "mount", repo, mnt)
	defer v.umount(mnt)
	dirs, err := filepath.Glob(filepath.Join(mnt, ".s4/history/????-*"))
	if err != nil || len(dirs) == 0 {
		v.t.Fatalf("no snapshots: %v", err)
	}
	slices.Sort(dirs)
	for _, dir := range dirs {
		n := heard(v.t, dir)
		if n < newest {
			v.t.Errorf("%s has version %d, and one before had %d", dir, n, newest)
		}
		newest = n
	}
	v.holds(repo, acknowledged)
	return newest
}

// holds wants those snapshots in a repository. An archive's name ends with the
// beginning of its snapshot's id.
func (v *inhabited) holds(repo string, snapshots map[string]bool) {
	v.t.Helper()
	archives := strings.Fields(v.run("borg", "list", "--short", repo))
	for id := range snapshots {
		if !slices.ContainsFunc(archives, func(name string) bool { return strings.HasSuffix(name, "-"+id[:8]) }) {
			v.t.Errorf("acknowledged and lost: %s", id)
		}
	}
}

// noGarbage wants nothing left of killed processes: no mounts, no locks, nothing
// half-made among the snapshots or beside the volume.
func (v *inhabited) noGarbage() {
	v.t.Helper()
	top := filepath.Dir(v.dir)
	real, err := filepath.EvalSymlinks(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		v.t.Fatal(err)
	}
	if n := strings.Count(string(mounts), " "+real+"/"); n > 0 {
		v.t.Errorf("%d mounts are left in the volume", n)
	}
	for _, pattern := range []string{filepath.Join(top, ".v*"), filepath.Join(filepath.Dir(real), ".v*"), v.repo + "/lock*tmp", v.repo + "/*.tmp"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			v.t.Errorf("left: %v %v", left, err)
		}
	}
	store := filepath.Join(real, ".s4/snapshots")
	entries, err := os.ReadDir(store)
	if err != nil && !os.IsNotExist(err) {
		v.t.Fatal(err)
	}
	for _, e := range entries {
		other := e.Name() + ".json"
		if stem, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			other = stem
		}
		if _, err := os.Stat(filepath.Join(store, other)); err != nil {
			v.t.Errorf("%s is half a snapshot", e.Name())
		}
		if _, err := time.Parse(snapshot.DirFormat, strings.SplitN(strings.TrimSuffix(e.Name(), ".json"), "_", 2)[0]); err != nil {
			v.t.Errorf("among the snapshots: %s", e.Name())
		}
	}
	if n := len(entries) / 2; n > 14 { // ten, an hour's and a day's, and what a remote was last sent
		v.t.Errorf("%d btrfs snapshots are kept", n)
	}
}
