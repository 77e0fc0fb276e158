package disk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWrittenIsLetGo: large segments do not stay in the page cache once they are
// durable, small ones do.
func TestWrittenIsLetGo(t *testing.T) {
	dir := newRepository(t)
	w := mustBegin(t, dir)
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{3}).Read(data)
	for n := range 2 * writeAhead / len(data) {
		if err := w.Put(t.Context(), [32]byte{byte(n), 1}, data); err != nil {
			t.Fatal(err)
		}
	}
	large := segmentPath(dir, w.out.perDir, w.out.number)
	putManifest(t, w)
	small := segmentPath(dir, w.out.perDir, w.out.number)
	mustCommit(t, w)
	if n := cached(t, large); n > writeAhead/os.Getpagesize() {
		t.Errorf("%d pages of a large segment are in the page cache", n)
	}
	if cached(t, small) == 0 {
		t.Error("a small segment is not in the page cache")
	}
	r := mustOpen(t, dir, quiet)
	b, err := r.Get(t.Context(), [32]byte{5, 1}, len(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if !bytes.Equal(b.Data, data) {
		t.Error("an object came back as another")
	}
}

// cached tells how many pages of a file are in the page cache.
func cached(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var there unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &there, 0); err != nil {
		t.Skip("this kernel does not tell what is in the page cache: ", err)
	}
	return int(there.Cache)
}

// TestIndexCheckedOnce: a writer takes the index as good that the reader before
// it has checked, but not one that was changed since.
func TestIndexCheckedOnce(t *testing.T) {
	dir := newRepository(t)
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	putManifest(t, w)
	mustCommit(t, w)
	index, err := filepath.Glob(filepath.Join(dir, "index.*"))
	if err != nil || len(index) != 1 {
		t.Fatal(index, err)
	}
	integrity, err := filepath.Glob(filepath.Join(dir, "integrity.*"))
	if err != nil || len(integrity) != 1 {
		t.Fatal(integrity, err)
	}
	r := mustOpen(t, dir, quiet)
	uses := func() bool {
		t.Helper()
		w, err := r.Begin(t.Context(), 0, os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := w.Rollback(); err != nil {
				t.Error(err)
			}
		}()
		if !w.Has(first(object(3))) {
			t.Error("an object is not found")
		}
		return w.view.index != nil
	}
	text, err := os.ReadFile(integrity[0])
	if err != nil {
		t.Fatal(err)
	}
	// The digest of the index is the one behind "final" that comes last.
	at := bytes.LastIndex(text, []byte(`"final": "`)) + len(`"final": "`)
	if at < len(`"final": "`) {
		at = bytes.LastIndex(text, []byte(`"final":"`)) + len(`"final":"`)
	}
	copy(text[at:], "0000000000000000")
	if err := os.WriteFile(integrity[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if !uses() {
		t.Error("the index was read once more")
	}
	if err := os.Chtimes(index[0], time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if uses() {
		t.Error("an index was used that had changed and does not match its digest")
	}
}

func first(id [32]byte, _ []byte) [32]byte { return id }
