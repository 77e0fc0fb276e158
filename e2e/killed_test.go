package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMountKilled kills the mount's process while files are written: what was
// synced is there, nothing else changed, and s4 takes the dead mount away.
func TestMountKilled(t *testing.T) {
	t.Parallel()
	need(t, "rsync")
	v := newInhabited(t)
	elsewhere := filepath.Join(filepath.Dir(v.dir), "mnt")
	v.run("sh", "-c", `mkdir "$0" still; for i in $(seq 100); do seq $i >still/$i; done; ln still/1 still/link; cp -a still ../before`, elsewhere)
	v.run("s4", "push")
	for i, place := range []string{v.dir, elsewhere, v.dir, elsewhere} {
		args := []string{"s4", "mount"}
		if place != v.dir {
			args = append(args, place)
		}
		v.run(args...)
		dir := filepath.Join(place, fmt.Sprint("written", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		synced := writeUntilKilled(t, dir, v.daemon(place))
		// The next mount takes it away, or umount does.
		said := ""
		if i < 2 {
			said = v.run("sh", "-c", `cd / && s4 -C "$0" mount $1`, v.dir, strings.Join(args[2:], ""))
			checkSynced(t, dir, synced) // through the new mount
			v.umount(place)
		} else {
			said = v.umount(place)
		}
		if !strings.Contains(said, "lost its process") {
			t.Errorf("said %q", said)
		}
		checkSynced(t, filepath.Join(v.dir, fmt.Sprint("written", i)), synced)
	}
	if out := v.run("rsync", "-naicHAX", "--delete", v.dir+"/still/", filepath.Dir(v.dir)+"/before/"); out != "" {
		t.Errorf("changed: %s", out)
	}
	entries, err := os.ReadDir(v.dir)
	if err != nil || len(entries) != 6 { // .s4, still, written0 to 3
		t.Errorf("in the volume: %v, %v", entries, err)
	}
	if out := v.run("s4", "status"); strings.Contains(out, "still") {
		t.Errorf("status: %s", out)
	}
	v.run("s4", "push")
}

const killedWriters, recordSize = 4, 1000

// record is what is written as number i of a file.
func record(worker, i int) []byte {
	r := make([]byte, recordSize)
	for at := 0; at < len(r); at += 8 {
		binary.LittleEndian.PutUint64(r[at:], uint64(worker)<<32|uint64(i))
	}
	return r
}

// writeUntilKilled writes and syncs records, kills the mount amid it, and tells how many records of each file were synced.
func writeUntilKilled(t *testing.T, dir string, pid int) (synced [killedWriters]int64) {
	t.Helper()
	var count [killedWriters]atomic.Int64
	var writers sync.WaitGroup
	for worker := range count {
		writers.Go(func() {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(worker)))
			for i := 0; err == nil; i++ {
				if _, err = f.Write(record(worker, i)); err == nil {
					err = f.Sync()
				}
				if err == nil {
					count[worker].Add(1)
				}
			}
			f.Close()
			if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EIO) {
				t.Errorf("writer %d: %v", worker, err)
			}
		})
	}
	eventually(t, 20*time.Second, "each wrote something", func() bool {
		for i := range count {
			if count[i].Load() < 20 {
				return false
			}
		}
		return true
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the dead mount shows", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, unix.ENOTCONN)
	})
	writers.Wait() // each syncs, and is told
	for i := range count {
		synced[i] = count[i].Load()
	}
	return synced
}

// checkSynced wants in each file what was synced; more may be there.
func checkSynced(t *testing.T, dir string, synced [killedWriters]int64) {
	t.Helper()
	for worker, n := range synced {
		data, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(worker)))
		if err != nil || int64(len(data)) < n*recordSize {
			t.Errorf("file %d has %d bytes, %d were synced: %v", worker, len(data), n*recordSize, err)
			continue
		}
		for i := range int(n) {
			if !bytes.Equal(data[i*recordSize:(i+1)*recordSize], record(worker, i)) {
				t.Errorf("file %d: record %d of %d differs", worker, i, n)
				break
			}
		}
	}
}
