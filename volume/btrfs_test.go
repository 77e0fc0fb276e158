package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/fusefs"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// TestBtrfsPast: rsync, which looks at everything, finds no difference between a
// btrfs snapshot and what the mount shows of it, or what is restored from it.
func TestBtrfsPast(t *testing.T) {
	for _, tool := range []string{"rsync", "setfattr", "setfacl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	disk := btrfstest.New(t)
	sh := func(dir, script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	sh(disk, `btrfs -q subvolume create v; mkdir snaps; cd v
		mkdir -p d/deep 'sp ace' .s4/local; printf content > d/a; ln d/a d/deep/b; ln d/a 0first; echo private > .s4/local/p
		ln -s target link; mkfifo fifo; mknod char c 1 3; touch -hd 2001-02-03 link
		setfattr -n user.x -v y d/a; setfattr -n trusted.t -v z d/deep; setfacl -m u:1234:r d/a; setfacl -d -m g:12:rwx d
		printf x | dd of=sparse bs=1 seek=50000000 conv=notrunc status=none; truncate -s 100M sparse
		head -c 9000000 /dev/urandom > big; chown 12345:54321 big; chmod 4755 big; printf x > $'\xff\xfe'
		mkdir many; for i in $(seq 300); do echo $i > many/$i; done
		sync -f .; btrfs -q subvolume snapshot -r . ../snaps/one
		chmod 600 d/a; echo more >> many/7; rm many/8; sync -f .; btrfs -q subvolume snapshot -r . ../snaps/two`)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	infos := []snapshot.Info{{Handle: "one", Time: at}, {Handle: "two", Time: at.Add(time.Minute)}}
	src := history.NewBtrfsSource("vol", filepath.Join(disk, "snaps"), func(context.Context) ([]snapshot.Info, error) { return infos, nil }, private, nil)

	ix, err := openIndex(t.Context(), filepath.Join(t.TempDir(), "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	past := newPast(ix, testAccess(t))
	defer past.Close()
	past.Join(src)
	if err := errors.Join(past.Refresh(t.Context()), past.Fill(t.Context(), history.FillOptions{})); err != nil {
		t.Fatal(err)
	}
	mnt := t.TempDir()
	server, err := fusefs.Mount(mnt, fusefs.Options{History: past, Follow: true, FSName: "btrfs-past"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Unmount(); err != nil {
			t.Error(err, fusefs.Unmount(mnt, true))
		}
	}()
	same := func(snap, other string) {
		t.Helper()
		if out := sh(disk, "rsync -naicHAX --delete --exclude /.s4 "+filepath.Join("snaps", snap)+"/ "+other+"/"); out != "" {
			t.Errorf("%s differs from %s:\n%s", other, snap, out)
		}
	}
	first := filepath.Join(mnt, ".s4/history/2026-01-01T00-00-00Z")
	same("one", first)
	same("two", filepath.Join(mnt, ".s4/history/latest"))
	if out := sh(first, "ls -A .s4"); strings.Contains(out, "local") {
		t.Errorf("private files are shown: %s", out)
	}
	testSparse(t, filepath.Join(first, "sparse"), filepath.Join(disk, "snaps/one/sparse"))

	// Restored, and brought to the other.
	line, err := past.Timeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(disk, "restored")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := worktree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	bring := func(s snapshot.Info) worktree.Result {
		t.Helper()
		target, err := past.withContent(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := root.Plan(t.Context(), target, worktree.PlanOptions{Options: worktree.Options{Exclude: private}, Source: target, Delete: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := root.Apply(t.Context(), plan, worktree.ApplyOptions{Source: target})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	bring(line[0])
	same("one", dir)
	// One file is written. That whose mode changed is not: its bytes are right.
	if got := bring(line[1]); got.Created != 0 || got.Replaced != 1 || got.Deleted != 1 || got.Fetched != 7 {
		t.Errorf("brought to the other snapshot by %+v", got)
	}
	same("two", dir)
}

// testSparse finds the same data in both files, and no more blocks.
func testSparse(t *testing.T, shown, real string) {
	t.Helper()
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(shown, &a), unix.Stat(real, &b)); err != nil {
		t.Fatal(err)
	}
	if a.Size != b.Size || a.Blocks != b.Blocks {
		t.Errorf("%s has %d bytes in %d blocks, on disk %d in %d", shown, a.Size, a.Blocks, b.Size, b.Blocks)
	}
	edges := func(path string) (all string) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for at, whence := int64(0), unix.SEEK_DATA; ; whence = unix.SEEK_DATA + unix.SEEK_HOLE - whence {
			if at, err = unix.Seek(int(f.Fd()), at, whence); err != nil {
				return all + fmt.Sprint(err)
			}
			all += fmt.Sprint(at, " ")
		}
	}
	if got, want := edges(shown), edges(real); got != want {
		t.Errorf("data begins and ends at %s, on disk at %s", got, want)
	}
}

// On btrfs a push tells when what it pushes can no longer change, and what is
// written from then on is not in it.
func TestCaptured(t *testing.T) {
	root := filepath.Join(btrfstest.New(t), "v")
	if out, err := exec.CommandContext(t.Context(), "btrfs", "subvolume", "create", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v, _, err := Init(root, InitOptions{}, testAccess(t))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	place := t.TempDir()
	if _, err := v.AddRemote("origin", place, "none"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	captured := 0
	if err := v.Probe(t.Context(), "origin"); err != nil {
		t.Errorf("a repository that is to be made: %v", err)
	}
	r, err := v.Push(t.Context(), PushOptions{Captured: func() { captured++; write("after!") }})
	if err != nil || captured != 1 {
		t.Fatalf("captured %d times, %v", captured, err)
	}
	borg := exec.CommandContext(t.Context(), "borg", "extract", "--stdout", filepath.Join(place, "v")+"::"+r.Snapshot.Name, "file")
	borg.Env = append(os.Environ(), "BORG_BASE_DIR="+t.TempDir(), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
	if got, err := borg.Output(); err != nil || string(got) != "before" {
		t.Errorf("pushed %q, %v", got, err)
	}
	if err := v.Probe(t.Context(), "origin"); err != nil {
		t.Errorf("its own repository: %v", err)
	}
	other, _, err := Init(filepath.Join(t.TempDir(), "v"), InitOptions{}, testAccess(t))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.AddRemote("origin", place, "none"); err != nil {
		t.Fatal(err)
	}
	if err := other.Probe(t.Context(), "origin"); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("another volume's repository: %v", err)
	}
	if err := os.Rename(place, place+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := v.Probe(t.Context(), "origin"); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Errorf("a place that is away: %v", err)
	}
}
