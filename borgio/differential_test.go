package borgio_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

// fillTree makes a tree with every kind of entry, as far as the user and the file
// system let it. One file is of the given size.
func fillTree(t testing.TB, dir string, big int) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	random := rand.NewChaCha8([32]byte{1})
	write := func(name string, size int) {
		b := make([]byte, size)
		random.Read(b)
		for i := size / 3; i < size/2; i++ { // so that it can be compressed here and there
			b[i] = byte(i >> 10)
		}
		check(os.WriteFile(in(name), b, 0o644))
	}
	touch := func(name string, year int) {
		when := time.Date(year, 1, 1, 0, 0, 0, 1, time.UTC)
		check(os.Chtimes(in(name), when, when))
	}
	check(os.MkdirAll(in("a/b/c"), 0o755))
	check(os.Mkdir(in("empty dir"), 0o1777))
	write("big", big)
	write("a/small", 4096)
	write("a/b/empty", 0)
	write("name with \xff\xfe bytes and ü", 10)
	write("old", 3)
	write("future", 3)
	write("sparse", 3)
	check(os.Truncate(in("sparse"), 1<<20))
	check(os.Link(in("a/small"), in("a/b/hard")))
	check(os.Link(in("a/small"), in("zz-hard")))
	check(os.Symlink("../big", in("a/link")))
	check(os.Symlink("nowhere/\xff", in("dangling")))
	check(unix.Mkfifo(in("fifo"), 0o600))
	check(os.Link(in("fifo"), in("a/fifo-hard")))
	check(os.Chmod(in("a/small"), 0o4751))
	if err := unix.Setxattr(in("big"), "user.note", []byte("v\x00\xff"), 0); !errors.Is(err, unix.ENOTSUP) {
		check(err)
		check(unix.Setxattr(in("big"), "user.empty", nil, 0))
		check(unix.Setxattr(in("a/b"), "user.on a directory", []byte("v"), 0))
	}
	if os.Geteuid() == 0 {
		check(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		check(unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
		check(os.Link(in("null"), in("a/null-hard")))
		check(os.Lchown(in("a/b/c"), 12345, 54321))
	}
	if setfacl, err := exec.LookPath("setfacl"); err == nil {
		for _, args := range [][]string{{"-m", "u:12345:rw,g:54321:r", in("old")}, {"-d", "-m", "u:12345:rwx", in("a/b/c")}} {
			if out, err := exec.Command(setfacl, args...).CombinedOutput(); err != nil && !bytes.Contains(out, []byte("not supported")) {
				t.Fatalf("setfacl: %v: %s", err, out)
			}
		}
	}
	setNoDump(t, in("future"))
	for i := range 300 {
		write("a/b/c/f"+string(rune('a'+i%26))+strings.Repeat("x", i/26), i)
	}
	touch("old", 1960)
	touch("future", 2100)
}

// borgCompressions are all that borg has, and obfuscation around each kind.
var borgCompressions = []string{
	"none", "lz4", "zstd", "zlib", "lzma", "auto,zstd",
	"obfuscate,110,lz4", "obfuscate,110,zstd", "obfuscate,110,zlib", "obfuscate,2,lzma", "obfuscate,110,auto,zstd",
}

// TestDifferential has borg make an archive of a tree of every kind of entry and
// extract it again. What is read here, in place and through borg serve, must be
// the same to the bit, all metadata included.
func TestDifferential(t *testing.T) {
	needBorg(t)
	tree := t.TempDir()
	fillTree(t, tree, 700_000)
	t.Run("devices", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can make devices; the rest is compared all the same")
		}
	})
	t.Run("acl", func(t *testing.T) {
		if _, err := exec.LookPath("getfacl"); err != nil && os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else if err != nil {
			t.Skip("getfacl is not installed; the rest is compared all the same")
		}
	})
	type archive struct{ mode, compression string }
	var all []archive
	for i, c := range borgCompressions { // there are more of them than of modes
		all = append(all, archive{keyModes[i%len(keyModes)], c})
		if os.Getenv("S4_LONG") != "" {
			all = append(all, archive{keyModes[(i+3)%len(keyModes)], c})
		}
	}
	program, _ := rsh(t)
	for i, a := range all {
		t.Run(a.mode+"/"+a.compression, func(t *testing.T) {
			t.Parallel()
			repo, extracted := filepath.Join(t.TempDir(), "repo"), t.TempDir()
			runBorg(t, tree, "init", "-e", a.mode, repo)
			runBorg(t, tree, "create", "-C", a.compression, "--atime", "--chunker-params", "12,16,14,4095", repo+"::all", ".")
			runBorg(t, extracted, "extract", "--numeric-ids", repo+"::all")
			want := readTree(t, extracted)
			for name, where := range map[string]string{"local": repo, "remote": "host:" + repo} {
				if name == "remote" && i >= len(keyModes) && os.Getenv("S4_LONG") == "" {
					continue // each mode once
				}
				r := mustOpen(t, where, remoteOptions(t, program))
				if r.Encryption() != a.mode {
					t.Errorf("%s: encryption is %s", name, r.Encryption())
				}
				got := readArchive(t, r, "all")
				compareTree(t, name, got, want, tree)
				readRanges(t, r, got["big"], want["big"].body)
			}
		})
	}
}

// TestRangesAsExtracted compares ranges, read by many at once, with what borg
// writes to its standard output, and counts the sessions that this takes.
func TestRangesAsExtracted(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	fillTree(t, tree, 9<<20)
	runBorg(t, tree, "init", "-e", "repokey-blake2", repo)
	runBorg(t, tree, "create", "-C", "auto,zstd", repo+"::all", ".")
	want := runBorg(t, tree, "extract", "--stdout", repo+"::all", "big")
	program, calls := rsh(t)
	for name, where := range map[string]string{"local": repo, "remote": "host:" + repo} {
		t.Run(name, func(t *testing.T) {
			r := mustOpen(t, where, remoteOptions(t, program))
			readRanges(t, r, readArchive(t, r, "all")["big"], want)
			if name == "remote" {
				// A guard and a reader, and another guard if the manifest was asked for late.
				if b, _ := os.ReadFile(calls); bytes.Count(b, []byte("\n")) > 3 {
					t.Errorf("processes started:\n%s", b)
				}
			}
		})
	}
}

// onDisk is an entry of a directory tree.
type onDisk struct {
	unix.Stat_t
	body   []byte
	target string
	xattrs map[string]string
	acls   [2]string // access and default, as aclText gives them
	noDump bool
	links  string // paths of the same inode, joined
}

// readTree reads a tree that borg extracted.
func readTree(t *testing.T, dir string) map[string]onDisk {
	t.Helper()
	all, inodes := map[string]onDisk{}, map[uint64][]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		var e onDisk
		if err := unix.Lstat(path, &e.Stat_t); err != nil {
			return err
		}
		e.xattrs = xattrsOf(t, path)
		switch e.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			e.noDump = hasNoDump(t, path)
			inodes[e.Ino] = append(inodes[e.Ino], rel)
		case unix.S_IFLNK:
			e.target, err = os.Readlink(path)
		case unix.S_IFDIR:
		default:
			inodes[e.Ino] = append(inodes[e.Ino], rel)
		}
		all[rel] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, paths := range inodes {
		for _, p := range paths {
			e := all[p]
			if e.Mode&unix.S_IFMT == unix.S_IFREG { // only now, since it moves the time of access
				if e.body, err = os.ReadFile(filepath.Join(dir, p)); err != nil {
					t.Fatal(err)
				}
			}
			e.links = fmt.Sprintf("%q", paths) // the walk is in order
			all[p] = e
		}
	}
	for path, acls := range aclsOf(t, dir) {
		e, ok := all[path]
		if !ok {
			t.Fatalf("getfacl tells of %q", path)
		}
		e.acls = acls
		all[path] = e
	}
	return all
}

// compareTree compares what an archive holds with what borg extracted of it.
// Ctime alone cannot be extracted; it is that of the tree itself.
func compareTree(t *testing.T, name string, got map[string]entry, want map[string]onDisk, tree string) {
	t.Helper()
	groups := map[string][]string{}
	for path, e := range got {
		if e.Mode&unix.S_IFMT != unix.S_IFLNK && e.Source != "" {
			path = e.Source
		}
		groups[path] = append(groups[path], e.Path)
	}
	for path, w := range want {
		e, ok := got[path]
		if !ok {
			t.Errorf("%s: %q is missing", name, path)
			continue
		}
		var original unix.Stat_t
		if err := unix.Lstat(filepath.Join(tree, path), &original); err != nil {
			t.Fatal(err)
		}
		if e.Mode != w.Mode || e.UID != w.Uid || e.GID != w.Gid || e.User != nameOf(w.Uid) || e.Group != groupOf(w.Gid) || e.Rdev != w.Rdev {
			t.Errorf("%s: %q: %+v, extracted as %+v", name, path, e.Item, w.Stat_t)
		}
		if path == "." { // restored too early: what came after it changed its times
			w.Mtim, w.Atim = original.Mtim, unix.NsecToTimespec(e.Atime)
		}
		if e.Mtime != w.Mtim.Nano() || !e.HasAtime || e.Atime != w.Atim.Nano() || !e.HasCtime || e.Ctime != original.Ctim.Nano() {
			t.Errorf("%s: %q: times differ: %+v, extracted as %+v", name, path, e.Item, w.Stat_t)
		}
		xattrs := map[string]string{}
		for _, x := range e.Xattrs {
			xattrs[x.Name] = string(x.Value)
		}
		if !maps.Equal(xattrs, w.xattrs) {
			t.Errorf("%s: %q: xattrs %q, extracted as %q", name, path, xattrs, w.xattrs)
		}
		if acls := [2]string{aclText(e.ACLAccess), aclText(e.ACLDefault)}; w.acls != [2]string{} && acls != w.acls || w.acls == [2]string{} && acls[1] != "" {
			t.Errorf("%s: %q: acls %q, extracted as %q", name, path, acls, w.acls)
		}
		if (e.BSDFlags == 1) != w.noDump || e.BSDFlags > 1 || e.Damaged {
			t.Errorf("%s: %q: flags %d, extracted with no-dump %v", name, path, e.BSDFlags, w.noDump)
		}
		if w.Mode&unix.S_IFMT == unix.S_IFLNK {
			if e.Source != w.target {
				t.Errorf("%s: %q: link to %q, extracted to %q", name, path, e.Source, w.target)
			}
			continue
		}
		master := path
		if e.Source != "" {
			master = e.Source
			e = got[master]
		}
		if w.links != "" {
			slices.Sort(groups[master])
			slices.SortFunc(groups[master], func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
			if links := fmt.Sprintf("%q", groups[master]); links != w.links {
				t.Errorf("%s: %q: hard links %s, extracted %s", name, path, links, w.links)
			}
		}
		if w.Mode&unix.S_IFMT == unix.S_IFREG && (e.sum != sha256.Sum256(w.body) || e.Size != int64(len(w.body))) {
			t.Errorf("%s: %q: %d bytes, or content, differ", name, path, e.Size)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d items, %d entries extracted", name, len(got), len(want))
	}
}

// nameOf and groupOf give what borg records; "" is recorded for who has no name.
func nameOf(uid uint32) string {
	if u, err := user.LookupId(fmt.Sprint(uid)); err == nil {
		return u.Username
	}
	return ""
}

func groupOf(gid uint32) string {
	if g, err := user.LookupGroupId(fmt.Sprint(gid)); err == nil {
		return g.Name
	}
	return ""
}

// xattrsOf gives a file's extended attributes but for access control lists.
func xattrsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	names, all := make([]byte, 64<<10), map[string]string{}
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) {
		return all
	} else if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(value[:n])
	}
	return all
}

// aclsOf gives the access and default lists of those files in a tree that have
// more than their mode.
func aclsOf(t *testing.T, dir string) map[string][2]string {
	t.Helper()
	if _, err := exec.LookPath("getfacl"); err != nil {
		return nil
	}
	cmd := exec.Command("getfacl", "-R", "-s", "-n", "-P", "-E", ".")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][2]string{}
	for block := range strings.SplitSeq(string(out), "\n\n") {
		var path string
		var text [2]string
		for line := range strings.SplitSeq(block, "\n") {
			if p, ok := strings.CutPrefix(line, "# file: "); ok {
				path = p
			} else if rest, ok := strings.CutPrefix(line, "default:"); ok {
				text[1] += rest + "\n"
			} else if !strings.HasPrefix(line, "#") {
				text[0] += line + "\n"
			}
		}
		if path != "" {
			all[path] = [2]string{aclText([]byte(text[0])), aclText([]byte(text[1]))}
		}
	}
	return all
}

// aclText gives a list in one form, whoever wrote it: an entry of borg's has a
// fourth field, the number of whom the second one names.
func aclText(acl []byte) string {
	var lines []string
	for line := range strings.Lines(string(acl)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 4 { // where the mask limits it, a tab stands behind the third
			f = []string{f[0], f[3], strings.TrimSpace(f[2])}
		}
		lines = append(lines, strings.Join(f, ":"))
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// noDump is the flag that borg calls 1.
const noDump = 0x40

// setNoDump sets a file's flag where the file system has it.
func setNoDump(t testing.TB, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|noDump); err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
	}
}

func hasNoDump(t testing.TB, path string) bool {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	return err == nil && flags&noDump != 0
}

// readRanges reads at random and in sequence, from many goroutines at once.
func readRanges(t *testing.T, r *borgio.Repository, e entry, want []byte) {
	t.Helper()
	f := r.OpenFile(e.Chunks)
	defer f.Close()
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 0))
			for range 50 {
				off, n := rnd.IntN(len(want)), rnd.IntN(200_000)
				p := make([]byte, n)
				got, err := f.ReadAtContext(t.Context(), p, int64(off))
				end := min(off+n, len(want))
				if got != end-off || !bytes.Equal(p[:got], want[off:end]) || err != nil && (!errors.Is(err, io.EOF) || got == n) {
					t.Errorf("read %d at %d: got %d, %v", n, off, got, err)
				}
			}
		})
	}
	wg.Wait()
	all, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil || !bytes.Equal(all, want) {
		t.Errorf("sequential read: %d bytes, %v", len(all), err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.OpenFile(e.Chunks).WriteToContext(cancelled, io.Discard); err == nil {
		t.Error("a cancelled stream went on")
	}
}
