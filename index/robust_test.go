package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

func linked(path, to string, content byte) snapshot.Item {
	it := file(path, content)
	it.LinkTo = to
	if path != to {
		it.Content, it.Size = nil, 0
	}
	return it
}

func TestHardLinks(t *testing.T) {
	unmarked := file("old/first", 3) // as in archives of Borg 1.0
	all := []snapshot.Item{
		linked("z", "z", 1), linked("a", "z", 1), linked("d/m", "z", 1),
		linked("alone", "alone", 2),
		unmarked, linked("old/second", "old/first", 3),
		linked("orphan", "nowhere", 4), file("plain", 5),
	}
	x := open(t)
	nums := announce(t, x, info("1", "s", 1), info("2", "s", 2), info("3", "s", 3))
	add(t, x, nums["1"], all...)
	add(t, x, nums["3"], all...)
	added := add(t, x, nums["2"], all[2], all[0], all[1], all[3], all[4], all[5], all[6], all[7])
	if added.NewVersions != 0 || added.SkippedAll != 1 {
		t.Errorf("an equal snapshot, in another order, added %+v", added)
	}
	for _, num := range nums {
		ids := map[uint64]int{}
		for path, want := range map[string]struct {
			nlink   uint32
			content byte
		}{"z": {3, 1}, "a": {3, 1}, "d/m": {3, 1}, "alone": {1, 2}, "old/first": {2, 3}, "old/second": {2, 3}, "plain": {1, 5}} {
			e, err := x.Find(t.Context(), num, path)
			if err != nil {
				t.Fatal(err)
			}
			content, err := x.Content(t.Context(), e.Version)
			if err != nil || len(content) != 1 || content[0].ID[0] != want.content || e.Size != 7 || e.Nlink != want.nlink {
				t.Errorf("%s: %+v, content %v, %v", path, e, content, err)
			}
			if (e.LinkID != 0) != (want.nlink > 1) {
				t.Errorf("%s: link id %d", path, e.LinkID)
			}
			ids[e.LinkID]++
		}
		if len(ids) != 3 {
			t.Errorf("groups %v", ids)
		}
	}
}

func TestHostilePaths(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("1", "s", 1), info("2", "s", 2), info("3", "s", 3))
	bad := []snapshot.Item{
		file("/etc/passwd", 1), file("../up", 1), file("a/../../up", 1), file("a//b", 1), file("a/", 1), file("./a", 1),
		file("nul\x00", 1), file(strings.Repeat("n", 256), 1), file(strings.Repeat("d/", 20_000)+"x", 1),
		{Path: "typeless"},
	}
	twice := []snapshot.Item{
		file("ok", 1), file("ok", 2), // the same file twice
		file("x", 1), dir("x"), file("x/in", 1), // a file that is a directory as well
		file("y/in", 1), file("y", 1), // and one that must be
	}
	for _, h := range []string{"1", "3", "2"} {
		added := add(t, x, nums[h], append(slices.Clone(bad), twice...)...)
		if added.SkippedAll < int64(len(bad))+3 {
			t.Errorf("%s: skipped %d: %q", h, added.SkippedAll, added.Skipped)
		}
		if h != "1" && added.NewVersions > 0 {
			t.Errorf("%s: %d new versions", h, added.NewVersions)
		}
		if got := paths(t, x, nums[h], ""); !slices.Equal(got, []string{"", "ok", "x", "x/in", "y", "y/in"}) {
			t.Errorf("%s: tree %q", h, got)
		}
	}
}

// TestMiddleOfSame: a path that was another thing in between, and neighbours
// that already agree.
func TestMiddleConflict(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("1", "s", 1), info("2", "s", 2), info("3", "s", 3))
	add(t, x, nums["1"], file("x", 1))
	add(t, x, nums["3"], file("x", 3))
	added := add(t, x, nums["2"], file("x", 1), dir("x"), file("x/in", 1))
	if added.SkippedAll != 1 {
		t.Errorf("skipped %q", added.Skipped)
	}
	for h, want := range map[string][]string{"1": {"", "x"}, "2": {"", "x", "x/in"}, "3": {"", "x"}} {
		if got := paths(t, x, nums[h], ""); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", h, got, want)
		}
	}
}

// TestWideDirectory has more entries in one directory than are held at once.
func TestWideDirectory(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("1", "s", 1), info("2", "s", 2))
	const n = maxDirRows + 1000
	wide := func(changed int) iter.Seq2[*snapshot.Item, error] {
		return func(yield func(*snapshot.Item, error) bool) {
			for i := range n {
				it := file("w/"+strconv.Itoa(i), 1)
				if i == changed {
					it.Mtime++
				}
				if !yield(&it, nil) {
					return
				}
			}
		}
	}
	if _, err := x.Add(t.Context(), nums["1"], wide(-1)); err != nil {
		t.Fatal(err)
	}
	added, err := x.Add(t.Context(), nums["2"], wide(777))
	if err != nil || added.NewVersions != 1 || added.Items != n+2 {
		t.Fatalf("%+v, %v", added, err)
	}
	for c, err := range x.Changes(t.Context(), nums["1"], nums["2"]) {
		if err != nil || c.Path != "w/777" || c.Old == nil || c.New == nil {
			t.Fatalf("%+v, %v", c, err)
		}
	}
}

// TestOldVersionNumbers: who remembers an entry's number finds the entry after
// snapshots came and went around it.
func TestOldVersionNumbers(t *testing.T) {
	x := open(t)
	all := []snapshot.Info{info("1", "s", 1), info("2", "s", 2), info("3", "s", 3)}
	nums := announce(t, x, all...)
	add(t, x, nums["1"], file("f", 1))
	add(t, x, nums["3"], file("f", 1))
	before, err := x.Find(t.Context(), nums["1"], "f")
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, num, version int64) int64 {
		t.Helper()
		e, err := x.Stat(t.Context(), num, version)
		if err != nil || e.Mtime != before.Mtime || e.Name != "f" {
			t.Errorf("%s: %+v, %v", when, e, err)
		}
		return e.Version
	}
	add(t, x, nums["2"], file("f", 2)) // splits
	check("newer part", nums["3"], before.Version)
	older := check("older part", nums["1"], before.Version)
	announce(t, x, all[0], all[2]) // joins again
	check("after joining", nums["1"], older)
	check("after joining", nums["3"], before.Version)
	if content, err := x.Content(t.Context(), older); err != nil || len(content) != 1 {
		t.Errorf("content %v, %v", content, err)
	}
	if p, err := x.Path(t.Context(), before.Version); err != nil || p != "f" {
		t.Errorf("path %q, %v", p, err)
	}
	announce(t, x, all[0])
	if _, err := x.Stat(t.Context(), nums["3"], before.Version); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a snapshot that is gone: %v", err)
	}
	if _, err := x.List(t.Context(), nums["3"], 1, "", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of a snapshot that is gone: %v", err)
	}
}

func TestStreamErrorUndoesAll(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("1", "s", 1))
	broken := errors.New("broken off")
	_, err := x.Add(t.Context(), nums["1"], func(yield func(*snapshot.Item, error) bool) {
		it := linked("a", "a", 1)
		if yield(&it, nil) {
			yield(nil, broken)
		}
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := x.Root(t.Context(), nums["1"]); !errors.Is(err, ErrNotIndexed) {
		t.Fatal(err)
	}
	add(t, x, nums["1"], linked("a", "a", 1), linked("b", "a", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Add(ctx, nums["1"], nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestRenamedKeepsItsTree(t *testing.T) {
	x := open(t)
	i := info("1", "s", 1)
	nums := announce(t, x, i)
	add(t, x, nums["1"], file("f", 1))
	i.Name = "renamed"
	announce(t, x, i)
	s, err := x.Snapshot(t.Context(), nums["1"])
	if err != nil || s.Name != "renamed" || !s.Indexed {
		t.Fatalf("%+v, %v", s, err)
	}
}

// TestUnusableFile: whatever lies there is kept aside, said once, and replaced.
func TestUnusableFile(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"not sqlite": func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"newer": func(t *testing.T, path string) {
			x := openAt(t, path, nil)
			<-x.write.free
			c := x.write.get()
			if err := c.script("PRAGMA user_version = 999"); err != nil {
				t.Fatal(err)
			}
			x.write.put(c)
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"table missing": func(t *testing.T, path string) {
			x := openAt(t, path, nil)
			<-x.write.free
			c := x.write.get()
			if err := c.script("DROP TABLE version"); err != nil {
				t.Fatal(err)
			}
			x.write.put(c)
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"overwritten in use": func(t *testing.T, path string) {
			x := openAt(t, path, nil)
			nums := announce(t, x, info("1", "s", 1))
			if _, err := x.Add(t.Context(), nums["1"], tree(5000, 0)); err != nil {
				t.Fatal(err)
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 50 * 4096; i < len(b); i++ {
				b[i] = 0xa5
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			x = openAt(t, path, nil)
			for _, err = range x.Walk(t.Context(), nums["1"], "") {
				if err != nil {
					break
				}
			}
			if err == nil {
				t.Fatal("damage was not met")
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "index.db")
			spoil(t, path)
			var log bytes.Buffer
			x := openAt(t, path, slog.New(slog.NewTextHandler(&log, nil)))
			nums := announce(t, x, info("1", "s", 1))
			add(t, x, nums["1"], file("f", 1))
			if kept, err := filepath.Glob(path + ".broken-*"); err != nil || len(kept) == 0 {
				t.Errorf("kept %q, %v", kept, err)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("log %q", log.String())
			}
			fi, err := os.Stat(path)
			if err != nil || fi.Mode() != 0o600 {
				t.Errorf("mode %v, %v", fi.Mode(), err)
			}
		})
	}
}

// TestHelperProcess is the other process of the tests below.
func TestHelperProcess(t *testing.T) {
	path := os.Getenv("S4_INDEX_HELPER")
	if path == "" {
		t.Skip("runs in a process started by other tests")
	}
	x := openAt(t, path, nil)
	source := os.Getenv("S4_INDEX_SOURCE")
	if source == "edited" {
		fillEdited(t, x, func() { fmt.Println("begun") }) // to who kills it
		return
	}
	var infos []snapshot.Info
	for i := range 20 {
		infos = append(infos, info(fmt.Sprint(i), source, int64(i)))
		if err := x.Announce(t.Context(), source, infos); err != nil {
			t.Fatal(err)
		}
		known, err := x.Snapshots(t.Context(), source)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range known {
			if _, err := x.Add(t.Context(), s.Num, tree(2000, 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func helper(t *testing.T, path, source string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), "S4_INDEX_HELPER="+path, "S4_INDEX_SOURCE="+source, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if source == "edited" {
		if _, err := io.ReadFull(out, make([]byte, len("begun"))); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

// TestProcessesTogether: three processes write, this one reads, nobody hears
// of locks.
func TestProcessesTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	var cmds []*exec.Cmd
	for i := range 3 {
		cmds = append(cmds, helper(t, path, fmt.Sprint("source", i)))
	}
	x := openAt(t, path, nil)
	done := make(chan error, len(cmds))
	for _, c := range cmds {
		go func() { done <- c.Wait() }()
	}
	version, err := x.DataVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for running := len(cmds); running > 0; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running--
		default:
		}
		infos, err := x.Snapshots(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range infos {
			if s.Indexed {
				if n := len(paths(t, x, s.Num, "home/ann/project000/dir0003")); n != 51 {
					t.Fatalf("%d paths in %+v", n, s)
				}
				break
			}
		}
	}
	now, err := x.DataVersion(t.Context())
	if err != nil || now == version {
		t.Fatalf("data version %d, then %d, %v", version, now, err)
	}
}

// TestKilled: kill -9 while adding leaves snapshots that are whole or not there.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	whole := 0
	for i := range 8 {
		cmd := helper(t, path, "src")
		time.Sleep(time.Duration(20+13*i) * time.Millisecond) // any moment will do
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, as it should
		x, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		infos, err := x.Snapshots(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range infos {
			if !s.Indexed {
				continue
			}
			if n := len(paths(t, x, s.Num, "")); n != 2000+40+4 { // files, directories, their parents
				t.Fatalf("%s holds %d paths", s.Name, n)
			}
			whole++
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if kept, _ := filepath.Glob(path + ".broken-*"); len(kept) > 0 || whole == 0 {
		t.Fatalf("set aside %q, whole snapshots seen %d", kept, whole)
	}
}

// fillEdited adds snapshots of a tree that changes a little from one to the
// next: the newest first, the last two when all others are there.
func fillEdited(t *testing.T, x *Index, begun func()) {
	t.Helper()
	const snapshots = 8
	r := mrand.New(mrand.NewPCG(7, 7))
	var items []snapshot.Item
	for i := range 800 {
		items = append(items, file(fmt.Sprintf("d%d/e%d/f%d", i/500, i/50, i), byte(i)))
	}
	var infos []snapshot.Info
	var streams []*sectioned
	for i := range snapshots {
		streams = append(streams, newSectioned(items, nil))
		infos = append(infos, info(fmt.Sprint(i), "edited", int64(i)))
		items = slices.Clone(items)
		for range 8 {
			items[r.IntN(len(items))].Mtime++
			at := r.IntN(len(items))
			items = slices.Delete(items, at, at+1)
		}
	}
	begun()
	nums := announce(t, x, infos...)
	for _, i := range []int{5, 4, 3, 2, 1, 0, 7, 6} {
		if _, err := x.AddScan(t.Context(), nums[fmt.Sprint(i)], streams[i].scan); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledHundredTimes: whatever kill -9 left behind, the next run ends with
// the index that an undisturbed one makes.
func TestKilledHundredTimes(t *testing.T) {
	cmd := helper(t, filepath.Join(t.TempDir(), "index.db"), "edited")
	began := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	lasts := time.Since(began)
	undisturbed := open(t)
	fillEdited(t, undisturbed, func() {})
	want := rows(t, undisturbed)
	partly := 0
	path := ""
	for kills := range 100 {
		if path == "" {
			path = filepath.Join(t.TempDir(), "index.db")
		}
		cmd := helper(t, path, "edited")
		time.Sleep(mrand.N(lasts))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed, or done before
		x := openAt(t, path, nil)
		left := 0
		infos := mustSnapshots(t, x)
		for _, s := range infos {
			if !s.Indexed {
				left++
			}
		}
		if 0 < left && left < len(infos) {
			partly++
		}
		if left > 0 && kills%3 > 0 {
			continue // on to the next kill
		}
		fillEdited(t, x, func() {})
		if got := rows(t, x); !slices.Equal(got, want) {
			t.Fatalf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		checkNoOverlap(t, x)
		if kept, _ := filepath.Glob(path + ".broken-*"); len(kept) > 0 {
			t.Fatalf("set aside %q", kept)
		}
		path = ""
	}
	if partly < 5 {
		t.Errorf("only %d of 100 kills came while snapshots were being added", partly)
	}
	t.Logf("%d of 100 kills came while snapshots were being added", partly)
}

func FuzzCodec(f *testing.F) {
	e := snapshot.Entry{Mode: 0o100644, Size: 1, Mtime: -5, Ctime: 7, Xattrs: []snapshot.Xattr{{Name: "user.x", Value: []byte("y")}}, LinkID: 9, Nlink: 2}
	f.Add(appendMeta(nil, &e, 3), appendContent(nil, []snapshot.Extent{{Size: 3}}))
	f.Fuzz(func(t *testing.T, meta, content []byte) {
		var e snapshot.Entry
		if owner, err := decodeMeta(meta, &e); err == nil {
			var again snapshot.Entry
			if o, err := decodeMeta(appendMeta(nil, &e, owner), &again); err != nil || o != owner || again.Mtime != e.Mtime || again.Ctime != e.Ctime {
				t.Fatalf("%+v, %+v, %v", e, again, err)
			}
		}
		if extents, err := decodeContent(content); err == nil {
			if again, err := decodeContent(appendContent(nil, extents)); err != nil || !slices.Equal(again, extents) {
				t.Fatalf("%v, %v, %v", extents, again, err)
			}
		}
	})
}
