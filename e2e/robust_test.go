package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
)

// TestReplicateKilled kills replicate again and again while files change: what it
// said was at the remote is there, and the next one carries on by itself.
func TestReplicateKilled(t *testing.T) {
	kills := 12
	if long() {
		kills = 50
	}
	for name, make := range map[string]func(*testing.T) *inhabited{"btrfs": newOnBtrfs, "directory": newInhabited} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := make(t)
			w := startWitness(t, v.dir)
			acknowledged := map[string]bool{}
			for range kills {
				j := v.start("replicate", "--interval", "20ms")
				j.happened("watching", 1)
				time.Sleep(time.Duration(mathrand.Int64N(int64(800 * time.Millisecond))))
				j.signal(unix.SIGKILL)
				if code, said := j.end(); code != -1 {
					t.Fatalf("it ended by itself: %d %s", code, said)
				}
				j.acknowledged("origin", acknowledged)
				if j.count("failed", "")+j.count("given up", "") > 0 {
					t.Errorf("after a kill: %v", j.events)
				}
			}
			if len(acknowledged) < 3 {
				t.Errorf("only %d pushes between the kills", len(acknowledged))
			}
			w.end()
			j := v.start("replicate", "--interval", "20ms")
			eventually(t, 20*time.Second, "it carries on", func() bool { return j.count("pushed", "")+j.count("current", "") > 0 })
			j.signal(unix.SIGTERM)
			if code, said := j.end(); code != 0 {
				t.Errorf("SIGTERM: %d %s", code, said)
			}
			j.acknowledged("origin", acknowledged)
			v.noGarbage()
			if newest := v.sound(v.repo, acknowledged); newest != w.written.Load() {
				t.Errorf("the remote has version %d, the volume %d", newest, w.written.Load())
			}
			if out := v.run("s4", "status"); strings.Contains(out, "witness") {
				t.Errorf("status: %s", out)
			}
		})
	}
}

// TestReplicateDiskFull fills the remote's disk, and then the volume's own.
func TestReplicateDiskFull(t *testing.T) {
	t.Parallel()
	v := newOnBtrfsOf(t, 256<<20)
	remote := filepath.Dir(v.repo)
	if err := unix.Mount("tmpfs", remote, "tmpfs", 0, "size=16m"); err != nil {
		missing(t, err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(remote, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	acknowledged := map[string]bool{}
	writeFile(t, filepath.Join(v.dir, "witness/1"), testimony(1))
	j := v.start("replicate", "--interval", "100ms")
	j.happened("pushed", 1)
	big := make([]byte, 20<<20)
	_, _ = rand.Read(big)
	writeFile(t, filepath.Join(v.dir, "big"), big)
	if said, _ := j.happened("failed", 1)["error"].(string); !strings.Contains(said, "no space left") {
		t.Errorf("said %q", said)
	}
	j.acknowledged("origin", acknowledged)
	v.sound(v.repo, acknowledged) // as it is, full
	if err := unix.Mount("", remote, "", unix.MS_REMOUNT, "size=200m"); err != nil {
		t.Fatal(err)
	}
	j.happened("pushed", 2)
	v.noGarbage()

	// The volume's disk, by what takes no room at the remote.
	clear(big)
	full := filepath.Join(v.dir, "full")
	f, err := os.Create(full)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(big)
	}
	f.Close()
	failed := j.count("failed", "")
	eventually(t, 30*time.Second, "it is full for replicate, too, or all was pushed", func() bool {
		return j.count("failed", "") > failed || j.count("pushed", "") > 2
	})
	if said := j.said(); j.count("failed", "") > failed && !strings.Contains(said, "no space left") {
		t.Errorf("on a full disk: %s", said)
	}
	grow(t, filepath.Join(filepath.Dir(v.dir), "btrfs"))
	writeFile(t, filepath.Join(v.dir, "witness/2"), testimony(2))
	eventually(t, 60*time.Second, "the newest is there", func() bool {
		return !strings.Contains(v.run("s4", "status"), "witness")
	})
	j.acknowledged("origin", acknowledged)
	j.signal(unix.SIGTERM)
	if code, said := j.end(); code != 0 {
		t.Errorf("SIGTERM: %d %s", code, said)
	}
	if newest := v.sound(v.repo, acknowledged); newest != 2 {
		t.Errorf("the remote has version %d", newest)
	}
}

// grow makes the btrfs mounted on dir, which is on a loop device, larger.
func grow(t *testing.T, dir string) {
	t.Helper()
	out, err := exec.Command("findmnt", "-no", "SOURCE", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(out))
	if out, err = exec.Command("losetup", "-nO", "BACK-FILE", device).Output(); err != nil {
		t.Fatal(err)
	}
	image := strings.TrimSpace(string(out))
	info, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, info.Size()+1<<30); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"losetup", "-c", device}, {"btrfs", "filesystem", "resize", "max", dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v %s", args, err, out)
		}
	}
}

// TestPowerCut copies the image that the volume is on, and the remote, while a
// replicate has been stopped amid its work, and goes on from the copies.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cuts := 4
	if long() {
		cuts = 15
	}
	outer := btrfsDisk(t, t.TempDir(), filepath.Join(t.TempDir(), "outer"), 4<<30)
	image := filepath.Join(outer, "image")
	top := t.TempDir()
	inner := filepath.Join(top, "btrfs")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	btrfsDisk(t, inner, image, 512<<20)
	v := newInhabitedIn(t, top, func(dir string, _ os.FileMode) error {
		if err := btrfsvol.Create(filepath.Join(inner, "v")); err != nil {
			return err
		}
		return os.Symlink("btrfs/v", dir)
	})
	// All that is not on the image but on the host, and the remote.
	outside := []string{"remote", "cache", "state", "borg"}
	w := startWitness(t, v.dir)
	j := v.start("replicate", "--interval", "20ms")
	j.happened("pushed", 1)
	var known []map[string]bool
	for i := range cuts {
		time.Sleep(time.Duration(mathrand.Int64N(int64(700 * time.Millisecond))))
		j.signal(unix.SIGSTOP)
		// A reflink shows the image as it was at one moment, as a disk has it
		// that loses power.
		v.run("cp", "--reflink=always", image, fmt.Sprint(image, i))
		cut := filepath.Join(top, fmt.Sprint("cut", i))
		if err := os.Mkdir(cut, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range outside {
			v.run("cp", "-a", filepath.Join(top, name), cut)
		}
		acknowledged := map[string]bool{}
		j.acknowledged("origin", acknowledged)
		known = append(known, acknowledged)
		j.signal(unix.SIGCONT)
	}
	pushed := j.count("pushed", "")
	eventually(t, 30*time.Second, "the remote goes on", func() bool { return j.count("pushed", "") > pushed+1 })
	w.end()
	j.signal(unix.SIGKILL)
	j.end()
	// restart puts the machine in the state of a cut.
	host := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v %s", args, err, out)
		}
	}
	restart := func(i int) {
		if err := unix.Unmount(inner, 0); err != nil {
			t.Fatal(err)
		}
		host("mount", "-o", "loop,noatime,nodev", fmt.Sprint(image, i), inner)
		for _, name := range outside {
			if err := os.RemoveAll(filepath.Join(top, name)); err != nil {
				t.Fatal(err)
			}
			host("cp", "-a", filepath.Join(top, fmt.Sprint("cut", i), name), top)
		}
	}
	late := filepath.Join(top, "late")
	v.run("cp", "-a", v.repo, late)
	for i, acknowledged := range known {
		restart(i)
		v.run("s4", "status")
		v.run("s4", "replicate", "--once")
		v.noGarbage()
		before := heard(t, v.dir)
		if newest := v.sound(v.repo, acknowledged); newest != before {
			t.Errorf("cut %d: the remote has version %d, the volume %d", i, newest, before)
		}
	}
	// An old disk comes back to a remote that went on without it.
	restart(0)
	if err := os.RemoveAll(v.repo); err != nil {
		t.Fatal(err)
	}
	v.run("cp", "-a", late, v.repo)
	if code, out := v.code("replicate", "--once"); code != 4 || !strings.Contains(out, "never seen") {
		t.Errorf("the remote is ahead: %d %s", code, out)
	}
}

// btrfsDisk makes an image that a btrfs is on, and mounts it on dir.
func btrfsDisk(t *testing.T, dir, image string, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "cannot mount: not root")
	}
	need(t, "mkfs.btrfs")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, args := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop,noatime,nodev", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			missing(t, fmt.Sprintf("%q: %v %s", args, err, out))
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) { // not a mountpoint any more
			t.Error(err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}
