package worktree_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/worktree"
)

// everything makes a tree with every kind of entry.
func everything(t *testing.T, dir string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	write(t, p("plain"), "content")
	write(t, p("empty"), "")
	write(t, p("a/b/c/deep"), strings.Repeat("deep ", 30_000))
	write(t, p("a.b"), "sorts between a and a/b if done wrongly")
	write(t, p("not utf-8 \xff\xfe\nname"), "odd")
	write(t, p("suid"), "#!")
	do(t, os.Chmod(p("suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
	write(t, p("unreadable"), "secret")
	do(t, os.Chmod(p("unreadable"), 0))
	do(t, os.Mkdir(p("sticky"), 0o755), os.Chmod(p("sticky"), 0o777|os.ModeSticky))
	write(t, p("read-only/file"), "x")
	do(t, os.Chmod(p("read-only"), 0o555))
	do(t, os.Symlink("plain", p("link")), os.Symlink("/no/where", p("dangling")))
	do(t, unix.Mkfifo(p("fifo"), 0o640))
	write(t, p("linked"), "three names")
	do(t, os.Link(p("linked"), p("a/linked too")), os.Link(p("linked"), p("z linked")))
	for i := range 2 {
		f, err := os.Create(p([]string{"sparse", "sparse tail"}[i]))
		do(t, err)
		_, err = f.WriteAt([]byte("middle"), 1<<20)
		do(t, err, f.Truncate(4<<20), f.Close())
	}
	do(t, unix.Setxattr(p("plain"), "user.note", []byte("hello\x00there"), 0))
	do(t, unix.Setxattr(p("a"), "user.empty", nil, 0))
	old := []unix.Timespec{{Sec: 1, Nsec: 5}, {Sec: 1_000_000_000, Nsec: 123_456_789}}
	do(t, unix.UtimesNanoAt(unix.AT_FDCWD, p("link"), old, unix.AT_SYMLINK_NOFOLLOW))
	do(t, unix.UtimesNanoAt(unix.AT_FDCWD, p("a/b"), old, 0))
	if hasACLs() {
		run(t, "setfacl", "-m", "u:1234:rw,g:33:r", p("empty"))
		run(t, "setfacl", "-d", "-m", "u:1234:rwx", p("a/b/c"))
	}
	if os.Geteuid() == 0 {
		do(t, os.Lchown(p("plain"), 1000, 1001), os.Lchown(p("link"), 1002, 1003), os.Lchown(p("a"), 7, 8))
		do(t, unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		do(t, unix.Mknod(p("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))))
		do(t, unix.Setxattr(p("plain"), "trusted.x", []byte("t"), 0))
		write(t, p("capable"), "elf")
		if _, err := exec.LookPath("setcap"); err == nil {
			run(t, "setcap", "cap_net_raw+ep", p("capable"))
		}
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func TestEveryKindOfEntry(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	everything(t, from)
	s, stamps := take(t, from), openStamps(t)
	_, res := bring(t, to, s, nil, stamps)
	equal(t, from, to)
	noTemps(t, to)
	clean(t, from, s, nil)
	clean(t, to, s, stamps)
	if res.Unowned+res.Unset > 0 {
		t.Errorf("result %+v: metadata was left out", res)
	}
	if p, _ := bring(t, to, s, s, stamps); !p.Empty() {
		t.Errorf("a second run has actions: %+v", p.Actions)
	}
	for _, name := range []string{"sparse", "sparse tail"} {
		var st unix.Stat_t
		do(t, unix.Stat(filepath.Join(to, name), &st))
		if st.Size != 4<<20 || st.Blocks > 64 {
			t.Errorf("%s: %d bytes in %d blocks, want a hole", name, st.Size, st.Blocks)
		}
	}
	// Into another tree of every kind: nothing of it stays.
	other := t.TempDir()
	write(t, filepath.Join(other, "a"), "a file where a directory goes")
	write(t, filepath.Join(other, "plain/x/y"), "a directory where a file goes")
	write(t, filepath.Join(other, "link"), "a file where a link goes")
	write(t, filepath.Join(other, "extra/file"), "")
	bring(t, other, s, nil, nil)
	equal(t, from, other)
}

func TestInodeFlags(t *testing.T) {
	needRoot(t)
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "d/file"), "x")
	if out, err := exec.Command("chattr", "+i", filepath.Join(from, "d/file")).CombinedOutput(); err != nil {
		need(t, "inode flags do not work here: "+string(out))
	}
	unlock := func() { exec.Command("chattr", "-R", "-i", from, to).Run() }
	defer unlock()
	run(t, "chattr", "+i", filepath.Join(from, "d"))
	s := take(t, from)
	bring(t, to, s, nil, nil)
	got := take(t, to)
	for _, path := range []string{"d", "d/file"} {
		if got.node(path).Flags != s.node(path).Flags || got.node(path).Flags == 0 {
			t.Errorf("%s: flags %d, want %d", path, got.node(path).Flags, s.node(path).Flags)
		}
	}
	// Replacing what is immutable.
	unlock()
	write(t, filepath.Join(from, "d/file"), "changed")
	next := take(t, from)
	run(t, "chattr", "+i", filepath.Join(to, "d/file"), filepath.Join(to, "d"))
	bring(t, to, next, s, nil)
	equal(t, from, to)
}

// TestRandomTrees brings random trees to other random trees.
func TestRandomTrees(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		a, b := t.TempDir(), t.TempDir()
		grow(t, a, rnd, 40)
		run(t, "cp", "-a", a+"/.", b)
		sa, stamps := take(t, a), openStamps(t)
		grow(t, b, rnd, 15) // changes and adds
		shrink(t, b, rnd)
		sb := take(t, b)
		var base *store
		if seed%2 == 0 {
			base = sa
		}
		bring(t, a, sb, base, stamps)
		equal(t, b, a)
		clean(t, a, sb, stamps)
		// And back, with stamps from the first way.
		bring(t, a, sa, sb, stamps)
		clean(t, a, sa, stamps)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// grow puts n random entries into dir, over whatever is there.
func grow(t *testing.T, dir string, rnd *rand.Rand, n int) {
	t.Helper()
	names := []string{"a", "b", "c", "a.x", "d d", "\xff"}
	for range n {
		path := dir
		for range 1 + rnd.IntN(3) {
			if st, err := os.Lstat(path); err == nil && !st.IsDir() {
				do(t, os.RemoveAll(path))
			}
			do(t, os.MkdirAll(path, 0o755))
			path = filepath.Join(path, names[rnd.IntN(len(names))])
		}
		var other string
		filepath.Walk(dir, func(p string, st os.FileInfo, _ error) error {
			if st != nil && st.Mode().IsRegular() && rnd.IntN(3) == 0 {
				other = p
			}
			return nil
		})
		do(t, os.RemoveAll(path))
		switch kind := rnd.IntN(10); {
		case kind < 5:
			b := bytes.Repeat([]byte{byte(rnd.IntN(3))}, rnd.IntN(50_000))
			do(t, os.WriteFile(path, b, os.FileMode(0o400+rnd.IntN(0o400))))
		case kind < 6:
			do(t, os.Mkdir(path, os.FileMode(0o700+rnd.IntN(0o77))))
		case kind < 7:
			do(t, os.Symlink(names[rnd.IntN(3)], path))
		case kind < 8:
			do(t, unix.Mkfifo(path, 0o600))
		default:
			if _, err := os.Lstat(other); err != nil {
				continue
			}
			do(t, os.Link(other, path))
		}
		if rnd.IntN(4) == 0 {
			unix.Lsetxattr(path, "user.k", []byte{byte(rnd.IntN(2))}, 0)
		}
		if rnd.IntN(2) == 0 {
			at := time.Unix(int64(rnd.IntN(3)), 0)
			do(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), unix.NsecToTimespec(at.UnixNano() + 1)}, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
}

func shrink(t *testing.T, dir string, rnd *rand.Rand) {
	t.Helper()
	var doomed []string
	filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error {
		if p != dir && rnd.IntN(5) == 0 {
			doomed = append(doomed, p)
		}
		return nil
	})
	for _, p := range doomed {
		do(t, os.RemoveAll(p))
	}
}

func TestPartOfATree(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "a/b/wanted"), "w")
	write(t, filepath.Join(from, "a/b2"), "not wanted")
	do(t, os.Chmod(filepath.Join(from, "a/b"), 0o710))
	write(t, filepath.Join(to, "own"), "stays")
	s := take(t, from)
	r := open(t, to)
	p, err := r.Plan(t.Context(), s, worktree.PlanOptions{
		Options: worktree.Options{Paths: []string{"a/b/wanted"}}, Source: source{s}, Delete: true})
	do(t, err)
	if _, err := os.Stat(filepath.Join(to, "a")); err == nil {
		t.Fatal("planning changed the tree")
	}
	var last worktree.Progress
	_, err = r.Apply(t.Context(), p, worktree.ApplyOptions{Source: source{s}, Progress: func(p worktree.Progress) { last = p }})
	do(t, err)
	if want := (worktree.Progress{Done: 3, Actions: 3, Bytes: 1, AllOfThem: 1}); last != want {
		t.Errorf("progress ends at %+v, want %+v", last, want)
	}
	if got := read(t, filepath.Join(to, "a/b/wanted")); got != "w" {
		t.Errorf("content %q", got)
	}
	if _, err := os.Stat(filepath.Join(to, "a/b2")); err == nil {
		t.Error("a path outside the scope was brought")
	}
	if st, err := os.Stat(filepath.Join(to, "a/b")); err != nil || st.Mode().Perm() != 0o710 {
		t.Errorf("directory above: %v, %v", st.Mode(), err)
	}
	if got := read(t, filepath.Join(to, "own")); got != "stays" {
		t.Errorf("own file: %q", got)
	}
}
