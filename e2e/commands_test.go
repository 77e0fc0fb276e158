package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// cmdFails is `fails CODE PROGRAM ARG…`: the program must end with that code.
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails code program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("%s: want exit code %d, got %v", strings.Join(args[1:], " "), want, err)
	}
	if got := exit.ExitCode(); got != want {
		ts.Fatalf("%s: want exit code %d, got %d", strings.Join(args[1:], " "), want, got)
	}
}

// cmdRetry is `retry PROGRAM ARG…`: it must succeed within ten seconds.
func cmdRetry(ts *testscript.TestScript, neg bool, args []string) {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); (err == nil) != neg {
			return
		}
	}
	ts.Fatalf("%s: still %v after ten seconds", strings.Join(args, " "), err)
}

// cmdTick waits for the next second: snapshots are named by it.
func cmdTick(*testscript.TestScript, bool, []string) {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}

// cmdMkname is `mkname DIR GO-STRING`: it makes a file whose name is written
// as the inside of a Go string, so that it can have any bytes.
func cmdMkname(ts *testscript.TestScript, _ bool, args []string) {
	name, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), name), []byte("odd\n"), 0o644))
}

// cmdMakeTree is `maketree DIR`: every kind of entry that an archive can hold.
func cmdMakeTree(ts *testscript.TestScript, _ bool, args []string) {
	root := ts.MkAbs(args[0])
	at := func(p string) string { return filepath.Join(root, p) }
	ts.Check(os.MkdirAll(at("dir/deep/er"), 0o755))
	ts.Check(os.Mkdir(at("empty dir"), 0o700))
	ts.Check(os.WriteFile(at("file"), []byte("hello\n"), 0o644))
	ts.Check(os.WriteFile(at("empty"), nil, 0o600))
	ts.Check(os.WriteFile(at("dir/deep/er/exec"), []byte("#!/bin/sh\n"), 0o755))
	ts.Check(os.WriteFile(at("dir/\xff\xfenot utf8"), []byte("x"), 0o644))
	ts.Check(os.WriteFile(at("dir/new\nline"), []byte("y"), 0o644))
	big := make([]byte, 5<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	ts.Check(os.WriteFile(at("dir/big"), big, 0o640))
	ts.Check(os.Link(at("file"), at("dir/hard")))
	ts.Check(os.Link(at("file"), at("dir/deep/hard2")))
	ts.Check(os.Symlink("../file", at("dir/link")))
	ts.Check(os.Symlink("/nowhere/at all", at("dangling")))
	ts.Check(unix.Mkfifo(at("fifo"), 0o640))
	ts.Check(unix.Setxattr(at("file"), "user.comment", []byte("a \x00 value"), 0))
	ts.Check(unix.Setxattr(at("dir"), "user.dir", []byte("d"), 0))
	sparse, err := os.Create(at("sparse"))
	ts.Check(err)
	_, err = sparse.WriteAt([]byte("end"), 3<<20)
	ts.Check(errors.Join(err, sparse.Close()))
	ts.Check(ts.Exec("setfacl", "-m", "u:1234:rw,g:2345:r", at("empty")))
	ts.Check(ts.Exec("setfacl", "-d", "-m", "u:1234:rwx", at("empty dir")))
	ts.Check(os.Chmod(at("dir/deep/er/exec"), 0o755|os.ModeSetuid))
	if os.Geteuid() == 0 {
		ts.Check(unix.Mknod(at("device"), unix.S_IFCHR|0o620, int(unix.Mkdev(1, 3))))
		ts.Check(os.Lchown(at("dangling"), 1234, 2345))
		ts.Check(os.Chown(at("dir/big"), 1234, 2345))
	}
	old := time.Unix(1_000_000_000, 123_456_789)
	for _, p := range []string{"file", "dir/big", "empty dir"} {
		ts.Check(os.Chtimes(at(p), old, old))
	}
}

// cmdSameTree is `sametree A B`: neither rsync with everything it compares
// nor diff finds a difference. s4's own directory is not compared.
func cmdSameTree(ts *testscript.TestScript, _ bool, args []string) {
	a, b := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	for _, cmd := range [][]string{
		{"rsync", "-naicHAX", "--delete", "--exclude=/.s4", a + "/", b + "/"},
		{"rsync", "-naicHAX", "--delete", "--exclude=/.s4", b + "/", a + "/"},
	} {
		out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput()
		if err != nil || len(out) > 0 {
			ts.Fatalf("%s: %v\n%s", strings.Join(cmd, " "), err, out)
		}
	}
}

// unmountBelow ends every mount that a failed script left.
func unmountBelow(t *testing.T, dir string) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			if err := unix.Unmount(f[1], unix.MNT_DETACH); err != nil {
				_ = exec.Command("fusermount3", "-uz", f[1]).Run()
			}
		}
	}
}
