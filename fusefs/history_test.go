package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTree makes a volume with an entry of every kind in it.
func newTree(t *testing.T) string {
	t.Helper()
	dir := newVolume(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("file"), "hello\n")
	write(t, at("empty"), "")
	write(t, at("sub/deep/er/file"), strings.Repeat("0123456789abcdef", 40_000))
	write(t, at("sub/.s4/config"), "not ours")
	write(t, at("name with \xff and \n"), "bytes")
	for i := range pageEntries + 5 {
		write(t, at(fmt.Sprintf("wide/%05d", i)), fmt.Sprint(i))
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Link(at("file"), at("sub/hardlink")))
	must(os.Symlink("../file", at("sub/symlink")))
	must(os.Symlink("/etc/passwd", at("absolute")))
	must(unix.Mkfifo(at("fifo"), 0o640))
	must(unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Setxattr(at("file"), "user.color", []byte("green"), 0))
	must(unix.Setxattr(at("sub"), "user.empty", nil, 0))
	must(os.Chown(at("empty"), 1000, 1001))
	must(os.Chmod(at("empty"), 0o4750))
	must(os.Chmod(at("wide"), 0o1700))
	run(t, tool(t, "setfacl"), "-m", "u:1234:r", at("file"))
	run(t, tool(t, "setfacl"), "-d", "-m", "g:77:rx", at("sub"))
	for i, name := range []string{"file", "sub/symlink", "sub", "empty"} {
		ns := []unix.Timespec{{Sec: 1e9, Nsec: 1}, {Sec: int64(-100 + 1e9*i), Nsec: 123456789}}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, at(name), ns, unix.AT_SYMLINK_NOFOLLOW))
	}
	must(os.RemoveAll(at(".s4/local"))) // never in a snapshot
	return dir
}

func TestFidelity(t *testing.T) {
	tree := newTree(t)
	h := newFakeHistory()
	info := h.add(t, tree, time.Unix(1_700_000_000, 0))
	mnt := mountLive(t, newVolume(t), h, nil)
	snap := filepath.Join(mnt, ".s4/history", info.Dir)

	// Twice: from us and from what the kernel kept.
	for range 2 {
		args := []string{tool(t, "rsync"), "-naicHAX", "--delete", snap + "/", tree + "/"}
		if out := run(t, args...); out != "" {
			t.Errorf("rsync finds:\n%s", out)
		}
		if out := run(t, "diff", "-r", "--no-dereference", "-x", "fifo", "-x", "null", snap, tree); out != "" {
			t.Errorf("diff finds:\n%s", out)
		}
	}
	list := func(dir string) string {
		return run(t, "sh", "-c", "cd "+dir+" && find . -printf '%p %y %l\\n' | sort")
	}
	if list(snap) != list(tree) {
		t.Error("find differs")
	}
	var a, b unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"file": &a, "sub/hardlink": &b} {
		if err := unix.Lstat(filepath.Join(snap, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("hard links: inodes %x and %x, %d links", a.Ino, b.Ino, a.Nlink)
	}
	if a.Ino&bitHistory == 0 {
		t.Errorf("inode %x could be a live one", a.Ino)
	}
	if a.Mtim.Nsec != 123456789 || a.Mtim.Sec != -100 {
		t.Errorf("time %v", a.Mtim)
	}
	for _, how := range []string{"-s", "-sb"} {
		past, live := run(t, "du", how, filepath.Join(snap, "sub/deep")), run(t, "du", how, filepath.Join(tree, "sub/deep"))
		if past, live := strings.Fields(past)[0], strings.Fields(live)[0]; past != live {
			t.Errorf("du %s: %s instead of %s", how, past, live)
		}
	}
}

func TestInodeNumbers(t *testing.T) {
	tree := newVolume(t)
	write(t, filepath.Join(tree, "same"), "same")
	write(t, filepath.Join(tree, "differs"), "one")
	h := newFakeHistory()
	first := h.add(t, tree, time.Unix(1_700_000_000, 0))
	write(t, filepath.Join(tree, "differs"), "other")
	second := h.add(t, tree, time.Unix(1_700_000_100, 0))

	ino := func(mnt, dir, name string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(mnt, ".s4/history", dir, name), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	mnt, again := mountLive(t, newVolume(t), h, nil), mountLive(t, newVolume(t), h, nil)
	if a, b := ino(mnt, first.Dir, "same"), ino(mnt, second.Dir, "same"); a != b {
		t.Errorf("an unchanged file has inodes %x and %x", a, b)
	}
	if a, b := ino(mnt, first.Dir, "differs"), ino(mnt, second.Dir, "differs"); a == b {
		t.Errorf("two versions have inode %x", a)
	}
	if a, b := ino(mnt, first.Dir, ""), ino(mnt, second.Dir, ""); a == b {
		t.Errorf("two directories have inode %x", a)
	}
	if a, b := ino(mnt, first.Dir, "same"), ino(again, first.Dir, "same"); a != b {
		t.Errorf("another mount shows inode %x, not %x", b, a)
	}
}

func TestReadOnly(t *testing.T) {
	tree := newTree(t)
	h := newFakeHistory()
	info := h.add(t, tree, time.Unix(1_700_000_000, 0))
	mnt := mountLive(t, newVolume(t), h, nil)
	history := filepath.Join(mnt, ".s4/history")
	snap := filepath.Join(history, info.Dir)
	file := filepath.Join(snap, "file")
	open := func(flags int) error {
		f, err := os.OpenFile(file, flags, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
	for what, err := range map[string]error{
		"write":       open(os.O_WRONLY),
		"append":      open(os.O_RDWR | os.O_APPEND),
		"truncate":    os.Truncate(file, 0),
		"create":      os.WriteFile(filepath.Join(snap, "new"), nil, 0o644),
		"mkdir":       os.Mkdir(filepath.Join(snap, "new"), 0o755),
		"remove":      os.Remove(file),
		"rmdir":       syscall.Rmdir(filepath.Join(snap, "sub")),
		"rename":      os.Rename(file, filepath.Join(snap, "other")),
		"link":        os.Link(file, filepath.Join(snap, "other")),
		"symlink":     os.Symlink("x", filepath.Join(snap, "other")),
		"mknod":       unix.Mkfifo(filepath.Join(snap, "other"), 0o644),
		"chmod":       os.Chmod(file, 0o600),
		"chown":       os.Chown(file, 1, 1),
		"utimes":      os.Chtimes(file, time.Now(), time.Now()),
		"setxattr":    unix.Setxattr(file, "user.x", []byte("x"), 0),
		"removexattr": unix.Removexattr(file, "user.color"),
		"new moment":  os.Mkdir(filepath.Join(history, "new"), 0o755),
		"drop moment": syscall.Rmdir(snap),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"out of history": os.Rename(file, filepath.Join(mnt, "stolen")),
		"into history":   os.Rename(filepath.Join(mnt, ".s4/config"), filepath.Join(snap, "x")),
		"link":           os.Link(file, filepath.Join(mnt, "linked")),
	} {
		if !errors.Is(err, syscall.EXDEV) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Refusals must not have cost the live side anything: ENOSYS would have.
	live := filepath.Join(mnt, "live")
	run(t, "sh", "-c", "cp -a "+file+" "+live+" && sync "+live+" && setfattr -n user.a -v b "+live+" && fallocate -l 8192 "+live)
	if got := run(t, "getfattr", "--absolute-names", "--only-values", "-n", "user.color", live); got != "green" {
		t.Errorf("copied attribute: %q", got)
	}
}

func TestXattrErrors(t *testing.T) {
	h := newFakeHistory()
	h.add(t, newTree(t), time.Unix(1_700_000_000, 0))
	file := filepath.Join(mountLive(t, newVolume(t), h, nil), ".s4/history/latest/file")
	if _, err := unix.Getxattr(file, "user.none", nil); err != unix.ENODATA {
		t.Errorf("missing: %v", err)
	}
	if _, err := unix.Getxattr(file, "user.color", make([]byte, 2)); err != unix.ERANGE {
		t.Errorf("small buffer: %v", err)
	}
	if n, err := unix.Getxattr(file, "user.color", nil); err != nil || n != 5 {
		t.Errorf("size: %d, %v", n, err)
	}
}

func TestMoments(t *testing.T) {
	tree := newVolume(t)
	h := newFakeHistory()
	first := h.add(t, tree, time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	write(t, filepath.Join(tree, "new"), "new")
	second := h.add(t, tree, time.Date(2026, 11, 22, 15, 41, 42, 0, time.UTC))
	mnt := mountLive(t, newVolume(t), h, nil)
	history := filepath.Join(mnt, ".s4/history")
	if got, want := names(t, history), []string{first.Dir, second.Dir, "latest"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	for name, want := range map[string]string{"latest": second.Dir, "yesterday": first.Dir, "2026-11": second.Dir, "2026-11-20": first.Dir} {
		if got, err := os.Readlink(filepath.Join(history, name)); err != nil || got != want {
			t.Errorf("%s -> %q, %v; want %q", name, got, err, want)
		}
	}
	if got := run(t, "sh", "-c", "cd "+history+"/yesterday && pwd -P"); got != mnt+"/.s4/.history/"+first.Dir+"\n" {
		t.Errorf("pwd: %s", got)
	}
	if got := read(t, filepath.Join(history, "2026/new")); got != "new" {
		t.Error(got)
	}
	for _, name := range []string{"2031", ".hidden", "nonsense"} {
		if _, err := os.Lstat(filepath.Join(history, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNews(t *testing.T) {
	tree := newVolume(t)
	h := newFakeHistory()
	start := time.Unix(1_700_000_000, 0)
	first := h.add(t, tree, start)
	history := filepath.Join(mountLive(t, newVolume(t), h, nil), ".s4/history")
	latest := func() string { s, _ := os.Readlink(filepath.Join(history, "latest")); return s }
	if latest() != first.Dir || len(names(t, history)) != 2 {
		t.Fatalf("at first: %s, %q", latest(), names(t, history))
	}
	open, err := os.Open(filepath.Join(history, first.Dir, ".s4/config"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for i := range 3 {
		write(t, filepath.Join(tree, "n"), fmt.Sprint(i))
		info := h.add(t, tree, start.Add(time.Duration(i+1)*time.Minute))
		eventually(t, time.Second, "latest moves on", func() bool { return latest() == info.Dir })
		eventually(t, time.Second, "listed", func() bool { return slices.Contains(names(t, history), info.Dir) })
		if got := read(t, filepath.Join(history, "latest/n")); got != fmt.Sprint(i) {
			t.Errorf("latest has %q, want %d", got, i)
		}
	}
	h.remove(first.Num)
	eventually(t, time.Second, "pruned snapshot goes", func() bool {
		_, err := os.Lstat(filepath.Join(history, first.Dir))
		return errors.Is(err, os.ErrNotExist) && !slices.Contains(names(t, history), first.Dir)
	})
}

// While the index fills, the time line is there at once; only who enters a
// snapshot that is not indexed waits.
func TestNotYetIndexed(t *testing.T) {
	h, _, first, second := twoSnapshots(t)
	index := h.holdBack()
	history := filepath.Join(mountLive(t, newVolume(t), h, nil), ".s4/history")
	if out := run(t, "ls", "-lL", history); !strings.Contains(out, second.Dir) || !strings.Contains(out, first.Dir) {
		t.Errorf("listed: %s", out)
	}
	if got := read(t, filepath.Join(history, first.Dir, "sub/file")); got != "one" {
		t.Error(got)
	}
	cat := exec.CommandContext(t.Context(), "cat", filepath.Join(history, "latest/sub/file"))
	var out strings.Builder
	cat.Stdout = &out
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	index()
	if err := cat.Wait(); err != nil || out.String() != "two" {
		t.Errorf("once indexed: %q, %v", out.String(), err)
	}
	eventually(t, time.Second, "its own mode", func() bool {
		fi, err := os.Stat(filepath.Join(history, second.Dir))
		return err == nil && fi.Mode().Perm() == 0o755
	})
}

// TestDeleted looks at .s4/deleted: what the newest snapshot lacks.
func TestDeleted(t *testing.T) {
	tree := newVolume(t)
	for _, path := range []string{"docs/old/letter", "docs/kept", "gone/deep/file", "file"} {
		write(t, filepath.Join(tree, path), path)
	}
	h := newFakeHistory()
	h.add(t, tree, time.Unix(1_700_000_000, 0))
	write(t, filepath.Join(tree, "file"), "newer")
	h.add(t, tree, time.Unix(1_700_001_000, 0))
	for _, path := range []string{"docs/old/letter", "gone", "file"} {
		if err := os.RemoveAll(filepath.Join(tree, path)); err != nil {
			t.Fatal(err)
		}
	}
	h.add(t, tree, time.Unix(1_700_002_000, 0))
	mnt := mountLive(t, newVolume(t), h, nil)
	deleted := filepath.Join(mnt, ".s4/deleted")
	for dir, want := range map[string][]string{"": {"docs", "file", "gone"}, "docs": {"old"}, "docs/old": {"letter"}, "gone/deep": {"file"}} {
		if got := names(t, filepath.Join(deleted, dir)); !slices.Equal(got, want) {
			t.Errorf("deleted/%s holds %q, want %q", dir, got, want)
		}
	}
	for path, want := range map[string]string{"docs/old/letter": "docs/old/letter", "gone/deep/file": "gone/deep/file", "file": "newer"} {
		if got := read(t, filepath.Join(deleted, path)); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"docs/kept", "never"} {
		if _, err := os.Lstat(filepath.Join(deleted, path)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestVersions looks at .s4/versions: what there ever was, by path.
func TestVersions(t *testing.T) {
	tree := newVolume(t)
	write(t, filepath.Join(tree, "docs/letter.txt"), "one")
	write(t, filepath.Join(tree, "docs/.profile"), "a")
	write(t, filepath.Join(tree, "gone/file"), "gone")
	h := newFakeHistory()
	first := h.add(t, tree, time.Unix(1_700_000_000, 0))
	write(t, filepath.Join(tree, "docs/letter.txt"), "two, longer")
	if err := os.RemoveAll(filepath.Join(tree, "gone")); err != nil {
		t.Fatal(err)
	}
	second := h.add(t, tree, time.Unix(1_700_001_000, 0))
	if err := os.Chmod(filepath.Join(tree, "docs/.profile"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := h.add(t, tree, time.Unix(1_700_002_000, 0))
	alone := publicDir(t)
	mount(t, alone, Options{History: h})
	for name, mnt := range map[string]string{"live": mountLive(t, newVolume(t), h, nil), "repository": alone} {
		t.Run(name, func(t *testing.T) {
			s4 := filepath.Join(mnt, ".s4")
			versions := filepath.Join(s4, "versions")
			if got := names(t, s4); !slices.Contains(got, "versions") || !slices.Contains(got, "history") {
				t.Fatalf(".s4 holds %q", got)
			}
			if got := names(t, versions); !slices.Contains(got, "docs") || !slices.Contains(got, "gone") {
				t.Fatalf("versions holds %q", got)
			}
			if got, want := names(t, versions+"/docs/letter.txt"), []string{first.Dir + ".txt", second.Dir + ".txt"}; !slices.Equal(got, want) {
				t.Fatalf("versions of the letter %q, want %q", got, want)
			}
			if got, want := names(t, versions+"/docs/.profile"), []string{first.Dir, third.Dir}; !slices.Equal(got, want) {
				t.Fatalf("versions of .profile %q, want %q", got, want)
			}
			for attr, want := range map[string]string{XattrSnapshot: second.Dir, XattrVersions: "2", XattrLocal: "1", XattrDamaged: "0"} {
				buf := make([]byte, 100)
				path := filepath.Join(s4, "history", second.Dir, "docs/letter.txt")
				n, err := unix.Getxattr(path, attr, buf)
				if err != nil || string(buf[:n]) != want {
					t.Errorf("%s is %q instead of %q, %v", attr, buf[:max(n, 0)], want, err)
				}
				if n, err := unix.Listxattr(path, buf); err != nil || n != 0 {
					t.Errorf("listed attributes: %q, %v", buf[:max(n, 0)], err)
				}
			}
			for path, want := range map[string]string{
				"docs/letter.txt/" + first.Dir + ".txt": "one", "docs/letter.txt/" + second.Dir + ".txt": "two, longer",
				"gone/file/" + first.Dir: "gone",
			} {
				if got, err := os.ReadFile(filepath.Join(versions, path)); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v", path, got, err)
				}
			}
			fi, err := os.Stat(versions + "/docs/.profile")
			if err != nil || fi.Mode().Perm() != 0o500 {
				t.Errorf(".profile, once private, is open to all: %v, %v", fi.Mode(), err)
			}
			for _, path := range []string{"never", "docs/never", "docs/letter.txt/" + third.Dir + ".txt", "docs/letter.txt/x"} {
				if _, err := os.Lstat(filepath.Join(versions, path)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s: %v", path, err)
				}
			}
			for what, err := range map[string]error{
				"mkdir":  os.Mkdir(versions+"/new", 0o700),
				"write":  os.WriteFile(versions+"/docs/letter.txt/"+first.Dir+".txt", nil, 0o600),
				"remove": os.Remove(versions + "/docs/letter.txt/" + first.Dir + ".txt"),
			} {
				if !errors.Is(err, syscall.EROFS) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err := os.Remove(versions); err == nil {
				t.Error("versions itself could be removed")
			}
		})
	}
}
