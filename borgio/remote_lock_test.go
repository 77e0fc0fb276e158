package borgio_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
)

// slowly reads 400 KB a second until it is hurried.
type slowly struct {
	r     io.Reader
	hurry chan struct{}
}

func (s slowly) Read(p []byte) (int, error) {
	select {
	case <-s.hurry:
	case <-time.After(80 * time.Millisecond):
	}
	return s.r.Read(p[:min(len(p), 32<<10)])
}

// lastArchive is the name of the newest archive as the repository tells it now.
func lastArchive(t *testing.T, r *borgio.Repository) string {
	t.Helper()
	m, err := r.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m.Archives[len(m.Archives)-1].Name
}

// TestRemoteReadingBlocksNobody: while a file is streamed from a remote, borg
// gets at the repository with the little patience that it has by default, what
// it adds is seen at once, and what it removes disturbs no reader.
func TestRemoteReadingBlocksNobody(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	big := make([]byte, 12<<20)
	rand.NewChaCha8([32]byte{2}).Read(big)
	if err := os.WriteFile(tree+"/big", big, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tree+"/junk", big[:1<<20:1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	runBorg(t, tree, "init", "-e", "none", repo)
	runBorg(t, tree, "create", "--chunker-params", "fixed,262144", repo+"::all", ".")
	runBorg(t, tree, "create", "--chunker-params", "fixed,262144", repo+"::keep", "big")
	program, calls := rsh(t)
	r := mustOpen(t, "host:"+repo, remoteOptions(t, program))
	chunks := readArchive(t, r, "keep")["big"].Chunks

	pr, pw := io.Pipe()
	go func() {
		_, err := r.OpenFile(chunks).WriteTo(pw)
		pw.CloseWithError(err)
	}()
	sum, streamed, hurry := sha256.New(), make(chan error, 1), make(chan struct{})
	go func() {
		_, err := io.Copy(sum, slowly{pr, hurry})
		streamed <- err
	}()
	for n := range 3 {
		name := fmt.Sprint("more", n)
		runBorg(t, tree, "create", repo+"::"+name, "junk")
		if last := lastArchive(t, r); last != name {
			t.Errorf("last archive is %s, want %s", last, name)
		}
	}
	runBorg(t, tree, "delete", repo+"::all")
	runBorg(t, tree, "compact", "--threshold", "0", repo)
	select {
	case err := <-streamed:
		t.Errorf("the stream ended before the writers: %v", err)
	default:
		close(hurry)
		if err := <-streamed; err != nil {
			t.Error(err)
		}
	}
	if [32]byte(sum.Sum(nil)) != sha256.Sum256(big) {
		t.Error("content differs")
	}
	if n := len(running(t, calls)); n > 4 {
		t.Errorf("%d sessions run", n)
	}
}

// TestCompactedUnderReader: what was moved to another segment since the remote
// was opened is found there.
func TestCompactedUnderReader(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	for i, name := range []string{"kept", "junk"} {
		b := make([]byte, 1<<20)
		rand.NewChaCha8([32]byte{byte(i)}).Read(b)
		if err := os.WriteFile(filepath.Join(tree, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runBorg(t, tree, "init", "-e", "none", repo)
	runBorg(t, tree, "create", repo+"::all", ".")
	runBorg(t, tree, "create", repo+"::keep", "kept")
	program, _ := rsh(t)
	remote := mustOpen(t, "host:"+repo, remoteOptions(t, program))
	if last := lastArchive(t, remote); last != "keep" {
		t.Fatal(last)
	}
	want := readArchive(t, mustOpen(t, repo, borgio.Options{}), "keep")["kept"]
	before := segments(t, repo)
	runBorg(t, tree, "delete", repo+"::all")
	runBorg(t, tree, "compact", "--threshold", "0", repo)
	if after := segments(t, repo); after[0] == before[0] {
		t.Fatalf("segment %s was not compacted", before[0])
	}
	h := sha256.New()
	if _, err := remote.OpenFile(want.Chunks).WriteTo(h); err != nil || [32]byte(h.Sum(nil)) != want.sum {
		t.Errorf("content differs: %v", err)
	}
	if _, err := remote.Archive(t.Context(), borgio.ID{1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

// segments lists the segment files, oldest first.
func segments(t *testing.T, repo string) []string {
	t.Helper()
	names, err := filepath.Glob(repo + "/data/*/*")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}

// TestRemoteReadingUnderWriter: a writer that holds the repository for long
// stops nobody who reads already; only the news have to wait.
func TestRemoteReadingUnderWriter(t *testing.T) {
	needBorg(t)
	dir := copyFrozen(t, "mode-none")
	program, _ := rsh(t)
	opts := remoteOptions(t, program)
	opts.LockWait = time.Second
	r := mustOpen(t, "host:"+dir, opts)
	m, err := r.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitUnlocked(t, dir)
	lock := lockElsewhere(t, dir)
	if _, err := r.Archive(t.Context(), m.Archives[0].ID); err != nil {
		t.Errorf("under a writer: %v", err)
	}
	if _, err := r.Manifest(t.Context()); !errors.Is(err, borgio.ErrLocked) {
		t.Errorf("manifest under a writer: %v", err)
	}
	if _, err := r.Archive(t.Context(), m.Archives[0].ID); err != nil {
		t.Errorf("after waiting for a writer: %v", err)
	}
	if err := os.RemoveAll(lock); err != nil {
		t.Fatal(err)
	}
	m = nil
	for deadline := time.Now().Add(10 * time.Second); m == nil; time.Sleep(50 * time.Millisecond) {
		if m, err = r.Manifest(t.Context()); err != nil && time.Now().After(deadline) {
			t.Fatalf("after the writer: %v", err)
		}
	}
}

// TestStaleIndexIsNotWrittenUnlocked: a server that has to repair the index
// does so under a lock of its own or not at all.
func TestStaleIndexIsNotWrittenUnlocked(t *testing.T) {
	needBorg(t)
	dir := copyFrozen(t, "mode-none")
	index := only(t, dir+"/index.*")
	for _, pattern := range []string{"/index.*", "/hints.*", "/integrity.*"} {
		if err := os.Remove(only(t, dir+pattern)); err != nil {
			t.Fatal(err)
		}
	}
	roster := dir + "/lock.roster" // another host reads
	if err := os.WriteFile(roster, []byte(`{"shared": [["elsewhere@1", 1, 0]]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	program, _ := rsh(t)
	opts := remoteOptions(t, program)
	opts.LockWait = time.Second
	loc, _ := borgio.ParseLocation("host:" + dir)
	if _, err := borgio.Open(t.Context(), loc, opts); !errors.Is(err, borgio.ErrLocked) {
		t.Errorf("while another reads: %v", err)
	}
	if left, _ := filepath.Glob(dir + "/i*.*"); len(left) != 0 {
		t.Errorf("written without a lock: %s", left)
	}
	if err := os.Remove(roster); err != nil {
		t.Fatal(err)
	}
	readArchive(t, mustOpen(t, "host:"+dir, opts), "first")
	if got := only(t, dir+"/index.*"); got != index {
		t.Errorf("index is %s, want %s", got, index)
	}
}

// only gives the one file that matches.
func only(t *testing.T, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %q, %v", pattern, names, err)
	}
	return names[0]
}

// TestReadingHoldsNoLock: a moment after opening no lock is held, though the
// session that reads goes on.
func TestReadingHoldsNoLock(t *testing.T) {
	needBorg(t)
	dir := copyFrozen(t, "mode-none")
	program, calls := rsh(t)
	r := mustOpen(t, "host:"+dir, remoteOptions(t, program))
	for range 2 {
		readArchive(t, r, "first")
		waitUnlocked(t, dir)
		for deadline := time.Now().Add(10 * time.Second); len(running(t, calls)) != 1; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d sessions run", len(running(t, calls)))
			}
		}
	}
	started, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(started, []byte("\n")); n > 4 {
		t.Errorf("%d sessions for one reader of what never changed", n)
	}
}

// waitUnlocked waits until no lock is held.
func waitUnlocked(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		locks, _ := filepath.Glob(dir + "/lock.*")
		if len(locks) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the lock is never given back: %s", locks)
		}
	}
}

// lockElsewhere makes the lock of a writer on another host, as far as borg can
// tell, and gives its path.
func lockElsewhere(t *testing.T, dir string) string {
	t.Helper()
	lock := dir + "/lock.exclusive"
	if err := os.Mkdir(lock, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(lock+"/elsewhere@1.1-0", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return lock
}
