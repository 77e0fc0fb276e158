package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// twoSnapshots makes a history of a tree whose file says "one", then "two".
func twoSnapshots(t *testing.T) (h *fakeHistory, tree string, first, second snapshot.Info) {
	t.Helper()
	tree = newVolume(t)
	if err := os.RemoveAll(filepath.Join(tree, ".s4/local")); err != nil {
		t.Fatal(err)
	}
	h = newFakeHistory()
	write(t, filepath.Join(tree, "sub/file"), "one")
	first = h.add(t, tree, time.Unix(1_700_000_000, 0))
	write(t, filepath.Join(tree, "sub/file"), "two")
	second = h.add(t, tree, time.Unix(1_700_000_100, 0))
	return h, tree, first, second
}

func TestRepositoryMount(t *testing.T) {
	h, tree, first, second := twoSnapshots(t)
	mnt := publicDir(t)
	mount(t, mnt, Options{History: h})
	if got := read(t, filepath.Join(mnt, "sub/file")); got != "two" {
		t.Errorf("root has %q", got)
	}
	if got, want := names(t, mnt), []string{".s4", "sub"}; !slices.Equal(got, want) {
		t.Errorf("root: %q, want %q", got, want)
	}
	if got, want := names(t, filepath.Join(mnt, ".s4")), []string{"config", "deleted", "history", "versions"}; !slices.Equal(got, want) {
		t.Errorf(".s4: %q, want %q", got, want)
	}
	if got := read(t, filepath.Join(mnt, ".s4/config")); !strings.Contains(got, "test") {
		t.Errorf("the snapshot's own config: %q", got)
	}
	for dir, want := range map[string]string{first.Dir: "one", second.Dir: "two", "latest": "two"} {
		if got := read(t, filepath.Join(mnt, ".s4/history", dir, "sub/file")); got != want {
			t.Errorf("%s has %q, want %q", dir, got, want)
		}
	}
	// The same directory from both sides, in turn: neither may steal the other's place.
	for range 2 {
		for _, dir := range []string{mnt + "/sub", mnt + "/.s4/.history/" + second.Dir + "/sub"} {
			if got := run(t, "sh", "-c", "cd "+dir+" && pwd -P && ls"); got != dir+"\nfile\n" {
				t.Errorf("in %s: %s", dir, got)
			}
		}
	}
	if out := run(t, "find", mnt); strings.Contains(out, "loop") {
		t.Error(out)
	}
	if err := os.WriteFile(filepath.Join(mnt, "new"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write: %v", err)
	}
	// It was asked for the newest; that does not move on.
	write(t, filepath.Join(tree, "sub/file"), "three")
	third := h.add(t, tree, time.Unix(1_700_000_200, 0))
	eventually(t, time.Second, "third listed", func() bool {
		return slices.Contains(names(t, filepath.Join(mnt, ".s4/history")), third.Dir)
	})
	if got := read(t, filepath.Join(mnt, "sub/file")); got != "two" {
		t.Errorf("root moved to %q", got)
	}
}

// Absolute links lead out of a snapshot, unless that is not wanted.
func TestTransformSymlinks(t *testing.T) {
	h, tree := newFakeHistory(), newVolume(t)
	write(t, filepath.Join(tree, "etc/os/release"), "old")
	for at, target := range map[string]string{"abs": "/etc/os/release", "etc/os/abs": "/etc/os/release", "etc/rel": "os/release"} {
		if err := os.Symlink(target, filepath.Join(tree, at)); err != nil {
			t.Fatal(err)
		}
	}
	first := h.add(t, tree, time.Unix(1_700_000_000, 0))
	as, inside := publicDir(t), publicDir(t)
	mount(t, as, Options{History: h})
	mount(t, inside, Options{History: h, MountOptions: []string{"noatime,transform_symlinks"}})
	if got, err := os.Readlink(filepath.Join(as, "abs")); err != nil || got != "/etc/os/release" {
		t.Errorf("as it is: %q, %v", got, err)
	}
	for _, root := range []string{inside, filepath.Join(inside, ".s4/history", first.Dir)} {
		for _, name := range []string{"abs", "etc/os/abs", "etc/rel"} {
			if got := read(t, filepath.Join(root, name)); got != "old" {
				t.Errorf("%s/%s leads to %q", root, name, got)
			}
		}
	}
}

func TestRepositoryMountFollows(t *testing.T) {
	h := newFakeHistory()
	mnt := publicDir(t)
	mount(t, mnt, Options{History: h, Follow: true})
	if got := names(t, mnt); !slices.Equal(got, []string{".s4"}) {
		t.Errorf("without a snapshot: %q", got)
	}
	tree := newVolume(t)
	for i, text := range []string{"one", "two", "three"} {
		write(t, filepath.Join(tree, "sub/file"), text)
		h.add(t, tree, time.Unix(1_700_000_000+int64(i), 0))
		eventually(t, 2*time.Second, "root shows "+text, func() bool {
			data, _ := os.ReadFile(filepath.Join(mnt, "sub/file"))
			return string(data) == text
		})
	}
}

func TestOneArchive(t *testing.T) {
	h, _, first, _ := twoSnapshots(t)
	mnt := publicDir(t)
	mount(t, mnt, Options{History: h, Snapshot: &first, OneArchive: true})
	if got := read(t, filepath.Join(mnt, "sub/file")); got != "one" {
		t.Errorf("root has %q", got)
	}
	if got := names(t, filepath.Join(mnt, ".s4")); !slices.Equal(got, []string{"config"}) {
		t.Errorf(".s4: %q", got)
	}
}

func TestOptions(t *testing.T) {
	needFUSE(t)
	h, _, _, _ := twoSnapshots(t)
	_, err := Mount(t.TempDir(), Options{History: h, MountOptions: []string{"noatime,exploit=1"}})
	if !errors.Is(err, snapshot.ErrUsage) || !strings.Contains(err.Error(), "exploit=1") || hint.Of(err) == "" {
		t.Errorf("unknown option: %v", err)
	}
	if _, err := Mount(t.TempDir(), Options{History: newFakeHistory()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no snapshot: %v", err)
	}
	if _, err := Mount(filepath.Join(t.TempDir(), "missing"), Options{History: h}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no mount point: %v", err)
	}
	mnt := mountLive(t, newVolume(t), h, func(o *Options) { o.MountOptions = []string{"ro,noexec,noatime", "suid"} })
	if err := os.WriteFile(filepath.Join(mnt, "new"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("write on ro: %v", err)
	}
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, " "+mnt+" ") && !strings.Contains(line, " ro,nodev,noexec,noatime ") {
			t.Errorf("mounted as %s", line)
		}
	}
}

func TestStateAndUnmount(t *testing.T) {
	volume := newVolume(t)
	state := func() MountState {
		t.Helper()
		s, err := State(volume)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := state(); got != NotMounted {
		t.Errorf("before: %v", got)
	}
	if got, err := State("/proc"); err != nil || got != MountedOther {
		t.Errorf("/proc: %v, %v", got, err)
	}
	needFUSE(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), envDaemon+"="+volume)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "mounted\n" {
		t.Fatalf("daemon said %q, %v", line, err)
	}
	if got := state(); got != MountedAlive {
		t.Errorf("mounted: %v", got)
	}
	f, err := os.Create(filepath.Join(volume, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Unmount(volume, false); !errors.Is(err, syscall.EBUSY) || hint.Of(err) == "" {
		t.Errorf("unmount in use: %v", err)
	}
	if _, err := f.WriteString("synced"); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := state(); got != MountedStale {
		t.Errorf("daemon killed: %v", got)
	}
	f.Close()
	if err := Unmount(volume, true); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != NotMounted {
		t.Errorf("unmounted: %v", got)
	}
	if got := read(t, filepath.Join(volume, "file")); got != "synced" {
		t.Errorf("what was synced: %q", got)
	}
	if err := Unmount(volume, false); err == nil {
		t.Error("unmounted twice")
	}
}

// The read-ahead is set before a file can be opened, which keeps what it finds.
func TestReadAheadIsSet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("setting the read-ahead needs root")
	}
	h, _, _, _ := twoSnapshots(t)
	dir := publicDir(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	mount(t, link, Options{History: h})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	if got := strings.TrimSpace(read(t, name)); got != readAheadKB {
		t.Errorf("read-ahead is %s KiB, want %s", got, readAheadKB)
	}
}
