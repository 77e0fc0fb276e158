package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// deleteSome deletes objects by their number, and commits.
func deleteSome(w *Writer, from, to int, which func(n int) bool) error {
	for n := from; n < to; n++ {
		if which(n) {
			id, _ := object(n)
			if _, err := w.Delete(context.Background(), id); err != nil {
				return errors.Join(err, w.Rollback())
			}
		}
	}
	return w.Commit(context.Background())
}

func odd(n int) bool { return n%2 == 1 }

// bytesOf is how long all segments are.
func bytesOf(t *testing.T, dir string) (sum int64) {
	t.Helper()
	paths, err := filepath.Glob(dir + "/data/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	return sum
}

// copyRepository gives another one of the same content.
func copyRepository(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// replayed gives the index that borg makes of the segments alone.
func replayed(t *testing.T, dir string) map[[32]byte]place {
	t.Helper()
	dir = copyRepository(t, dir)
	for _, pattern := range []string{"index.*", "hints.*", "integrity.*"} {
		paths, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, p := range paths {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	borg(t, "list", dir)
	return places(t, dir)
}

// TestDeleteAndCompact: what is deleted is gone for us, for borg, and for whoever has
// to replay everything; what is not deleted stays; and a repository that was
// compacted here is as small as one that borg compacted.
func TestDeleteAndCompact(t *testing.T) {
	dir := newRepository(t)
	borg(t, "config", dir, "max_segment_size", "50K")
	const n = 198
	w := mustBegin(t, dir)
	mustPut(t, w, 0, n)
	putManifest(t, w)
	mustCommit(t, w)
	w = mustBegin(t, dir)
	missing, _ := object(n)
	if _, err := w.Delete(t.Context(), missing); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what is not there was deleted: %v", err)
	}
	id, data := object(7)
	if size, err := w.Delete(t.Context(), id); err != nil || size != int64(len(data)+putHeaderSize) {
		t.Fatalf("deleted %d bytes of %d: %v", size, len(data), err)
	}
	if w.Has(id) {
		t.Error("what was deleted is there")
	}
	if _, err := w.Delete(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted twice: %v", err)
	}
	mustPut(t, w, 7, 8) // and there again
	// The first third goes, and every second of the rest: some segments are empty
	// then, some sparse.
	if err := deleteSome(w, 0, n, func(k int) bool { return k < n/3 || odd(k) }); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		if got := holds(t, dir, 0, n); got != n/3 {
			t.Fatalf("%s: %d objects are there, want %d", when, got, n/3)
		}
		if own, all := places(t, dir), replayed(t, dir); !maps.Equal(own, all) {
			t.Fatalf("%s: %d objects in our index, %d when borg replays", when, len(own), len(all))
		}
	}
	check("deleted")
	before := bytesOf(t, dir)
	theirs := copyRepository(t, dir)
	borg(t, "compact", theirs)

	freed, err := mustBegin(t, dir).Compact(t.Context(), 0.1)
	if err != nil {
		t.Fatal(err)
	}
	check("compacted")
	after := bytesOf(t, dir)
	if before-after != freed || after > before*2/3 {
		t.Errorf("%d bytes became %d, and %d were freed", before, after, freed)
	}
	if other := bytesOf(t, theirs); after > other+100 || after < other-100 {
		t.Errorf("%d bytes are left, borg leaves %d", after, other)
	}
	_, ours := hints(t, dir)
	_, others := hints(t, theirs)
	if ours.quotaUse != others.quotaUse {
		t.Errorf("%d bytes count for the quota, for borg %d", ours.quotaUse, others.quotaUse)
	}
	if !bytes.Equal(ours.shadow, emptyMap[:]) {
		t.Errorf("the shadow index still has %x", ours.shadow)
	}
	borg(t, "check", "--repository-only", dir)

	// Again there is nothing to do but for the last commit.
	if freed, err = mustBegin(t, dir).Compact(t.Context(), 0.1); err != nil || freed != 0 {
		t.Errorf("%d bytes freed again, %v", freed, err)
	}
	w = mustBegin(t, dir)
	mustPut(t, w, 0, 5)
	putManifest(t, w)
	mustCommit(t, w)
	borg(t, "compact", "--threshold", "0", dir)
	borg(t, "check", "--repository-only", dir)
	if got := holds(t, dir, 0, n); got != n/3+5 {
		t.Errorf("%d objects after borg went on", got)
	}
}

// TestDeleteIsKept: a DELETE stays as long as a PUT before it does, also where the
// hints that tell of it were lost, and where borg, which then does not know, made new
// ones.
func TestDeleteIsKept(t *testing.T) {
	for _, c := range []struct {
		name     string
		lost     []string
		replayed bool
	}{{"known", nil, false}, {"hints lost", []string{"hints.*"}, false}, {"replayed by borg", []string{"hints.*", "index.*"}, true}} {
		t.Run(c.name, func(t *testing.T) {
			dir := newRepository(t)
			borg(t, "config", dir, "max_segment_size", "50K")
			w := mustBegin(t, dir)
			mustPut(t, w, 0, 200)
			putManifest(t, w)
			mustCommit(t, w)
			// One of each segment: none of these is worth compacting, but the one with
			// the DELETEs alone is.
			w = mustBegin(t, dir)
			if err := deleteSome(w, 0, 200, func(n int) bool { return n%40 == 0 }); err != nil {
				t.Fatal(err)
			}
			for _, pattern := range c.lost {
				paths, _ := filepath.Glob(filepath.Join(dir, pattern))
				for _, p := range paths {
					if err := os.Remove(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.replayed {
				borg(t, "list", dir)
			}
			if _, err := mustBegin(t, dir).Compact(t.Context(), 0.5); err != nil {
				t.Fatal(err)
			}
			if own, all := places(t, dir), replayed(t, dir); !maps.Equal(own, all) || len(all) != 195+1 {
				t.Fatalf("%d objects in our index, %d when borg replays", len(own), len(all))
			}
		})
	}
}

// TestCompactDamaged: an object that is damaged is not copied as if it were sound,
// and nothing is removed.
func TestCompactDamaged(t *testing.T) {
	dir := newRepository(t)
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 50)
	putManifest(t, w)
	mustCommit(t, w)
	w = mustBegin(t, dir)
	if err := deleteSome(w, 0, 50, odd); err != nil {
		t.Fatal(err)
	}
	id, _ := object(20)
	p := places(t, dir)[id]
	path := segmentPath(dir, 1000, int64(p.segment))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[p.offset+putHeaderSize+5] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	if _, err := mustBegin(t, dir).Compact(t.Context(), 0.1); !errors.Is(err, fault.ErrIntegrity) {
		t.Errorf("compacted: %v", err)
	}
	if after := files(t, dir); !maps.Equal(before, after) {
		t.Error("files have changed")
	}
}

// TestCompactAppendOnly: where only appending is allowed, nothing is removed.
func TestCompactAppendOnly(t *testing.T) {
	dir := newRepository(t)
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 20)
	putManifest(t, w)
	mustCommit(t, w)
	borg(t, "config", dir, "append_only", "1")
	w = mustBegin(t, dir)
	if err := deleteSome(w, 0, 20, odd); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	if freed, err := mustBegin(t, dir).Compact(t.Context(), 0.1); err != nil || freed != 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if after := files(t, dir); !maps.Equal(before, after) {
		t.Error("files have changed")
	}
}

// compactUntilKilled is like writeUntilKilled, but each transaction is followed by one
// that deletes half of what the one before it added, and by a compaction.
const compactUntilKilled = "compact-until-killed"

func runCompactor(dir, from string) error {
	r, err := Open(context.Background(), dir, &buffer.Pool{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(from)
	step := func(what string, do func() error) {
		if err == nil {
			fmt.Println("begin", what, n)
		}
		if err == nil {
			err = do()
		}
		if err == nil {
			fmt.Println("end", what, n)
		}
	}
	for ; err == nil; n++ {
		step("put", func() error { return writeOne(r, n) })
		if n == 0 {
			continue
		}
		step("delete", func() error { return deleteOdd(r, n-1) })
		step("compact", func() error {
			w, err := r.Begin(context.Background(), time.Minute, os.LookupEnv)
			if err == nil {
				_, err = w.Compact(context.Background(), 0.1)
			}
			return err
		})
	}
	return err
}

func deleteOdd(r *Repository, n int) error {
	w, err := r.Begin(context.Background(), time.Minute, os.LookupEnv)
	if err != nil {
		return err
	}
	return deleteSome(w, n*crashObjects, (n+1)*crashObjects, func(k int) bool {
		id, _ := object(k)
		return odd(k) && w.Has(id)
	})
}

// TestKilledCompaction kills who deletes and compacts at any moment, over and over,
// while somebody reads: what was not deleted can be read all the time, what was
// deleted stays so, and borg has nothing to find.
func TestKilledCompaction(t *testing.T) {
	dir := newRepository(t)
	borg(t, "config", dir, "max_segment_size", "50K")
	reader := mustOpen(t, dir, quiet)
	next, kills := 0, 8
	if os.Getenv("S4_LONG") != "" {
		kills = 100
	}
	seen := map[string]int{}
	for round := range kills {
		cmd := exec.Command(os.Args[0], compactUntilKilled, dir, strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := map[string]int{"put": next - 1, "delete": next - 1}
		under := ""
		var die *time.Timer
		for words := bufio.NewScanner(out); words.Scan(); {
			fields := strings.Fields(words.Text())
			n, err := strconv.Atoi(fields[2])
			if err != nil {
				t.Fatal(words.Text())
			}
			if under = fields[1]; fields[0] == "end" {
				last[fields[1]], under = n, ""
				if fields[1] == "delete" {
					last["delete"] = n - 1
				}
			}
			if die == nil && fields[1] != "put" {
				die = time.AfterFunc(rand.N(100*time.Millisecond), func() { _ = cmd.Process.Kill() })
			}
			if n > 1 && fields[1] != "put" { // somebody reads beside it
				id, _ := object(rand.N(n*crashObjects/2) * 2)
				b, err := reader.Get(t.Context(), id, 0)
				if err != nil {
					t.Fatalf("round %d: read beside %s: %v", round, fields, err)
				}
				b.Release()
			}
		}
		_ = cmd.Wait()
		seen[under]++
		if die == nil {
			t.Fatal("it never began")
		}
		even, odds := 0, 0
		r := mustOpen(t, dir, quiet)
		for k := range (last["put"] + 2) * crashObjects {
			id, data := object(k)
			b, err := r.Get(t.Context(), id, 0)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil || !bytes.Equal(b.Data, data) {
				t.Fatalf("round %d: object %d: %v", round, k, err)
			}
			b.Release()
			if odd(k) {
				odds++
			} else {
				even++
			}
		}
		const half = crashObjects / 2
		put := even / half // transactions that are there
		if even%half != 0 || put-1 < last["put"] || put-1 > last["put"]+1 {
			t.Fatalf("round %d, killed in %q: %d even objects after %d transactions", round, under, even, last["put"]+1)
		}
		deleted := put - odds/half
		if odds%half != 0 || deleted-1 < last["delete"] || deleted-1 > last["delete"]+1 {
			t.Fatalf("round %d, killed in %q: %d odd objects; %d transactions, of %d half is deleted", round, under, odds, put, last["delete"]+1)
		}
		// The next run begins behind what is there, when what was left is done.
		if err := deleteOdd(r, put-1); err != nil {
			t.Fatal(err)
		}
		if put > 1 {
			if err := deleteOdd(r, put-2); err != nil {
				t.Fatal(err)
			}
		}
		if own, all := places(t, dir), replayed(t, dir); round%4 == 0 && !maps.Equal(own, all) {
			t.Fatalf("round %d, killed in %q: %d objects in our index, %d when borg replays", round, under, len(own), len(all))
		}
		next = put
	}
	borg(t, "check", "--repository-only", dir)
	t.Logf("%d transactions; killed in %v", next, seen)
}
