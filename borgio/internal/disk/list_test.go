package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// copyNone gives a copy of a frozen repository to do harm to.
func copyNone(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	if err := os.CopyFS(dir, os.DirFS("../../testdata/mode-none")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustOpen(t testing.TB, dir string, log *slog.Logger) *Repository {
	t.Helper()
	pool := &buffer.Pool{}
	r, err := Open(t.Context(), dir, pool, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		pool.Close()
	})
	return r
}

var quiet = slog.New(slog.DiscardHandler)

// TestStrangeNames: what else lies in a repository's directories does not keep
// anyone from reading it, with an index or without.
func TestStrangeNames(t *testing.T) {
	write := func(name string) func(string) error {
		return func(dir string) error {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name), []byte("BORG_SEG\x40\xf4\x3c\x25\x09\x00\x00\x00\x02"), 0o600)
		}
	}
	for name, harm := range map[string]func(dir string) error{
		"segment of another directory": write("data/7/5"),
		"segment far too high":         write("data/0/4294967295"),
		"leading zeros":                write("data/0/0012"),
		"no number":                    write("data/0/12.tmp"),
		"file for a directory":         write("data/8"),
		"pipe for a directory":         func(dir string) error { return unix.Mkfifo(dir+"/data/8", 0o600) },
		"pipe for a segment":           func(dir string) error { return unix.Mkfifo(dir+"/data/0/12", 0o600) },
		"directory for a segment":      func(dir string) error { return os.Mkdir(dir+"/data/0/12", 0o700) },
		"directory for an index":       func(dir string) error { return os.Mkdir(dir+"/index.7", 0o700) },
		"many names": func(dir string) error {
			var errs []error
			for i := range 3 * listBatch {
				errs = append(errs, os.WriteFile(fmt.Sprintf("%s/data/0/x%d", dir, i), nil, 0o600))
			}
			return errors.Join(errs...)
		},
	} {
		for _, index := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", index ", index), func(t *testing.T) {
				dir := copyNone(t)
				if err := harm(dir); err != nil {
					t.Fatal(err)
				}
				if !index {
					os.Remove(dir + "/index.9")
				}
				r := mustOpen(t, dir, quiet)
				b, err := r.Get(t.Context(), manifest, 0)
				if err != nil {
					t.Fatal(err)
				}
				b.Release()
				if r.view.committed != 9 {
					t.Errorf("last commit is %d", r.view.committed)
				}
			})
		}
	}
}

// TestLostCommit: that the last commit cannot be read is told, if the index
// knows that there was one.
func TestLostCommit(t *testing.T) {
	dir := copyNone(t)
	if err := os.WriteFile(dir+"/data/0/9", []byte("BORG_SEGbitrot..."), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	mustOpen(t, dir, slog.New(slog.NewTextHandler(&log, nil)))
	if !strings.Contains(log.String(), "newer than the last commit") {
		t.Errorf("logged: %s", log.String())
	}
}

// TestIndexIsCut: an index that is cut short under a reader is an error of that
// read, and not the end of the process.
func TestIndexIsCut(t *testing.T) {
	dir := copyNone(t)
	r := mustOpen(t, dir, quiet)
	if err := os.Truncate(dir+"/index.9", 0); err != nil {
		t.Fatal(err)
	}
	_, err := r.Get(t.Context(), [32]byte{0xff, 0xff, 0xff, 0x7f}, 0)
	if bad, ok := errors.AsType[*ObjectError](err); !ok || bad.Check != "lookup" || !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
	if _, err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := r.Get(t.Context(), manifest, 0)
	if err != nil {
		t.Fatalf("after another look: %v", err)
	}
	b.Release()
}

// TestLargeIndexMisleads: an index too large to be checked when it is opened is
// checked when it does not find an object, which then is found in the segments.
func TestLargeIndexMisleads(t *testing.T) {
	dir := copyNone(t)
	const buckets = fullCheckLimit/indexBucketSize + 1
	data := make([]byte, indexHeaderSize+indexBucketSize*buckets)
	copy(data, "BORG_IDX\x00\x00\x00\x00\x00\x00\x00\x00\x20\x08")
	binary.LittleEndian.PutUint32(data[12:], buckets)
	for i := range buckets {
		binary.LittleEndian.PutUint32(data[indexHeaderSize+indexBucketSize*i+32:], bucketEmpty)
	}
	h := xxhash.New()
	fmt.Fprintf(h, "%10d%s%s%10d%s18", len("index.9"), "index.9", data[:indexHeaderSize], len("HashHeader"), "HashHeader")
	header := hex.EncodeToString(h.Sum(nil))
	text, err := json.Marshal(map[string]any{"algorithm": "XXH64", "digests": map[string]string{"HashHeader": header, "final": "0123456789abcdef"}})
	if err != nil {
		t.Fatal(err)
	}
	integrity := append([]byte("\x81\xa5index\xda"), byte(len(text)>>8), byte(len(text)))
	for name, b := range map[string][]byte{"index.9": data, "integrity.9": append(integrity, text...)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := mustOpen(t, dir, quiet)
	if r.view.checked || r.view.index == nil {
		t.Fatal("the index was checked, or refused, at once")
	}
	b, err := r.Get(t.Context(), manifest, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.Release()
	_, err = r.Get(t.Context(), [32]byte{1}, 0)
	if !errors.Is(err, fault.ErrIntegrity) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}

// TestLongSearch: an index without an empty bucket is not searched without end.
func TestLongSearch(t *testing.T) {
	x := diskIndex{make([]byte, indexHeaderSize+indexBucketSize*2*maxProbes), 2 * maxProbes}
	x.data[indexHeaderSize+indexBucketSize*(maxProbes+1)] = 1 // below the bound after its start
	if _, ok := x.lookup([32]byte{1}); ok {
		t.Error("the search went on")
	}
}

// TestBadSector: what the disk cannot give is damage of the object, not of
// the whole repository.
func TestBadSector(t *testing.T) {
	r := mustOpen(t, copyNone(t), quiet)
	p, ok, _, err := r.find(manifest)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	f, err := os.Open("/proc/self/mem") // nothing is mapped at its beginning: EIO
	if err != nil {
		t.Fatal(err)
	}
	r.files[p.segment] = f
	_, err = r.Get(t.Context(), manifest, 0)
	if _, ok := errors.AsType[*ObjectError](err); !ok || !errors.Is(err, unix.EIO) {
		t.Errorf("got %v", err)
	}
}
