package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// soon fails the test when do takes long.
func (h *dockerHost) soon(what string, do func()) {
	h.t.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took > 30*time.Second {
		h.t.Errorf("%s took %s", what, took)
	}
}

// fails runs a docker command that must fail with one of these words, soon.
func (h *dockerHost) fails(says []string, args ...string) {
	h.t.Helper()
	h.soon(args[0], func() {
		h.t.Helper()
		_, err := h.Try(args...)
		for _, s := range says {
			if err != nil && strings.Contains(err.Error(), s) {
				return
			}
		}
		h.t.Errorf("docker %v says %v; none of %q", args, err, says)
	})
}

// A volume that is full and may not grow gives its containers the error that any
// full disk gives, loses nothing, and goes on when there is room.
func TestDockerVolumeFull(t *testing.T) {
	h := newDockerHost(t)
	h.create("db", "size=300M", "autogrow=off", "remote="+h.remote)
	h.start("one", "db", "wait")
	h.Docker("exec", "one", "/box", "write", "/data/file", "kept")
	h.pushed("db", "file", "kept")
	h.fails([]string{"no space left on device"}, "exec", "one", "/box", "fill", "/data/large")
	h.run("db", "read", "/data/file")
	h.soon("to end a container", func() { h.Docker("rm", "-f", "one") })
	if got := h.run("db", "read", "/data/file"); got != "kept" {
		t.Errorf("read %q", got)
	}
	h.run("db", "remove", "/data/large")
	h.run("db", "write", "/data/file", "and goes on")
	h.start("two", "db", "wait")
	h.pushed("db", "file", "and goes on")
	h.Docker("rm", "-f", "two")
	h.removeAll()
}

// What comes from a remote may be larger than the volume it comes into.
func TestDockerVolumeFillGrows(t *testing.T) {
	if os.Getenv("S4_LONG") == "" {
		t.Skip("it pushes 400 MiB: set S4_LONG=1")
	}
	h := newDockerHost(t)
	h.create("db", "size=2G", "remote="+h.remote)
	h.start("one", "db", "wait")
	large := make([]byte, 400<<20)
	rand.NewChaCha8([32]byte{}).Read(large)
	if err := os.WriteFile(filepath.Join(h.mountpoint("db"), "large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Docker("exec", "one", "/box", "write", "/data/file", "after it")
	h.pushed("db", "file", "after it")
	h.Docker("rm", "-f", "one")
	h.Docker("volume", "rm", "db")
	h.create("db", "size=300M", "remote="+h.remote)
	h.eventually("it is filled", func() bool { return h.status("db", "state") == "ready" })
	h.start("one", "db", "wait")
	if got, err := os.ReadFile(filepath.Join(h.mountpoint("db"), "large")); err != nil || !bytes.Equal(got, large) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	h.Docker("rm", "-f", "one")
	h.removeAll()
}

// The host's disk is full: new volumes are refused, those in use give errors and
// not their users' patience, and what was on the disk is there when there is room.
func TestDockerHostFull(t *testing.T) {
	need(t, "mkfs.ext4", "mount")
	h := newDockerHost(t)
	h.ownDisk("3G")
	h.create("db", "size=2G", "remote="+h.remote)
	h.start("one", "db", "wait")
	h.Docker("exec", "one", "/box", "write", "/data/file", "kept")
	h.pushed("db", "file", "kept")
	filler := filepath.Join(h.state, "filler")
	h.takeAllBut(filler, 20<<20)
	h.fails([]string{"the host's disk"}, "volume", "create", "-d", h.driver, "more")
	h.eventually("docker tells", func() bool { return strings.Contains(h.status("db", "room"), "the host's disk") })
	h.fails([]string{"no space left on device", "input/output error", "read-only file system"}, "exec", "one", "/box", "fill", "/data/large")
	h.soon("to end a container", func() { h.Docker("rm", "-f", "one") })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if got := h.run("db", "read", "/data/file"); got != "kept" {
		t.Errorf("read %q", got)
	}
	h.run("db", "write", "/data/file", "and goes on")
	h.start("two", "db", "wait")
	h.pushed("db", "file", "and goes on")
	h.Docker("rm", "-f", "two")
	h.removeAll()
}

// ownDisk gives the driver's volumes a disk of that size of their own.
func (h *dockerHost) ownDisk(size string) {
	h.t.Helper()
	h.endPlugin(syscall.SIGTERM)
	disk := filepath.Join(h.t.TempDir(), "disk")
	for _, args := range [][]string{{"truncate", "-s", size, disk}, {"mkfs.ext4", "-q", "-m", "0", disk}, {"mount", "-o", "loop", disk, h.state}} {
		if out, err := exec.CommandContext(h.t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			h.t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	h.t.Cleanup(func() {
		h.Stop()
		h.endPlugin(syscall.SIGTERM)
		h.clean()
		if err := unix.Unmount(h.state, 0); err != nil {
			h.t.Errorf("unmount the disk: %v", err)
			_ = unix.Unmount(h.state, unix.MNT_DETACH)
		}
	})
	h.startPlugin()
}

// takeAllBut makes a file that leaves so much of the driver's disk free.
func (h *dockerHost) takeAllBut(file string, left int64) {
	h.t.Helper()
	f, err := os.Create(file)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-left); err != nil {
		h.t.Fatal(err)
	}
}

// What may be wrong at a remote is told by docker, keeps no container from its
// work, and is over when it is put right.
func TestDockerVolumeRemoteRefuses(t *testing.T) {
	server := startSSHD(t)
	config, err := server.clientConfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// While noFill holds the name of a volume's record, nobody gets through who
	// would fill that volume.
	noFill, rsh := filepath.Join(t.TempDir(), "nofill"), filepath.Join(t.TempDir(), "rsh")
	script := fmt.Sprintf("#!/bin/sh\n[ -e %[1]s ] && grep -q filling \"$(cat %[1]s)\" && { echo refused >&2; exit 255; }\nexec ssh -F %[2]s \"$@\"\n", noFill, config)
	if err := os.WriteFile(rsh, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h := newDockerHost(t, "BORG_RSH="+rsh)
	far := "remote=mys4remote:" + h.remote
	failing := func(name string, says ...string) {
		t.Helper()
		h.eventually("docker tells", func() bool {
			got := h.status(name, "replication")
			for _, s := range says {
				if !strings.Contains(got, s) {
					return false
				}
			}
			return true
		})
	}
	key, away := filepath.Join(server.dir, "client.pub"), filepath.Join(server.dir, "client.away")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("key", func(t *testing.T) {
		h.create("db", "size=300M", far)
		h.start("zero", "db", "wait")
		h.Docker("exec", "zero", "/box", "write", "/data/file", "first")
		h.pushed("db", "file", "first")
		h.Docker("rm", "-f", "zero")
		move(key, away)
		h.fails([]string{"Permission denied (publickey"}, "volume", "create", "-d", h.driver, "-o", far, "new")
		h.start("one", "db", "wait") // a volume that is here does not need its remote
		h.Docker("exec", "one", "/box", "write", "/data/file", "second")
		failing("db", "failing since", "Permission denied (publickey")
		h.soon("to end a container", func() { h.Docker("rm", "-f", "one") })
		move(away, key)
		h.start("two", "db", "wait")
		h.pushed("db", "file", "second")
		h.Docker("rm", "-f", "two")
	})
	t.Run("a fill", func(t *testing.T) {
		if os.Getenv("S4_LONG") == "" {
			t.Skip("dockerplugin tests it with a backend that takes less time: set S4_LONG=1")
		}
		h.Docker("volume", "rm", "db")
		if err := os.WriteFile(noFill, []byte(h.path("db", "volume.json")), 0o600); err != nil {
			t.Fatal(err)
		}
		h.create("db", far)
		h.fails([]string{"volume db is not filled yet"}, "run", "--rm", "-v", "db:/data", h.Box(), "list", "/data")
		h.eventually("docker tells", func() bool { return strings.Contains(h.status("db", "state"), "last failed: ") })
		if err := os.Remove(noFill); err != nil {
			t.Fatal(err)
		}
		h.eventually("it is filled", func() bool {
			got, err := h.Try("run", "--rm", "-v", "db:/data", h.Box(), "read", "/data/file")
			return err == nil && got == "second"
		})
		h.Docker("volume", "rm", "db")
	})
	t.Run("quota", func(t *testing.T) {
		h.create("limited", "size=300M", "remote="+h.remote)
		h.run("limited", "write", "/data/file", "first")
		h.pushed("limited", "file", "first")
		quota := func(size string) {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), "borg", "config", filepath.Join(h.remote, "limited"), "storage_quota", size)
			cmd.Env = append(h.env, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("borg config: %v: %s", err, out)
			}
		}
		quota("10M")
		h.start("one", "limited", "wait")
		large := make([]byte, 16<<20)
		rand.NewChaCha8([32]byte{}).Read(large)
		if err := os.WriteFile(filepath.Join(h.mountpoint("limited"), "large"), large, 0o644); err != nil {
			t.Fatal(err)
		}
		h.Docker("exec", "one", "/box", "write", "/data/file", "second")
		failing("limited", "quota")
		quota("1G")
		h.pushed("limited", "file", "second")
		h.Docker("rm", "-f", "one")
	})
	t.Run("two containers, and prune", func(t *testing.T) {
		h.create("shared", "size=300M", "remote="+h.remote)
		h.start("one", "shared", "serve", "/data/one")
		h.start("two", "shared", "serve", "/data/two")
		unused := h.Docker("volume", "create", "-d", h.driver, "-o", "size=300M")
		h.Docker("volume", "prune", "-f")
		for _, file := range []string{"one", "two"} {
			h.eventually("what both write is at the remote", func() bool {
				_, err := h.s4("--quiet", "cat", "--repo", filepath.Join(h.remote, "shared"), "latest:"+file)
				return err == nil
			})
		}
		h.Docker("rm", "-f", "one")
		h.fails([]string{"in use"}, "volume", "rm", "shared")
		h.run("shared", "read", "/data/two")
		h.Docker("rm", "-f", "two")
		_, _ = h.Try("volume", "rm", unused) // some engines prune volumes of the driver local alone
	})
	h.removeAll()
}
