package fusefs

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestOpenNeedsNoContent(t *testing.T) {
	tree := newVolume(t)
	write(t, filepath.Join(tree, "file"), "data")
	h := newFakeHistory()
	h.add(t, tree, time.Unix(1_700_000_000, 0))
	latest := filepath.Join(mountLive(t, newVolume(t), h, nil), ".s4/history/latest")
	run(t, "find", latest, "-ls")
	f, err := os.Open(filepath.Join(latest, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := h.opens(); n != 0 {
		t.Errorf("content opened %d times without a read", n)
	}
	if data, err := io.ReadAll(f); err != nil || string(data) != "data" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestReadErrors(t *testing.T) {
	tree := newVolume(t)
	for _, name := range []string{"good", "broken", "hung"} {
		write(t, filepath.Join(tree, name), strings.Repeat(name, 100_000))
	}
	h := newFakeHistory()
	info := h.add(t, tree, time.Unix(1_700_000_000, 0))
	h.broken, h.hung = "broken", "hung"
	var log logBuffer
	mnt := mountLive(t, newVolume(t), h, func(o *Options) {
		o.ContentTimeout, o.Logger = 300*time.Millisecond, log.logger()
	})
	latest := filepath.Join(mnt, ".s4/history/latest")
	for _, name := range []string{"broken", "hung"} {
		began := time.Now()
		if _, err := os.ReadFile(filepath.Join(latest, name)); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if got := read(t, filepath.Join(latest, "good")); len(got) != 400_000 {
			t.Errorf("beside %s: %d bytes", name, len(got))
		}
	}
	for _, word := range []string{"snapshot=" + info.Dir, "name=broken", "name=hung", "offset=0", "in time", "cannot be reached"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("log does not say %q:\n%s", word, log.String())
		}
	}
}

func TestInterruptedRead(t *testing.T) {
	tree := newVolume(t)
	write(t, filepath.Join(tree, "hung"), "never")
	h := newFakeHistory()
	h.add(t, tree, time.Unix(1_700_000_000, 0))
	h.hung = "hung"
	latest := filepath.Join(mountLive(t, newVolume(t), h, nil), ".s4/history/latest")
	cmd := exec.CommandContext(t.Context(), "cat", filepath.Join(latest, "hung"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "cat reads", func() bool { return h.opens() > 0 })
	began := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("cat ended well")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("interrupting took %v", took)
	}
}

func TestParallelReaders(t *testing.T) {
	tree := newVolume(t)
	data := make([]byte, 3<<20)
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // reproducible on purpose
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	write(t, filepath.Join(tree, "file"), string(data))
	h := newFakeHistory()
	h.add(t, tree, time.Unix(1_700_000_000, 0))
	volume := newVolume(t)
	write(t, filepath.Join(volume, "file"), string(data))
	mnt := mountLive(t, volume, h, nil)
	var readers sync.WaitGroup
	for i := range 64 {
		path := filepath.Join(mnt, []string{"file", ".s4/history/latest/file"}[i%2])
		readers.Go(func() {
			f, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			buf := make([]byte, 100_000)
			for k := range 20 {
				off := (i*7919 + k*200_003) % (len(data) - len(buf))
				if _, err := f.ReadAt(buf, int64(off)); err != nil {
					t.Error(err)
				} else if !bytes.Equal(buf, data[off:off+len(buf)]) {
					t.Errorf("%s: wrong bytes at %d", path, off)
				}
			}
		})
	}
	for i := range 5 { // news meanwhile
		write(t, filepath.Join(tree, "n"), string(rune('a'+i)))
		h.add(t, tree, time.Unix(1_700_000_000+int64(i)+1, 0))
	}
	readers.Wait()
}

func TestNothingIsLeftBehind(t *testing.T) {
	needFUSE(t)
	tree := newVolume(t)
	h := newFakeHistory()
	h.add(t, tree, time.Unix(1_700_000_000, 0))
	live, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	mnt := t.TempDir()
	cycle := func() {
		s, err := Mount(mnt, Options{Live: live, History: h, FSName: "fusefs-test"})
		if err != nil {
			t.Fatal(err)
		}
		run(t, "find", mnt)
		run(t, "cp", "-r", mnt, filepath.Join(t.TempDir(), "copy"))
		if err := s.Unmount(); err != nil {
			t.Fatal(err)
		}
		s.Wait()
		if err := s.Unmount(); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	cycle() // what the runtime starts once is started now
	files := func() int { list, _ := os.ReadDir("/proc/self/fd"); return len(list) }
	goroutines, fds := runtime.NumGoroutine(), files()
	for range 5 {
		cycle()
	}
	eventually(t, 5*time.Second, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	if now := files(); now > fds {
		t.Errorf("%d files open, %d before", now, fds)
	}
}
