package borgio_test

import (
	"crypto/sha256"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

// noise is what make.sh's noise prints: awk has but doubles.
func noise(n int) []byte {
	b, s := make([]byte, n), 42.0
	for i := range b {
		s = math.Mod(float64(s*1103515245)+12345, 1<<31)
		b[i] = byte(33 + int(s/65536)%94)
	}
	return b
}

// everyKind is what the tree of make.sh's every_kind holds. An entry with links
// shares its inode with them.
var everyKind = []struct {
	paths    string // joined by "|"
	mode     uint32
	body     []byte
	source   string // of a symbolic link
	rdev     uint64
	uid, gid uint32
	flags    uint32
}{
	{paths: "."}, // its times and mode are the file system's
	{paths: "dir", mode: 0o040755},
	{paths: "empty-dir", mode: 0o040755},
	{paths: "sticky", mode: 0o041777},
	{paths: "hello|dir/hello-hard", mode: 0o104751, body: []byte("hello, borg\n")},
	{paths: "dir/text", mode: 0o100644, body: frozenText()},
	{paths: "noise", mode: 0o100644, body: noise(3000), uid: 12345, gid: 54321},
	{paths: "empty", mode: 0o100644},
	{paths: "sparse", mode: 0o100644, body: append(make([]byte, 1<<20), "end"...)},
	{paths: "raw \xff\xfe name", mode: 0o100644, body: []byte("raw")},
	{paths: "ü and a\ttab", mode: 0o100644, body: []byte("ü")},
	{paths: "dir/link", mode: 0o120777, source: "../hello"},
	{paths: "dangling", mode: 0o120777, source: "nowhere/\xff"},
	{paths: "fifo|fifo-hard", mode: 0o010644},
	{paths: "null|null-hard", mode: 0o020644, rdev: unix.Mkdev(1, 3)},
	{paths: "disk", mode: 0o060644, rdev: unix.Mkdev(259, 70000)},
	{paths: "old", mode: 0o100644, body: []byte("old")},
	{paths: "future", mode: 0o100644, body: []byte("future")},
	{paths: "nodump", mode: 0o100644, body: []byte("flags"), flags: 1},
	{paths: "immutable", mode: 0o100644, body: []byte("flags"), flags: 2},
	{paths: "append", mode: 0o100644, body: []byte("flags"), flags: 4},
	{paths: "xattr", mode: 0o100644, body: []byte("x")},
	{paths: "acl", mode: 0o100664, body: []byte("a")}, // the group bits are the mask's
}

// TestDialects reads every kind of entry, as each borg wrote it in each key mode
// that it writes in a way of its own.
func TestDialects(t *testing.T) {
	repos, _ := filepath.Glob("testdata/borg-*.*-*")
	repos = slices.DeleteFunc(repos, func(dir string) bool { return strings.HasSuffix(dir, "ancient") })
	if len(repos) < 15 {
		t.Fatalf("only %d frozen repositories", len(repos))
	}
	for _, dir := range repos {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			opts := frozenOptions(t)
			key, _ := filepath.Abs("testdata/keys/" + filepath.Base(dir))
			if strings.HasSuffix(dir, "keyfile") {
				opts.Environ = environ("BORG_PASSPHRASE=s4-test", "BORG_KEY_FILE="+key, "BORG_BASE_DIR="+t.TempDir())
			}
			r := mustOpen(t, dir, opts)
			if mode := strings.SplitN(filepath.Base(dir), "-", 3)[2]; r.Encryption() != mode {
				t.Errorf("encryption is %s", r.Encryption())
			}
			// The first borgs to mark what has hard links marked files only.
			marksAll := !strings.Contains(dir, "borg-1.1")
			compareEveryKind(t, readArchive(t, r, "all"), marksAll)
		})
	}
}

func compareEveryKind(t *testing.T, got map[string]entry, marksAll bool) {
	t.Helper()
	when := time.Date(2020, 2, 2, 2, 2, 2, 123456789, time.UTC).UnixNano()
	count := 0
	for _, want := range everyKind {
		masters := 0
		paths := strings.Split(want.paths, "|")
		for _, path := range paths {
			count++
			e, ok := got[path]
			if !ok {
				t.Errorf("%q is missing", path)
				continue
			}
			if path == "." {
				continue
			}
			mtime := when
			switch path {
			case "old":
				mtime = 0 // borg keeps to what 32 bits can tell
			case "future":
				mtime = 2147310847e9
			}
			user := "root"
			if want.uid != 0 {
				user = ""
			}
			if e.Mode != want.mode || e.UID != want.uid || e.GID != want.gid || e.User != user || e.Group != user || e.Mtime != mtime || !e.HasCtime {
				t.Errorf("%q: %+v", path, e.Item)
			}
			if e.BSDFlags != want.flags || e.Rdev != want.rdev || e.Damaged {
				t.Errorf("%q: flags %d, device %x", path, e.BSDFlags, e.Rdev)
			}
			source := want.source
			if len(paths) > 1 {
				if e.Source == "" {
					masters++
					if e.HardlinkMaster != (marksAll || want.mode&unix.S_IFMT == unix.S_IFREG) {
						t.Errorf("%q: hard link master is %v", path, e.HardlinkMaster)
					}
				} else if source = paths[0]; path == source {
					source = paths[1]
				}
			}
			if e.Source != "" && e.Source != source || len(paths) == 1 && e.Source != source {
				t.Errorf("%q: source %q, want %q", path, e.Source, source)
			}
			if len(paths) > 1 && e.Source != "" {
				e = got[e.Source]
			}
			if e.sum != sha256.Sum256(want.body) || e.Size != int64(len(want.body)) && want.source == "" {
				t.Errorf("%q: content differs, %d bytes", path, e.Size)
			}
		}
		if len(paths) > 1 && masters != 1 {
			t.Errorf("%s: %d masters", want.paths, masters)
		}
	}
	if count != len(got) {
		t.Errorf("%d items, want %d: %q", len(got), count, slices.Sorted(maps.Keys(got)))
	}
	x := got["xattr"].Xattrs
	if len(x) != 2 || x[0].Name != "user.empty" || len(x[0].Value) != 0 || x[1].Name != "user.note" || string(x[1].Value) != "v\x00\xff" {
		t.Errorf("xattrs: %q", x)
	}
	lines := func(acl []byte) string { return strings.Join(strings.Fields(string(acl)), " ") }
	if a := lines(got["acl"].ACLAccess); !strings.Contains(a, "user:12345:rw-") || !strings.Contains(a, "group:54321:r--") || !strings.Contains(a, "mask::rw-") {
		t.Errorf("acl: %s", a)
	}
	if a := lines(got["empty-dir"].ACLDefault); !strings.Contains(a, "user:12345:rwx") || !strings.Contains(a, "other::r-x") {
		t.Errorf("default acl: %s", a)
	}
	for path, e := range got {
		if (len(e.ACLAccess) > 0) != (path == "acl" || path == "empty-dir") || (len(e.ACLDefault) > 0) != (path == "empty-dir") || len(e.Xattrs) > 0 && path != "xattr" {
			t.Errorf("%q: acl %s, %s, xattrs %q", path, e.ACLAccess, e.ACLDefault, e.Xattrs)
		}
	}
}

// TestAncient reads an archive in the form that borg 1.0 gave it: no sizes, no
// mark on those that have hard links, and no list of chunks where it would be empty.
func TestAncient(t *testing.T) {
	got := readArchive(t, mustOpen(t, "testdata/borg-1.1-ancient", frozenOptions(t)), "ancient")
	if len(got) != 11 {
		t.Errorf("items: %q", slices.Sorted(maps.Keys(got)))
	}
	hello, hard := got["hello.txt"], got["dir/hard"]
	if hello.Size != 12 || hello.sum != sha256.Sum256([]byte("hello, borg\n")) || hard.Source != "hello.txt" || hello.Source != "" {
		t.Errorf("hard link: %+v of %+v", hard, hello)
	}
	if text := got["dir/text"]; text.Size != int64(len(frozenText())) || text.sum != sha256.Sum256(frozenText()) {
		t.Errorf("text: %+v", text.Item)
	}
	if got["empty"].Size != 0 || got["dir/link"].Source != "../hello.txt" || got["fifo"].Mode != 0o010644 || !got["fifo"].HasAtime {
		t.Errorf("%+v, %+v, %+v", got["empty"], got["dir/link"], got["fifo"])
	}
}

// TestStates reads repositories that something had happened to.
func TestStates(t *testing.T) {
	for name, second := range map[string]bool{"stale-index": true, "corrupt-index": true, "uncommitted": false} {
		t.Run(name, func(t *testing.T) {
			r := mustOpen(t, "testdata/state-"+name, frozenOptions(t))
			if first := readArchive(t, r, "first"); len(first) != 11 || first["dir/text"].sum != sha256.Sum256(frozenText()) {
				t.Errorf("first archive: %q", slices.Sorted(maps.Keys(first)))
			}
			m, err := r.Manifest(t.Context())
			if err != nil || (len(m.Archives) == 2) != second {
				t.Fatalf("%+v, %v", m, err)
			}
			if second && readArchive(t, r, "second")["hello.txt.new"].sum != sha256.Sum256([]byte("changed\n")) {
				t.Error("second archive differs")
			}
		})
	}
}

// TestRepaired: a file in which a check put zeros in the place of what was lost
// is marked, and reads as it is now.
func TestRepaired(t *testing.T) {
	body := noise(12288)
	clear(body[4096:8192])
	for path, e := range readArchive(t, mustOpen(t, "testdata/state-repaired", frozenOptions(t)), "first") {
		if e.Damaged != (path == "holed") {
			t.Errorf("%s: damaged %v", path, e.Damaged)
		}
		if path == "holed" && (e.Size != 12288 || e.sum != sha256.Sum256(body)) {
			t.Errorf("%s: %d bytes, or content, differ", path, e.Size)
		}
	}
}

// TestCheckpoint: what borg keeps of a file while it is being read is no file of
// its own, and an interrupted archive is told from a whole one by its name.
func TestCheckpoint(t *testing.T) {
	r := mustOpen(t, "testdata/state-checkpoint", frozenOptions(t))
	m, err := r.Manifest(t.Context())
	if err != nil || len(m.Archives) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, ref := range m.Archives {
		if borgio.IsCheckpoint(ref.Name) != (ref.Name == "broken.checkpoint") {
			t.Errorf("%s: checkpoint is %v", ref.Name, borgio.IsCheckpoint(ref.Name))
		}
	}
	body := append(append(noise(8000), noise(8000)...), noise(8000)...)
	whole := readArchive(t, r, "whole")
	if len(whole) != 1 || whole["stream"].sum != sha256.Sum256(body) {
		t.Errorf("whole: %q", slices.Sorted(maps.Keys(whole)))
	}
	if broken := readArchive(t, r, "broken.checkpoint"); len(broken) != 0 {
		t.Errorf("broken: %q", slices.Sorted(maps.Keys(broken)))
	}
}
