package worktree_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/worktree"
)

func random(n int) []byte {
	b := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	rnd.Read(b)
	return b
}

func TestOnlyWhatDiffersIsFetched(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	data := random(20 * extentSize)
	put := func(dir, name string, b []byte) {
		t.Helper()
		write(t, filepath.Join(dir, name), string(b))
	}
	put(from, "image", data)
	put(from, "renamed", random(5*extentSize))
	put(from, "same", random(100_000))
	old, stamps := take(t, from), openStamps(t)
	bring(t, to, old, nil, stamps)

	changed := append(random(extentSize), data...) // everything moves by one extent
	put(from, "image", changed)
	do(t, os.Rename(filepath.Join(from, "renamed"), filepath.Join(from, "new name")))
	do(t, os.Chmod(filepath.Join(from, "same"), 0o600))
	next := take(t, from)
	_, res := bring(t, to, next, old, stamps)
	equal(t, from, to)
	if next.fetched != extentSize || res.Fetched != extentSize || res.Reused != 25*extentSize {
		t.Errorf("fetched %d (%d counted), reused %d extents", next.fetched, res.Fetched, res.Reused/extentSize)
	}

	// The local file is damaged behind a clean face: nothing of it is taken.
	path := filepath.Join(to, "image")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	do(t, err)
	_, err = f.WriteAt([]byte("damage"), 3*extentSize+5)
	do(t, err, f.Close())
	l, err := open(t, to).Stat("image")
	do(t, err)
	do(t, stamps.Put(t.Context(), []worktree.Stamp{worktree.NewStamp(l, next.node("image").Entry)}))
	put(from, "image", changed[:19*extentSize])
	last := take(t, from)
	bring(t, to, last, next, stamps)
	equal(t, from, to)
	if last.fetched == 0 || last.fetched > 2*extentSize {
		t.Errorf("fetched %d bytes for one damaged extent", last.fetched)
	}
}

func TestMetadataAloneKeepsTheFile(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "file"), "content")
	s, stamps := take(t, from), openStamps(t)
	bring(t, to, s, nil, stamps)
	before, err := open(t, to).Stat("file")
	do(t, err)
	do(t, os.Chmod(filepath.Join(from, "file"), 0o604), unix.Setxattr(filepath.Join(from, "file"), "user.a", []byte("1"), 0))
	next := take(t, from)
	p, res := bring(t, to, next, s, stamps)
	after, err := open(t, to).Stat("file")
	do(t, err)
	if res.Metadata != 1 || next.fetched != 0 || after.Ino != before.Ino || p.Actions[0].Op != worktree.SetMeta {
		t.Errorf("result %+v, fetched %d, actions %+v", res, next.fetched, p.Actions)
	}
	equal(t, from, to)
}

// TestHardLinks has groups that are partly there, and wrongly joined.
func TestHardLinks(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	at := func(dir, name string) string { return filepath.Join(dir, name) }
	write(t, at(from, "a"), "one")
	do(t, os.Link(at(from, "a"), at(from, "b")), os.Link(at(from, "a"), at(from, "d")))
	write(t, at(from, "x"), "two")
	write(t, at(from, "y"), "two")
	do(t, os.Chtimes(at(from, "y"), testTime, testTime), os.Chtimes(at(from, "x"), testTime, testTime))
	s, stamps := take(t, from), openStamps(t)
	bring(t, to, s, nil, stamps)
	equal(t, from, to)
	// d apart, b gone, x and y joined, e a name more of a.
	do(t, os.Remove(at(to, "d")), os.Remove(at(to, "b")), os.Remove(at(to, "y")))
	run(t, "cp", "-p", at(to, "a"), at(to, "d"))
	do(t, os.Link(at(to, "x"), at(to, "y")), os.Link(at(to, "a"), at(to, "e")))
	s.fetched = 0
	_, res := bring(t, to, s, nil, stamps)
	equal(t, from, to)
	ino := func(name string) uint64 {
		l, err := open(t, to).Stat(name)
		do(t, err)
		return l.Ino
	}
	if ino("a") != ino("b") || ino("a") != ino("d") || ino("x") == ino("y") {
		t.Errorf("inodes a %d b %d d %d, x %d y %d", ino("a"), ino("b"), ino("d"), ino("x"), ino("y"))
	}
	if s.fetched != 0 {
		t.Errorf("fetched %d bytes that were there: %+v", s.fetched, res)
	}
	clean(t, to, s, stamps)
	// A link from outside the tree must not change with it.
	outside := at(t.TempDir(), "outside")
	if err := os.Link(at(to, "x"), outside); err != nil {
		t.Skip("no link between temporary directories")
	}
	do(t, os.Chmod(at(from, "x"), 0o600))
	bring(t, to, take(t, from), s, stamps)
	equal(t, from, to)
	if st, err := os.Stat(outside); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("a file outside the tree changed: %v, %v", st.Mode(), err)
	}
}

// TestOtherClone: a push from elsewhere that only moves ctimes touches nothing.
func TestOtherClone(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	write(t, filepath.Join(a, "d/file"), "content")
	sa, stampsB := take(t, a), openStamps(t)
	bring(t, b, sa, nil, stampsB)
	write(t, filepath.Join(b, "d/other"), "news")
	sb, stampsA := take(t, b), openStamps(t)
	p, _ := bring(t, a, sb, sa, stampsA)
	for _, x := range p.Actions {
		if x.Path == "d/file" {
			t.Errorf("an unchanged file is in the plan: %s", x.Op)
		}
	}
	clean(t, a, sb, stampsA)
}

func TestPlanAsJSON(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "b\xffd"), "12345")
	write(t, filepath.Join(to, "gone"), "")
	r := open(t, to)
	b, err := json.Marshal(plan(t, r, take(t, from)).Actions)
	do(t, err)
	for _, want := range []string{
		`{"op":"create","path":"b\ufffdd","path_bytes":"Yv9k","type":"file","size":5}`,
		`{"op":"delete","path":"gone","type":"file","size":0}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}
