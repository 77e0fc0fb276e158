package btrfsvol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/internal/hint"
)

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	do(t, os.WriteFile(path, []byte(content), 0o644))
}

func info(t testing.TB, dir string) Subvolume {
	t.Helper()
	s, err := Info(dir)
	do(t, err)
	return s
}

func TestSubvolume(t *testing.T) {
	dir := btrfstest.New(t)
	vol, snap := filepath.Join(dir, "vol"), filepath.Join(dir, "snap")
	do(t, Create(vol))
	v := info(t, vol)
	if v.ID < 256 || v.ParentID != 5 || v.UUID == uuid.Nil || v.ParentUUID != uuid.Nil || v.ReadOnly ||
		v.OTransid == 0 || time.Since(v.Created).Abs() > time.Minute {
		t.Errorf("new subvolume: %+v", v)
	}
	write(t, filepath.Join(vol, "file"), "one")
	do(t, Snapshot(vol, snap, true))
	s := info(t, snap)
	if s.ID == v.ID || s.UUID == v.UUID || s.ParentUUID != v.UUID || !s.ReadOnly || s.OTransid < v.OTransid {
		t.Errorf("snapshot: %+v of %+v", s, v)
	}
	if got, err := os.ReadFile(filepath.Join(snap, "file")); string(got) != "one" {
		t.Errorf("the snapshot has %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(snap, "file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing in a snapshot: %v", err)
	}
	do(t, SetReadOnly(snap, false))
	do(t, SetReadOnly(snap, false))
	write(t, filepath.Join(snap, "file"), "two")
	do(t, SetReadOnly(snap, true))
	if !info(t, snap).ReadOnly {
		t.Error("it is not read-only again")
	}
}

// Whoever polls must see each change once it is synced, and nothing where
// nothing changed.
func TestGeneration(t *testing.T) {
	vol := filepath.Join(btrfstest.New(t), "vol")
	do(t, Create(vol))
	write(t, filepath.Join(vol, "file"), "one")
	do(t, Sync(vol))
	generation := func() uint64 {
		t.Helper()
		g, err := Generation(vol)
		do(t, err)
		return g
	}
	before := generation()
	do(t, Sync(vol))
	if g := generation(); g != before {
		t.Errorf("generation %d became %d with nothing done", before, g)
	}
	for name, change := range map[string]func() error{
		"write":  func() error { return os.WriteFile(filepath.Join(vol, "file"), []byte("two"), 0o644) },
		"chmod":  func() error { return os.Chmod(filepath.Join(vol, "file"), 0o600) },
		"rename": func() error { return os.Rename(filepath.Join(vol, "file"), filepath.Join(vol, "file")+"2") },
	} {
		before := generation()
		do(t, change())
		do(t, Sync(vol))
		if g := generation(); g <= before {
			t.Errorf("%s: generation %d became %d", name, before, g)
		}
		_ = os.Rename(filepath.Join(vol, "file2"), filepath.Join(vol, "file"))
	}
	// A snapshot and its source stay equal until something changes.
	snap := vol + "-snap"
	do(t, Sync(vol))
	ctransid := info(t, vol).CTransid
	do(t, Snapshot(vol, snap, true))
	write(t, vol+"-elsewhere", "x")
	do(t, Sync(vol))
	if v, s := info(t, vol), info(t, snap); v.Generation != s.Generation || v.CTransid != ctransid || s.CTransid != ctransid {
		t.Errorf("unchanged since the snapshot: %+v, %+v", v, s)
	}
	write(t, filepath.Join(vol, "more"), "x")
	do(t, Sync(vol))
	if v, s := info(t, vol), info(t, snap); v.Generation <= s.Generation || v.CTransid <= s.CTransid {
		t.Errorf("changed since the snapshot: %+v, %+v", v, s)
	}
}

func TestDelete(t *testing.T) {
	dir := btrfstest.New(t)
	vol := filepath.Join(dir, "vol")
	// Nested ones, deep in directories, in one another, and read-only.
	for _, p := range []string{"", "a/b/nested", "a/b/nested/c/inner", "top"} {
		do(t, os.MkdirAll(filepath.Dir(filepath.Join(vol, p)), 0o755))
		do(t, Create(filepath.Join(vol, p)))
		write(t, filepath.Join(vol, p, "file"), "x")
	}
	do(t, SetReadOnly(filepath.Join(vol, "a/b/nested/c/inner"), true))
	do(t, SetReadOnly(filepath.Join(vol, "a/b/nested"), true))
	do(t, SetReadOnly(vol, true))
	do(t, os.Symlink("vol", filepath.Join(dir, "link")))
	if err := Delete(filepath.Join(dir, "link")); !errors.Is(err, ErrNotSubvolume) {
		t.Errorf("deleting a link: %v", err)
	}
	do(t, Delete(vol))
	if _, err := os.Lstat(vol); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
	if left := list(t, dir); strings.Contains(left, "vol") {
		t.Errorf("left over:\n%s", left)
	}
	// More of them than the kernel tells at once.
	do(t, Create(vol))
	for i := range 300 {
		do(t, Create(filepath.Join(vol, fmt.Sprint("n", i))))
	}
	do(t, Delete(vol))
	if left := list(t, dir); strings.Contains(left, "vol") {
		t.Errorf("left over:\n%s", left)
	}
}

// list is what btrfs itself lists.
func list(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "btrfs", "subvolume", "list", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestErrors(t *testing.T) {
	dir := btrfstest.New(t)
	vol, sub, file := filepath.Join(dir, "vol"), filepath.Join(dir, "vol/sub"), filepath.Join(dir, "file")
	do(t, Create(vol))
	do(t, os.Mkdir(sub, 0o755))
	write(t, file, "")
	missing, other := filepath.Join(dir, "missing"), t.TempDir()
	if other := filepath.Join(other, "s"); Snapshot(vol, other, true) == nil {
		t.Error("a snapshot on another file system")
	}
	read := filepath.Join(dir, "read-only")
	do(t, Snapshot(vol, read, true))
	infoOf := func(dir string) error { _, err := Info(dir); return err }
	for name, c := range map[string]struct {
		err, want error
		hint      bool
	}{
		"info of a directory":            {infoOf(sub), ErrNotSubvolume, false},
		"info of a file":                 {infoOf(file), ErrNotSubvolume, false},
		"info of nothing":                {infoOf(missing), fs.ErrNotExist, false},
		"info elsewhere":                 {infoOf("/proc"), ErrNotBtrfs, false},
		"create elsewhere":               {Create("/dev/shm/btrfsvol-test"), ErrNotBtrfs, false},
		"create what exists":             {Create(vol), fs.ErrExist, false},
		"create in nothing":              {Create(filepath.Join(missing, "x")), fs.ErrNotExist, false},
		"create in what is read-only":    {Create(filepath.Join(read, "x")), unix.EROFS, true},
		"create too long a name":         {Create(filepath.Join(dir, strings.Repeat("x", 256))), unix.ENAMETOOLONG, false},
		"snapshot of a directory":        {Snapshot(sub, missing, true), ErrNotSubvolume, false},
		"snapshot of nothing":            {Snapshot(missing, missing, true), fs.ErrNotExist, false},
		"snapshot of what is elsewhere":  {Snapshot("/proc", missing, true), ErrNotBtrfs, false},
		"snapshot onto something":        {Snapshot(vol, sub, true), fs.ErrExist, false},
		"snapshot into nothing":          {Snapshot(vol, filepath.Join(missing, "x"), true), fs.ErrNotExist, false},
		"delete a directory":             {Delete(sub), ErrNotSubvolume, false},
		"delete a file":                  {Delete(file), ErrNotSubvolume, false},
		"delete nothing":                 {Delete(missing), fs.ErrNotExist, false},
		"delete elsewhere":               {Delete("/proc"), ErrNotBtrfs, false},
		"read-only flag of a directory":  {SetReadOnly(sub, true), ErrNotSubvolume, false},
		"read-only flag of what is none": {SetReadOnly("/proc", true), ErrNotBtrfs, false},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
		if (hint.Of(c.err) != "") != c.hint {
			t.Errorf("%s: hint %q", name, hint.Of(c.err))
		}
	}
	if got := fmt.Sprint(Create(vol)); got != "create subvolume "+vol+": file exists" {
		t.Errorf("message: %s", got)
	}
}

func TestQuota(t *testing.T) {
	dir := btrfstest.New(t)
	vol := filepath.Join(dir, "vol")
	do(t, Create(vol))
	script(t, dir, `btrfs quota enable .; btrfs qgroup limit 32k vol`)
	err := Create(filepath.Join(vol, "sub"))
	if !errors.Is(err, unix.EDQUOT) || !strings.Contains(hint.Of(err), "quota") {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
}

// TestUnprivileged does as nobody what needs no root, and fails with a hint
// where root is needed. It is run by TestUser in a process of its own.
func TestUnprivileged(t *testing.T) {
	dir := os.Getenv("BTRFSVOL_USER_DIR")
	if dir == "" {
		t.Skip("run by TestUser")
	}
	own, snap := filepath.Join(dir, "own"), filepath.Join(dir, "own-snap")
	do(t, Create(own))
	do(t, Snapshot(own, snap, true))
	if s := info(t, snap); !s.ReadOnly || s.ParentUUID != info(t, own).UUID {
		t.Errorf("%+v", s)
	}
	do(t, SetReadOnly(snap, false))
	do(t, SetReadOnly(snap, true))
	_, err := Changes(t.Context(), snap, snap, Options{})
	for what, err := range map[string]error{
		"changes":  err,
		"delete":   Delete(own),
		"snapshot": Snapshot(filepath.Join(dir, "roots"), filepath.Join(dir, "x"), true),
	} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(hint.Of(err), "root") {
			t.Errorf("%s: %v, hint %q", what, err, hint.Of(err))
		}
	}
}

func TestUser(t *testing.T) {
	dir := btrfstest.New(t)
	do(t, Create(filepath.Join(dir, "roots")))
	do(t, os.Chmod(dir, 0o777))
	// The test's own directory is private, so nobody reaches both by descriptor.
	self, err := os.Open("/proc/self/exe")
	do(t, err)
	defer self.Close()
	d, err := os.Open(dir)
	do(t, err)
	defer d.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "-test.run=^TestUnprivileged$", "-test.v")
	cmd.ExtraFiles = []*os.File{self, d}
	cmd.Env = append(os.Environ(), "BTRFSVOL_USER_DIR=/proc/self/fd/4")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestUnprivileged") {
		t.Errorf("%v:\n%s", err, out)
	}
}
