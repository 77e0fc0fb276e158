package borgio_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio"
)

// outcome is what somebody gets who reads all of a repository: of each archive
// and of each file what is in it, or why not.
type outcome struct {
	files map[string]string // by archive and path
	errs  map[string]error
	log   string
}

// readAll reads all of a repository, as far as it can be read.
func readAll(t *testing.T, dir string) outcome {
	t.Helper()
	var log bytes.Buffer
	opts := frozenOptions(t)
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	o := outcome{map[string]string{}, map[string]error{}, ""}
	defer func() { o.log = log.String() }()
	loc, err := borgio.ParseLocation(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := borgio.Open(t.Context(), loc, opts)
	if err != nil {
		o.errs["open"] = err
		return o
	}
	defer r.Close()
	m, err := r.Manifest(t.Context())
	if err != nil {
		o.errs["manifest"] = err
		return o
	}
	for _, ref := range m.Archives {
		o.files[ref.Name] = ""
		a, err := r.Archive(t.Context(), ref.ID)
		if err != nil {
			o.errs[ref.Name] = err
			continue
		}
		for it, err := range r.Items(t.Context(), a) {
			if err != nil {
				o.errs[ref.Name] = err
				break
			}
			name, h := ref.Name+"/"+it.Path, sha256.New()
			if _, err := r.OpenFile(it.Chunks).WriteTo(h); err != nil {
				o.errs[name] = err
				continue
			}
			o.files[name] = fmt.Sprintf("%+v %x", *it, h.Sum(nil))
		}
	}
	o.log = log.String()
	return o
}

// compareOutcome expects what was read of a harmed repository to be right, as far
// as there is no error of a kind that can be told.
func compareOutcome(t *testing.T, what string, got, good outcome, index bool) {
	t.Helper()
	for name, body := range got.files {
		if body != good.files[name] {
			t.Errorf("%s: %s is %s, not %s", what, name, body, good.files[name])
		}
	}
	for name, err := range got.errs {
		kinds := []error{borgio.ErrIntegrity, borgio.ErrUnsupported}
		if name == "open" {
			kinds = append(kinds, borgio.ErrNotRepository, borgio.ErrKeyMissing, borgio.ErrKeyDamaged, borgio.ErrKeyKind, borgio.ErrKeyMismatch, borgio.ErrNoPassphrase, borgio.ErrPassphrase)
		}
		if !slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) }) {
			t.Errorf("%s: %s: %v", what, name, err)
		}
		if _, typed := errors.AsType[*borgio.IntegrityError](err); !typed && errors.Is(err, borgio.ErrIntegrity) {
			t.Errorf("%s: %s: untyped: %v", what, name, err)
		}
	}
	// Without an index nothing tells of a commit that cannot be read.
	if index && len(got.errs) == 0 && len(got.files) != len(good.files) && !strings.Contains(got.log, "newer than the last commit") {
		t.Errorf("%s: %d of %d files, no error, logged %q", what, len(got.files), len(good.files), got.log)
	}
}

// interesting gives the offsets in a repository's file at which a flipped bit may
// matter each in its own way, and some of the others.
func interesting(name string, b []byte) map[int]string {
	at := map[int]string{}
	mark := func(from, to, step int, what string) {
		for i := from; i < min(to, len(b)); i += step {
			at[i] = what
		}
	}
	switch {
	case strings.HasPrefix(name, "data/"):
		mark(0, 8, 1, "segment header")
		for off := 8; off+9 <= len(b); off += int(binary.LittleEndian.Uint32(b[off+4:])) {
			if b[off+8] == 2 {
				mark(off, off+9, 1, "commit")
				continue
			}
			mark(off, off+9, 1, "entry header")
			mark(off+9, off+41, 5, "entry id")
			mark(off+41, off+57, 3, "data")
			mark(off+57, off+int(binary.LittleEndian.Uint32(b[off+4:])), 199, "data")
		}
	case strings.HasPrefix(name, "index."):
		mark(0, 18, 1, "index header")
		mark(18, len(b), 3001, "index buckets")
		for off := 18; off+40 <= len(b); off += 40 {
			if binary.LittleEndian.Uint32(b[off+32:]) != 0xffffffff {
				mark(off, off+40, 7, "index buckets")
			}
		}
	case name == "config":
		mark(0, 200, 2, "config")
		mark(200, len(b), 29, "config") // the key
	default:
		mark(0, len(b), 11, name)
	}
	return at
}

// TestFlippedBits flips bits in every part of a repository, one at a time: what is
// read is right, or there is an error that tells what is wrong. Where flips are
// forged, the checksum of the entry is put right, so that keys and ids have to tell.
func TestFlippedBits(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  string // those whose names begin so
		forged bool
		must   []string // be noticed at least once
	}{
		{"mode-none", "", false, []string{"data", "entry header", "config", "index header", "index buckets", "integrity.9"}},
		{"mode-none", "data/", true, []string{"data", "entry id"}},
		{"comp-zstd-3", "", false, []string{"data", "entry header", "config"}},
		{"comp-obfuscate-110-lz4", "data/", true, []string{"data"}},
		{"mode-repokey-blake2", "data/0/2", true, []string{"data"}},
		{"mode-authenticated", "config", false, []string{"config"}},
	} {
		t.Run(fmt.Sprint(c.name, ", ", c.files, ", forged ", c.forged), func(t *testing.T) {
			t.Parallel()
			dir := copyFrozen(t, c.name)
			good := readAll(t, dir)
			if len(good.errs) > 0 || len(good.files) != 15 {
				t.Fatalf("%+v", good)
			}
			indexes, _ := filepath.Glob(dir + "/index.*")
			count, noticed := map[string]int{}, map[string]int{}
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				rel, _ := filepath.Rel(dir, path)
				if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(rel, c.files) {
					return err
				}
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				for i, part := range interesting(rel, b) {
					if strings.HasPrefix(rel, "data/") && i%3 != 0 && os.Getenv("S4_LONG") == "" {
						continue
					}
					bad := bytes.Clone(b)
					bad[i] ^= 1 << (i % 8)
					if c.forged {
						if part != "data" && part != "entry id" {
							continue
						}
						fixChecksum(bad, i)
					}
					if err := os.WriteFile(path, bad, 0o600); err != nil {
						return err
					}
					got := readAll(t, dir)
					compareOutcome(t, fmt.Sprintf("%s, byte %d (%s)", rel, i, part), got, good, len(indexes) > 0)
					if count[part]++; len(got.errs) > 0 || strings.Contains(got.log, "WARN") {
						noticed[part]++
					}
				}
				return os.WriteFile(path, b, 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range slices.Sorted(maps.Keys(count)) {
				t.Logf("%s: %d flips, %d noticed", part, count[part], noticed[part])
			}
			for _, part := range c.must {
				if noticed[part] == 0 {
					t.Errorf("flips are not noticed in %s", part)
				}
			}
		})
	}
}

// fixChecksum makes the checksum right of the entry of a segment that byte i is in.
func fixChecksum(b []byte, i int) {
	for off := 8; off+9 <= len(b); {
		size := int(binary.LittleEndian.Uint32(b[off+4:]))
		if i < off+size {
			binary.LittleEndian.PutUint32(b[off:], crc32.ChecksumIEEE(b[off+4:off+size]))
			return
		}
		off += size
	}
}

// TestSegmentsMissing takes each segment away in turn: what it held is missing,
// and nothing else.
func TestSegmentsMissing(t *testing.T) {
	for _, index := range []bool{true, false} {
		t.Run(fmt.Sprint("index ", index), func(t *testing.T) {
			dir := copyFrozen(t, "mode-none")
			if !index {
				if err := os.Remove(dir + "/index.9"); err != nil {
					t.Fatal(err)
				}
			}
			good := readAll(t, dir)
			for n := range 9 { // without the last there is an older state
				path := filepath.Join(dir, "data/0", strconv.Itoa(n))
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				got := readAll(t, dir)
				compareOutcome(t, fmt.Sprint("segment ", n), got, good, index)
				for name, err := range got.errs {
					if !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("segment %d: %s: %v", n, name, err)
					}
				}
				if lost := len(good.files) - len(got.files); n == 2 && lost != 12 || n == 0 && lost != 0 { // the text is in both archives
					t.Errorf("segment %d: %d lost, %v", n, lost, got.errs)
				}
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestReplaced puts another repository in the place of one that is being read,
// and then that one back: never is one taken for the other.
func TestReplaced(t *testing.T) {
	dir, away := copyFrozen(t, "mode-none"), filepath.Join(t.TempDir(), "away")
	opts := frozenOptions(t)
	opts.CacheBytes = 1
	r := mustOpen(t, dir, opts)
	files := readArchive(t, r, "first")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) error {
		h := sha256.New()
		_, err := r.OpenFile(files[path].Chunks).WriteTo(h)
		if err == nil && [32]byte(h.Sum(nil)) != files[path].sum {
			t.Errorf("%s: wrong bytes", path)
		}
		return err
	}
	move(dir, away)
	if _, err := r.Manifest(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	for _, other := range []string{"comp-none", "mode-repokey"} {
		move(copyFrozen(t, other), dir)
		if m, err := r.Manifest(t.Context()); !errors.Is(err, borgio.ErrNotRepository) {
			t.Errorf("%s: %+v, %v", other, m, err)
		}
		for path := range files {
			if err := read(path); err != nil && !errors.Is(err, borgio.ErrNotRepository) && !errors.Is(err, borgio.ErrIntegrity) {
				t.Errorf("%s: %s: %v", other, path, err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	move(away, dir)
	if m, err := r.Manifest(t.Context()); err != nil || len(m.Archives) != 2 {
		t.Errorf("back again: %+v, %v", m, err)
	}
	for path := range files {
		if err := read(path); err != nil {
			t.Errorf("back again: %s: %v", path, err)
		}
	}
}
