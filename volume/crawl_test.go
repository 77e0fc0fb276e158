package volume

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// wide is a source of very many snapshots of one small tree, in which one file
// changes from each to the next.
type wide struct {
	snapshots, dirs, files int // files of each directory

	scans, opens atomic.Int32
}

func (*wide) ID() string { return "wide" }

func (*wide) Local() bool { return true }

func (w *wide) Snapshots(context.Context) (all []snapshot.Info, err error) {
	for n := range w.snapshots {
		id := fmt.Sprint(n)
		all = append(all, snapshot.Info{
			ID: id, Handle: id, Name: id, Source: w.ID(), Series: "tree",
			Time: time.Date(2026, 1, 1, n, 0, 0, 0, time.UTC),
		})
	}
	return all, nil
}

func (w *wide) Scan(_ context.Context, s snapshot.Info, _ []snapshot.Section) snapshot.Scanner {
	w.scans.Add(1)
	n, _ := strconv.Atoi(s.Handle)
	return snapshot.ScanItems(w.items(n))
}

func (w *wide) items(n int) iter.Seq2[*snapshot.Item, error] {
	return func(yield func(*snapshot.Item, error) bool) {
		for d := range w.dirs {
			for f := range w.files {
				it := snapshot.Item{Path: fmt.Sprintf("d%d/f%d", d, f), Entry: snapshot.Entry{Mode: unix.S_IFREG | 0o644, Size: 1000}}
				if changed := d*w.files + f; n >= changed { // once, in snapshot number changed
					it.Mtime = 1
				}
				if !yield(&it, nil) {
					return
				}
			}
		}
	}
}

func (w *wide) Open(context.Context, []snapshot.Extent) (snapshot.File, error) {
	w.opens.Add(1)
	return nil, errors.New("nobody is to read")
}

// Whoever crawls a history of a thousand snapshots is served by the index
// alone, and leaves nothing behind in this process. A crawl of what lies around
// the history stays out of it.
func TestCrawlers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root here")
	}
	w := &wide{snapshots: 1000, dirs: 5, files: 10}
	x, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "index.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	h := history.New(history.Options{Index: x, Sources: []snapshot.Source{w}})
	defer h.Close()
	if err := errors.Join(h.Refresh(t.Context()), h.Fill(t.Context(), history.FillOptions{})); err != nil {
		t.Fatal(err)
	}
	mnt := t.TempDir()
	server, err := fusefs.Mount(mnt, fusefs.Options{History: h, Follow: true, FSName: "crawled"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Unmount(); err != nil {
			t.Error(err, fusefs.Unmount(mnt, true))
		}
	}()
	scans := w.scans.Load()
	tree := 1 + w.dirs + w.dirs*w.files // and its directories
	past := filepath.Join(mnt, ".s4/history") + "/"
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	crawl := func(command string) (lines int) {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return strings.Count(string(out), "\n")
	}
	crawl("find " + past + "2026-01-01*")
	before := inUse()
	goroutines := runtime.NumGoroutine()
	for command, want := range map[string]int{
		"find " + past + " -mindepth 1 ! -name latest":  w.snapshots * tree,
		"find " + past + " -type f -newermt 1960-01-01": w.snapshots * w.dirs * w.files,
		"du -s " + past: 1,
	} {
		if lines := crawl(command); lines != want {
			t.Errorf("%s: %d lines instead of %d", command, lines, want)
		}
		after := inUse()
		for range 100 { // the kernel tells by and by what it forgets
			if after <= before+8<<20 {
				break
			}
			time.Sleep(100 * time.Millisecond)
			after = inUse()
		}
		if after > before+8<<20 {
			t.Errorf("%s: %d MiB in use, %d before", command, after>>20, before>>20)
		}
	}
	if now := runtime.NumGoroutine(); now > goroutines+20 {
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
	out, err := exec.CommandContext(t.Context(), "find", mnt).Output()
	if n := strings.Count(string(out), "\n"); err != nil || n > tree+10 {
		t.Errorf("a crawl of the mount meets %d files, %v", n, err)
	}
	if w.opens.Load() != 0 || w.scans.Load() != scans {
		t.Errorf("%d files were opened, %d snapshots read again", w.opens.Load(), w.scans.Load()-scans)
	}
}
