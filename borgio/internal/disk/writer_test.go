package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

func needBorg(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
	t.Setenv("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
}

func borg(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("borg", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("borg %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// initialised is what borg init makes. Borg takes longer to start than most tests
// here take, so it is made once.
var initialised = sync.OnceValues(func() (fstest.MapFS, error) {
	dir, err := os.MkdirTemp("", "initialised")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("borg", "init", "-e", "none", dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("borg init: %w: %s", err, out)
	}
	all := fstest.MapFS{}
	return all, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		file := &fstest.MapFile{Mode: st.Mode()}
		if !d.IsDir() {
			file.Data, err = os.ReadFile(path)
		}
		all[path[len(dir)+1:]] = file
		return err
	})
})

// newRepository gives one that borg made.
func newRepository(t testing.TB) string {
	t.Helper()
	needBorg(t)
	made, err := initialised()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "repo")
	err = os.CopyFS(dir, made)
	for name, file := range made {
		err = errors.Join(err, os.Chmod(filepath.Join(dir, name), file.Mode))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustBegin(t testing.TB, dir string) *Writer {
	t.Helper()
	w, err := mustOpen(t, dir, quiet).Begin(context.Background(), 0, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Rollback(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// object makes an object by its number: the longer the higher.
func object(n int) (id [32]byte, data []byte) {
	binary.LittleEndian.PutUint64(id[:], rand.New(rand.NewPCG(uint64(n), 1)).Uint64())
	id[31] = 1
	data = make([]byte, 100+n*37%5000)
	rand.NewChaCha8(id).Read(data)
	return id, data
}

func mustPut(t testing.TB, w *Writer, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		id, data := object(n)
		if err := w.Put(context.Background(), id, data); err != nil {
			t.Fatal(err)
		}
	}
}

// putManifest puts the manifest that is there once more.
func putManifest(t testing.TB, w *Writer) {
	t.Helper()
	b, err := w.Get(context.Background(), manifest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if err := w.Put(context.Background(), manifest, b.Data); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// holds tells which of some objects are there as they were put.
func holds(t testing.TB, dir string, from, to int) (found int) {
	t.Helper()
	r := mustOpen(t, dir, quiet)
	for n := from; n < to; n++ {
		id, data := object(n)
		b, err := r.Get(context.Background(), id, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatalf("object %d: %v", n, err)
		}
		if !bytes.Equal(b.Data, data) {
			t.Errorf("object %d differs", n)
		}
		b.Release()
		found++
	}
	return found
}

// files gives all files of a repository with their content's hashes.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			all[strings.TrimPrefix(path, dir)] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hints gives the ledger of the newest index.
func hints(t testing.TB, dir string) (n int64, l *ledger) {
	t.Helper()
	nums, err := numbered(t.Context(), dir, "hints.")
	if err != nil || len(nums) != 1 {
		t.Fatal(nums, err)
	}
	l = newLedger()
	if err := l.load(dir, nums[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return nums[0], l
}

// places gives what the newest index says.
func places(t testing.TB, dir string) map[[32]byte]place {
	t.Helper()
	paths, err := filepath.Glob(dir + "/index.*")
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	x, err := parseIndex(data)
	if err != nil {
		t.Fatal(err)
	}
	all := map[[32]byte]place{}
	x.each(func(id [32]byte, p place) { all[id] = p })
	if x.entries() != len(all) {
		t.Errorf("the header tells of %d entries, there are %d", x.entries(), len(all))
	}
	return all
}

// TestCommit: borg finds what we put, and its own replay of our segments gives the
// index and the hints that we wrote.
func TestCommit(t *testing.T) {
	dir := newRepository(t)
	for round := range 3 {
		w := mustBegin(t, dir)
		mustPut(t, w, 1000*round, 1000*(round+1))
		id, data := object(1000 * round)
		if !w.Has(id) || w.StoredSize(id) != uint32(len(data)) || w.Has([32]byte{9}) {
			t.Error("what was just put is not known")
		}
		if id, data = object(0); w.StoredSize(id) != uint32(len(data)) {
			t.Error("what was put before is not known")
		}
		putManifest(t, w)
		mustCommit(t, w)
		if got := holds(t, dir, 0, 1000*(round+1)); got != 1000*(round+1) {
			t.Fatalf("%d objects are there", got)
		}
	}
	id, data := object(1234)
	out := filepath.Join(t.TempDir(), "object")
	borg(t, "debug", "get-obj", dir, fmt.Sprintf("%x", id), out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, data) {
		t.Errorf("borg gives another object, %v", err)
	}
	borg(t, "check", "--repository-only", dir)

	// Entries of an index that borg need not replay, and those that it makes itself.
	_, ours := hints(t, dir)
	index := places(t, dir)
	for _, pattern := range []string{"index.*", "hints.*", "integrity.*"} {
		paths, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	borg(t, "list", dir)
	if !maps.Equal(index, places(t, dir)) {
		t.Error("borg's replay gives another index")
	}
	_, theirs := hints(t, dir)
	if !maps.Equal(ours.segments, theirs.segments) || ours.quotaUse != theirs.quotaUse || !bytes.Equal(ours.shadow, theirs.shadow) {
		t.Errorf("hints: %v, borg's: %v", ours, theirs)
	}
	for n := range theirs.compact {
		if ours.compact[n] == 0 {
			t.Errorf("nothing could be freed in segment %d, says our index", n)
		}
	}

	// Borg goes on where we stopped, and we where it did.
	tree := t.TempDir()
	if err := os.WriteFile(tree+"/file", data, 0o600); err != nil {
		t.Fatal(err)
	}
	borg(t, "create", dir+"::one", tree)
	w := mustBegin(t, dir)
	mustPut(t, w, 3000, 3010)
	putManifest(t, w)
	mustCommit(t, w)
	borg(t, "compact", "--threshold", "0", dir)
	borg(t, "create", dir+"::two", tree)
	if list := borg(t, "list", "--short", dir); list != "one\ntwo\n" {
		t.Errorf("archives: %q", list)
	}
	borg(t, "check", "--repository-only", dir)
	if got := holds(t, dir, 0, 3010); got != 3010 {
		t.Errorf("%d objects are left", got)
	}
}

// TestStale: an index that was left stale, and one that is gone, are made good by
// borg, and by our next commit with the same hints as borg would write.
func TestStale(t *testing.T) {
	dir := newRepository(t)
	stale := t.TempDir()
	move := func(from, to string) {
		t.Helper()
		for _, pattern := range []string{"index.*", "hints.*", "integrity.*"} {
			paths, _ := filepath.Glob(filepath.Join(from, pattern))
			for _, path := range paths {
				if err := exec.Command("mv", "--", path, to).Run(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	copyAux := func() {
		t.Helper()
		if err := os.CopyFS(stale, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	copyAux()
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 500)
	putManifest(t, w)
	mustCommit(t, w)
	move(dir, t.TempDir())
	move(stale, dir) // as if the first transaction had left it stale

	other := filepath.Join(t.TempDir(), "other")
	if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	borg(t, "list", other)
	_, theirs := hints(t, other)

	w = mustBegin(t, dir)
	if w.view.tails == 0 {
		t.Error("the index is not stale")
	}
	if !maps.Equal(theirs.segments, w.ledger.segments) || !maps.Equal(theirs.compact, w.ledger.compact) || theirs.quotaUse != w.ledger.quotaUse {
		t.Errorf("hints %v, borg's %v", w.ledger, theirs)
	}
	mustPut(t, w, 500, 600)
	putManifest(t, w)
	mustCommit(t, w)
	borg(t, "check", "--repository-only", dir)

	move(dir, t.TempDir())
	w = mustBegin(t, dir)
	mustPut(t, w, 600, 700)
	mustCommit(t, w)
	borg(t, "check", "--repository-only", dir)
	if got := holds(t, dir, 0, 700); got != 700 || len(places(t, dir)) != 701 {
		t.Errorf("%d objects, %d in the index", got, len(places(t, dir)))
	}
}

// TestWorthAnIndex: a large index is not written for each small commit, and yet not
// left for long.
func TestWorthAnIndex(t *testing.T) {
	for _, c := range []struct {
		size, tail, tails int64
		want              bool
	}{
		{1 << 20, 100, 3, true},
		{100 << 20, 1 << 20, 3, false},
		{100 << 20, 20 << 20, 3, true},
		{100 << 20, 1 << 20, 100, true},
	} {
		if got := worthIndex(c.size, c.tail, c.tails); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestSegments: no segment is longer than the configuration allows, the manifest and
// the commit have one for themselves, and all have the modes of borg's own.
func TestSegments(t *testing.T) {
	dir := newRepository(t)
	borg(t, "config", dir, "max_segment_size", "100K")
	borg(t, "config", dir, "segments_per_dir", "7")
	if err := os.Rename(dir+"/data/0", dir+"/data/x"); err != nil { // other numbers, other directories
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/data/0", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"0", "1"} {
		if err := os.Rename(dir+"/data/x/"+n, dir+"/data/0/"+n); err != nil {
			t.Fatal(err)
		}
	}
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 1000)
	putManifest(t, w)
	mustCommit(t, w)
	segments, err := segmentsAbove(t.Context(), dir, 7, 1, 1<<30)
	if err != nil || len(segments) < 20 {
		t.Fatal(segments, err)
	}
	for i, n := range segments {
		st, err := os.Stat(segmentPath(dir, 7, n))
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > 100_000 || st.Mode().Perm() != 0o600 {
			t.Errorf("segment %d has %d bytes and mode %v", n, st.Size(), st.Mode())
		}
		if last := i == len(segments)-1; last != (st.Size() == 17) {
			t.Errorf("segment %d has %d bytes", n, st.Size())
		}
	}
	p := places(t, dir)[manifest]
	if p.offset != 8 || int64(p.segment) != segments[len(segments)-2] {
		t.Errorf("the manifest is at %v", p)
	}
	borg(t, "check", "--repository-only", dir)
}

// TestReplaced: an object that is put again takes the other's place, and borg frees
// what the other took.
func TestReplaced(t *testing.T) {
	dir := newRepository(t)
	id, _ := object(1)
	for _, text := range []string{"first", "the second", "third"} {
		w := mustBegin(t, dir)
		for _, twice := range []string{"draft of ", ""} {
			if err := w.Put(t.Context(), id, []byte(twice+text)); err != nil {
				t.Fatal(err)
			}
		}
		mustCommit(t, w)
		if len(places(t, dir)) != 2 {
			t.Errorf("the index has %d entries", len(places(t, dir)))
		}
	}
	borg(t, "compact", "--threshold", "0", dir)
	borg(t, "check", "--repository-only", dir)
	b, err := mustOpen(t, dir, quiet).Get(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if string(b.Data) != "third" {
		t.Errorf("it is %q", b.Data)
	}
	size := 0
	paths, _ := filepath.Glob(dir + "/data/0/*")
	for _, path := range paths {
		data, _ := os.ReadFile(path)
		size += len(data)
		if bytes.Contains(data, []byte("second")) {
			t.Errorf("%s still holds what was replaced", path)
		}
	}
}

// TestRollback: a transaction that is given up, and one that died, leave nothing.
func TestRollback(t *testing.T) {
	dir := newRepository(t)
	before := files(t, dir)
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 1000)
	putManifest(t, w)
	if err := w.Rollback(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, files(t, dir)) {
		t.Errorf("%v became %v", before, files(t, dir))
	}
	if id, data := object(1); w.Put(t.Context(), id, data) == nil || w.Commit(t.Context()) == nil {
		t.Error("a transaction that is over goes on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	w = mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	cancel()
	if err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	w = mustBegin(t, dir) // nothing in it is nothing done
	mustCommit(t, w)
	if !maps.Equal(before, files(t, dir)) {
		t.Errorf("%v became %v", before, files(t, dir))
	}
	// What a writer leaves that dies before its commit.
	for n := 2; n < 5; n++ {
		if err := os.WriteFile(fmt.Sprint(dir, "/data/0/", n), []byte("BORG_SEGxx"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w = mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	mustCommit(t, w)
	if _, err := os.Stat(dir + "/data/0/4"); err == nil {
		t.Error("an uncommitted segment is left")
	}
	if got := holds(t, dir, 0, 1000); got != 10 {
		t.Errorf("%d objects", got)
	}
	borg(t, "check", "--repository-only", dir)
}

// TestNeedsRepair: a repository whose last transaction was lost is not written to.
func TestNeedsRepair(t *testing.T) {
	for name, harm := range map[string]func(dir string) error{
		"commit is lost": func(dir string) error { return os.Truncate(dir+"/data/0/1", 10) },
		"segment is broken": func(dir string) error {
			return errors.Join(os.Truncate(dir+"/data/0/0", 20), os.Remove(dir+"/index.1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newRepository(t)
			if err := harm(dir); err != nil {
				t.Fatal(err)
			}
			before := files(t, dir)
			w, err := mustOpen(t, dir, quiet).Begin(t.Context(), 0, os.LookupEnv)
			if !errors.Is(err, fault.ErrIntegrity) {
				t.Errorf("got %v, %v", w, err)
			}
			if !maps.Equal(before, files(t, dir)) {
				t.Error("something was written")
			}
		})
	}
}

// TestLockBroken: who loses the lock neither writes nor commits any more, and removes
// nothing that may be another's.
func TestLockBroken(t *testing.T) {
	dir := newRepository(t)
	w, err := mustOpen(t, dir, quiet).Begin(t.Context(), 0, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, w, 0, 10)
	borg(t, "break-lock", dir)
	next := mustBegin(t, dir)
	mustPut(t, next, 10, 20)
	if err := w.Commit(t.Context()); !errors.Is(err, fault.ErrLockLost) {
		t.Errorf("got %v", err)
	}
	mustCommit(t, next)
	if got := holds(t, dir, 0, 20); got != 10 {
		t.Errorf("%d objects", got)
	}
	borg(t, "check", "--repository-only", dir)
}

// TestTwoWriters: they wait for each other, and lose nothing.
func TestTwoWriters(t *testing.T) {
	dir := newRepository(t)
	errs := make(chan error)
	const rounds, each = 5, 20
	for who := range 2 {
		r := mustOpen(t, dir, quiet)
		go func() {
			var err error
			for round := 0; round < rounds && err == nil; round++ {
				var w *Writer
				if w, err = r.Begin(context.Background(), time.Minute, os.LookupEnv); err != nil {
					break
				}
				from := (2*round + who) * each
				for n := from; n < from+each && err == nil; n++ {
					id, data := object(n)
					err = w.Put(context.Background(), id, data)
				}
				err = errors.Join(err, w.Commit(context.Background()))
			}
			errs <- err
		}()
	}
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Fatal(err)
	}
	if got := holds(t, dir, 0, 2*rounds*each); got != 2*rounds*each {
		t.Errorf("%d objects", got)
	}
	borg(t, "check", "--repository-only", dir)
}

// TestQuota: what would go over the quota is refused, and nothing of it is left. Borg
// counts alike.
func TestQuota(t *testing.T) {
	dir := newRepository(t)
	conf, err := os.ReadFile(dir + "/config")
	if err != nil {
		t.Fatal(err)
	}
	conf = bytes.Replace(conf, []byte("storage_quota = 0"), []byte("storage_quota = 100K"), 1) // less than borg config lets
	if err := os.WriteFile(dir+"/config", conf, 0o600); err != nil {
		t.Fatal(err)
	}
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	mustCommit(t, w)
	before := files(t, dir)
	w = mustBegin(t, dir)
	for n := 10; err == nil && n < 1000; n++ {
		id, data := object(n)
		err = w.Put(t.Context(), id, data)
	}
	if !errors.Is(err, fault.ErrQuota) || !errors.Is(w.Commit(t.Context()), fault.ErrQuota) {
		t.Errorf("got %v", err)
	}
	if !maps.Equal(before, files(t, dir)) {
		t.Error("something is left")
	}
	_, ours := hints(t, dir)
	tree := t.TempDir()
	borg(t, "create", dir+"::a", tree)
	_, after := hints(t, dir)
	if after.quotaUse <= ours.quotaUse || ours.quotaUse < 10*100 {
		t.Errorf("use was %d, is %d", ours.quotaUse, after.quotaUse)
	}
}

// TestAppendOnly: each of our commits can be found in the log of transactions.
func TestAppendOnly(t *testing.T) {
	needBorg(t)
	dir := filepath.Join(t.TempDir(), "repo")
	borg(t, "init", "-e", "none", "--append-only", dir)
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	mustCommit(t, w)
	log, err := os.ReadFile(dir + "/transactions")
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	if err != nil || len(lines) != 2 || !strings.HasPrefix(lines[1], "transaction 3, UTC time 20") || len(lines[0]) != len(lines[1]) {
		t.Errorf("%q, %v", log, err)
	}
}

// TestFullDisk: where the room ends, the repository stays as it was.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	needBorg(t)
	dir := small + "/repo"
	borg(t, "init", "-e", "none", dir)
	before := files(t, dir)
	w, err := mustOpen(t, dir, quiet).Begin(t.Context(), 0, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil && n < 10_000; n++ {
		id, data := object(n)
		err = w.Put(t.Context(), id, data)
	}
	if !errors.Is(err, fault.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if err := w.Rollback(); err != nil {
		t.Error(err)
	}
	if !maps.Equal(before, files(t, dir)) {
		t.Errorf("%v became %v", before, files(t, dir))
	}
	// There is room for the objects, but not for what has to be left free.
	w, err = mustOpen(t, dir, quiet).Begin(t.Context(), 0, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, w, 0, 10)
	w.limits.keepFree = 4 << 20
	if err := w.Commit(t.Context()); !errors.Is(err, fault.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if !maps.Equal(before, files(t, dir)) {
		t.Errorf("%v became %v", before, files(t, dir))
	}
	w = mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	mustCommit(t, w)
	borg(t, "check", "--repository-only", dir)
}

// TestNonces: reservations only ever rise, and borg reads them.
func TestNonces(t *testing.T) {
	dir := newRepository(t)
	w := mustBegin(t, dir)
	if next, ok, err := w.FreeNonce(); next != 0 || ok || err != nil {
		t.Error(next, ok, err)
	}
	for _, c := range []struct {
		start, next uint64
		good        bool
	}{{0, 1 << 40, true}, {1<<40 - 1, 1 << 41, false}, {1 << 40, 1<<40 - 1, false}, {1 << 40, 1<<40 + 77, true}} {
		if err := w.ReserveNonces(c.next, c.start); (err == nil) != c.good {
			t.Errorf("%v: %v", c, err)
		}
	}
	if next, ok, err := w.FreeNonce(); next != 1<<40+77 || !ok || err != nil {
		t.Error(next, ok, err)
	}
	if text, err := os.ReadFile(dir + "/nonce"); string(text) != "000001000000004d" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.WriteFile(dir+"/nonce", []byte("0000"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.FreeNonce(); !errors.Is(err, fault.ErrIntegrity) {
		t.Error(err)
	}
}

// TestSaveKey: a key is kept and replaced, and nothing else in the configuration is.
func TestSaveKey(t *testing.T) {
	needBorg(t)
	t.Setenv("BORG_PASSPHRASE", "s4-test")
	dir := filepath.Join(t.TempDir(), "repo")
	borg(t, "init", "-e", "repokey", dir)
	before, err := readConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := mustBegin(t, dir)
	for _, key := range []string{"one", "two\nlines", before.key} {
		if err := w.SaveKey(key); err != nil {
			t.Fatal(err)
		}
		after, err := readConfig(dir)
		if err != nil || after.key != key {
			t.Errorf("%q was kept as %q, %v", key, after.key, err)
		}
		after.fields["key"] = before.key
		if !maps.Equal(before.fields, after.fields) {
			t.Errorf("%v became %v", before.fields, after.fields)
		}
	}
	mustCommit(t, w)
	borg(t, "list", dir)
}

// TestCreate: a new repository is like one of borg's, but for its id, and of use to it.
func TestCreate(t *testing.T) {
	needBorg(t)
	theirs := filepath.Join(t.TempDir(), "theirs")
	borg(t, "init", "-e", "none", theirs)
	parent := t.TempDir()
	if err := errors.Join(os.Mkdir(parent+"/empty", 0o750), os.Mkdir(parent+"/full", 0o700), os.Mkdir(parent+"/full/x", 0o700), os.WriteFile(parent+"/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		path    string
		parents bool
		want    error
	}{
		{"new", false, nil},
		{"empty", false, nil},
		{"a/b/c", true, nil},
		{"new", false, fs.ErrExist},
		{"full", false, fs.ErrExist},
		{"file", false, fs.ErrExist},
		{"new/data/inside", true, fs.ErrExist},
		{"x/y", false, fs.ErrNotExist},
	} {
		dir := filepath.Join(parent, c.path)
		w, err := tryCreate(t, dir, CreateOptions{ID: [32]byte{byte(i)}, MakeParents: c.parents})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.path, err)
		}
		if err != nil {
			continue
		}
		first, err := mustOpen(t, theirs, quiet).Get(t.Context(), manifest, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Put(t.Context(), manifest, first.Data); err != nil {
			t.Fatal(err)
		}
		first.Release()
		if err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		a, err := readConfig(theirs)
		if err != nil {
			t.Fatal(err)
		}
		b, err := readConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		if b.id != [32]byte{byte(i)} {
			t.Errorf("id is %x", b.id)
		}
		a.fields["id"] = b.fields["id"]
		if !maps.Equal(a.fields, b.fields) {
			t.Errorf("%v, borg's is %v", b.fields, a.fields)
		}
		for _, name := range []string{"README", "config", "data"} {
			x, err := os.Stat(filepath.Join(theirs, name))
			y, err2 := os.Stat(filepath.Join(dir, name))
			if err != nil || err2 != nil || x.Mode() != y.Mode() {
				t.Errorf("%s: %v %v %v", name, y, err, err2)
			}
		}
		borg(t, "create", dir+"::a", parent+"/file")
		if i > 0 {
			continue
		}
		more := mustBegin(t, dir)
		mustPut(t, more, 0, 2000) // more than the smallest index holds
		mustCommit(t, more)
		borg(t, "create", dir+"::b", parent+"/file")
		borg(t, "check", "--repository-only", dir)
	}
	if left, _ := filepath.Glob(parent + "/.*.tmp"); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	names, err := os.ReadDir(parent)
	if err != nil || slices.ContainsFunc(names, func(e fs.DirEntry) bool { return e.Name() == "x" }) {
		t.Error(names, err)
	}
}
