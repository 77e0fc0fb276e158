package borgio_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

// runBorg runs stock borg and gives its standard output.
func runBorg(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("borg", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("borg %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// needBorg skips the test where there is no borg, and makes what there is use
// files of this test alone.
func needBorg(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	t.Setenv("BORG_PASSPHRASE", "s4-test")
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
}

// fillTree makes a tree with every kind of entry.
func fillTree(t testing.TB, dir string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	write := func(name string, size int) {
		b := make([]byte, size)
		random.Read(b)
		check(os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	check(os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	write("big", 9<<20)
	write("a/small", 4096)
	write("a/b/empty", 0)
	write("name with \xff\xfe bytes and ü", 10)
	write("old", 3)
	write("future", 3)
	check(os.Chtimes(filepath.Join(dir, "old"), time.Time{}, time.Date(1960, 1, 1, 0, 0, 0, 1, time.UTC)))
	check(os.Chtimes(filepath.Join(dir, "future"), time.Time{}, time.Date(2100, 1, 1, 0, 0, 0, 1, time.UTC)))
	check(os.Truncate(filepath.Join(dir, "old"), 6<<20)) // a hole
	check(os.Chtimes(filepath.Join(dir, "old"), time.Time{}, time.Date(1960, 1, 1, 0, 0, 0, 1, time.UTC)))
	check(os.Link(filepath.Join(dir, "a/small"), filepath.Join(dir, "a/b/hard")))
	check(os.Link(filepath.Join(dir, "a/small"), filepath.Join(dir, "zz-hard")))
	check(os.Symlink("../big", filepath.Join(dir, "a/link")))
	check(os.Symlink("nowhere/\xff", filepath.Join(dir, "dangling")))
	check(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	check(os.Chmod(filepath.Join(dir, "a/small"), 0o4751))
	check(unix.Setxattr(filepath.Join(dir, "big"), "user.note", []byte("v\x00\xff"), 0))
	check(unix.Setxattr(filepath.Join(dir, "big"), "user.empty", nil, 0))
	if os.Geteuid() == 0 {
		check(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		check(unix.Mknod(filepath.Join(dir, "disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
		check(os.Lchown(filepath.Join(dir, "a/b/c"), 12345, 54321))
	}
	for i := range 300 {
		write("a/b/c/f"+string(rune('a'+i%26))+strings.Repeat("x", i/26), i)
	}
}

// compareTree compares what an archive holds with the tree that it was made of.
func compareTree(t *testing.T, got map[string]entry, tree string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		rel, _ := filepath.Rel(tree, path)
		e, ok := got[rel]
		if !ok {
			t.Errorf("%q is missing", rel)
			return nil
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		mtime := min(max(st.Mtim.Nano(), 0), 2147310847e9) // borg keeps to what 32 bits can tell
		if e.Mode != st.Mode || e.UID != st.Uid || e.GID != st.Gid || e.Mtime != mtime || !e.HasCtime || e.Ctime != st.Ctim.Nano() {
			t.Errorf("%q: metadata differs: %+v from %+v", rel, e.Item, st)
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFLNK:
			if target, _ := os.Readlink(path); e.Source != target {
				t.Errorf("%q: link to %q, want %q", rel, e.Source, target)
			}
		case syscall.S_IFCHR, syscall.S_IFBLK:
			if e.Rdev != st.Rdev {
				t.Errorf("%q: device %d, want %d", rel, e.Rdev, st.Rdev)
			}
		case syscall.S_IFREG:
			if e.Source != "" {
				e = got[e.Source]
				if !e.HardlinkMaster {
					t.Errorf("%q: linked to what is no master", rel)
				}
			}
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if e.sum != sha256.Sum256(body) || e.Size != int64(len(body)) {
				t.Errorf("%q: content differs", rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(got) {
		t.Errorf("%d items for %d entries", len(got), seen)
	}
}

// rsh makes a shell script that stands in for ssh: it forgets about the host and
// runs the command here. It adds a line to the file calls each time.
func rsh(t testing.TB) (program, calls string) {
	dir := t.TempDir()
	program, calls = filepath.Join(dir, "rsh"), filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho $$ >>" + calls + "\nshift\nexec \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, calls
}

func remoteOptions(t testing.TB, program string) borgio.Options {
	return borgio.Options{Environ: environ("BORG_RSH=/bin/sh "+program, "BORG_PASSPHRASE=s4-test", "BORG_BASE_DIR="+os.Getenv("BORG_BASE_DIR"))}
}

// TestDifferential compares a tree, what borg says of its archive, and what is
// read here, both in place and through borg serve.
func TestDifferential(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	fillTree(t, tree)
	runBorg(t, tree, "init", "-e", "repokey-blake2", repo)
	runBorg(t, tree, "create", "-C", "auto,zstd", repo+"::all", ".")
	listed := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(runBorg(t, tree, "list", "--json-lines", repo+"::all")))
	for lines.Scan() {
		var e struct {
			Path, Source string
			User, Group  any // a number where the owner has no name
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		user, _ := e.User.(string)
		group, _ := e.Group.(string)
		listed[e.Path] = e.Source + " " + user + " " + group
	}
	program, calls := rsh(t)
	for name, where := range map[string]string{"local": repo, "remote": "host:" + repo} {
		t.Run(name, func(t *testing.T) {
			r := mustOpen(t, where, remoteOptions(t, program))
			got := readArchive(t, r, "all")
			compareTree(t, got, tree)
			if len(listed) != len(got) {
				t.Errorf("borg lists %d, we read %d", len(listed), len(got))
			}
			for path, e := range got {
				if strings.Contains(path+e.Source, "\xff") {
					continue // JSON cannot tell it
				}
				if want, ok := listed[path]; !ok || want != e.Source+" "+e.User+" "+e.Group {
					t.Errorf("%q: borg says %q, we say %q", path, want, e.Source+" "+e.User+" "+e.Group)
				}
			}
			if x := got["big"].Xattrs; len(x) != 2 || x[0].Name != "user.empty" || len(x[0].Value) != 0 || string(x[1].Value) != "v\x00\xff" {
				t.Errorf("xattrs: %q", x)
			}
			readRanges(t, r, got["big"], filepath.Join(tree, "big"))
			if name == "remote" {
				// A guard and a reader, and another guard if the manifest was asked for late.
				if b, _ := os.ReadFile(calls); bytes.Count(b, []byte("\n")) > 3 {
					t.Errorf("processes started:\n%s", b)
				}
			}
		})
	}
}

// readRanges reads at random and in sequence, from many goroutines at once.
func readRanges(t *testing.T, r *borgio.Repository, e entry, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
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

// TestWritersGoOn: reading keeps no writer out, neither here nor through borg
// serve, and what writers do meanwhile disturbs no reader.
func TestWritersGoOn(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	if err := os.WriteFile(tree+"/f", bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	runBorg(t, tree, "init", "-e", "none", repo)
	runBorg(t, tree, "create", repo+"::keep", ".")
	program, _ := rsh(t)
	local := mustOpen(t, repo, borgio.Options{})
	remote := mustOpen(t, "host:"+repo, remoteOptions(t, program))
	want := sha256.Sum256(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))

	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				t.Logf("%d readings", n)
				return
			default:
				if readArchive(t, local, "keep")["f"].sum != want {
					t.Error("content differs")
				}
			}
		}
	})
	readArchive(t, remote, "keep") // and the session is idle from now on
	for range 2 {
		runBorg(t, tree, "create", "--lock-wait", "20", repo+"::more", ".")
		runBorg(t, tree, "delete", "--lock-wait", "20", repo+"::more")
		runBorg(t, tree, "compact", "--threshold", "0", repo)
	}
	close(stop)
	reading.Wait()
	runBorg(t, tree, "create", repo+"::last", ".")
	for name, r := range map[string]*borgio.Repository{"local": local, "remote": remote} {
		m, err := r.Manifest(t.Context())
		if err != nil || len(m.Archives) != 2 || m.Archives[1].Name != "last" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
