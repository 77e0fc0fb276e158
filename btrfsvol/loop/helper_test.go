package loop

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The program, run again, is what some tests need: another process.
func TestMain(m *testing.M) {
	if what := os.Getenv("LOOP_TEST_CHILD"); what != "" {
		child(what)
		return
	}
	base, err := os.MkdirTemp("", "s4-loop-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// t.TempDir is made below it, and with it every image.
	os.Setenv("TMPDIR", base)
	code := m.Run()
	for _, left := range leftovers(base) {
		fmt.Fprintln(os.Stderr, "left over:", left)
		code = 1
	}
	os.RemoveAll(base)
	os.Exit(code)
}

// leftovers are the loop devices and mounts that have to do with a directory.
func leftovers(base string) (left []string) {
	names, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), base+"/") {
			left = append(left, name+": "+strings.TrimSpace(string(b)))
		}
	}
	all, err := mounts()
	if err != nil {
		left = append(left, err.Error())
	}
	for _, e := range all {
		if strings.HasPrefix(e.Dir, base+"/") {
			left = append(left, "mount at "+e.Dir)
		}
	}
	return left
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// needLoop skips where there are no loop devices.
func needLoop(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		skip(t, "no loop devices here: "+err.Error())
	}
	if _, err := findMkfs(); err != nil {
		skip(t, err.Error())
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	for _, n := range []string{name, "/usr/sbin/" + name} {
		if p, err := exec.LookPath(n); err == nil {
			return p
		}
	}
	skip(t, name+" is not installed")
	return ""
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newImage makes an image; nothing is held back on the test's own disk.
func newImage(t *testing.T, size int64) string {
	t.Helper()
	needLoop(t)
	image := filepath.Join(t.TempDir(), "image")
	if _, err := Create(t.Context(), image, size, CreateOptions{Reserve: -1}); err != nil {
		t.Fatal(err)
	}
	return image
}

func uuidOf(t *testing.T, image string) string {
	t.Helper()
	f, err := os.Open(image)
	must(t, err)
	defer f.Close()
	s, err := ReadSuperblock(f)
	must(t, err)
	return s.UUID
}

// mountImage mounts an image in a new directory for the time of the test.
func mountImage(t *testing.T, image string) string {
	t.Helper()
	dir := t.TempDir()
	mountAt(t, image, dir)
	return dir
}

func mountAt(t *testing.T, image, dir string) Mounted {
	t.Helper()
	m, err := Mount(t.Context(), image, dir, MountOptions{})
	must(t, err)
	unmountLater(t, dir)
	return m
}

// unmountLater unmounts all that is mounted at dir when the test ends.
func unmountLater(t *testing.T, dir string) {
	t.Cleanup(func() {
		for {
			if err := unix.Unmount(dir, 0); errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
				return
			} else if err != nil {
				t.Errorf("unmount %s: %v", dir, err)
				_ = unix.Unmount(dir, unix.MNT_DETACH)
				return
			}
		}
	})
}

// newVolume is a mounted image.
func newVolume(t *testing.T, size int64) (image, dir string) {
	t.Helper()
	image = newImage(t, size)
	return image, mountImage(t, image)
}

// device returns the device that shows an image; "" is none.
func device(t *testing.T, image string) string {
	t.Helper()
	s, err := Find(image)
	must(t, err)
	return s.Device
}

// allocated returns what an image takes of the disk.
func allocated(t *testing.T, image string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(image, &st))
	return st.Blocks * 512
}

func size(t *testing.T, image string) int64 {
	t.Helper()
	st, err := os.Stat(image)
	must(t, err)
	return st.Size()
}

// smallHost mounts a file system of its own for images.
func smallHost(t *testing.T, size string) string {
	t.Helper()
	needLoop(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() {
		// Whoever looks at all loop devices, as tests beside do, keeps one that was
		// let go of, and with it its file, for that moment.
		err := unix.Unmount(dir, 0)
		for range 100 {
			if !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(50 * time.Millisecond)
			err = unix.Unmount(dir, 0)
		}
		if err != nil {
			t.Errorf("unmount host: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

// fill writes a file of n bytes of a pattern.
func fill(t *testing.T, path string, n int, seed byte) {
	t.Helper()
	must(t, os.WriteFile(path, pattern(n, seed), 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
}

// pattern is incompressible and different for each seed.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// take makes a file that has its room in the volume, but was not written.
func take(t *testing.T, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, n))
	must(t, unix.Syncfs(int(f.Fd())))
}

// runFails returns how a program failed or what it said.
func runFails(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err == nil && len(out) > 0 {
		err = errors.New(string(out))
	}
	return err
}
