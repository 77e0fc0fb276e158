package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

type given = map[string]string

// rig is a driver on a small backend, which can be ended and opened again.
type rig struct {
	*Driver
	t testing.TB
	b *dirs
	c Config
}

func newRig(t testing.TB, c Config) *rig {
	t.Helper()
	c.Dir = t.TempDir()
	r := &rig{t: t, b: &dirs{control: t.TempDir(), plain: true}, c: c}
	t.Cleanup(func() {
		if r.Driver != nil {
			r.Close()
		}
	})
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	d, err := Open(r.c, r.b)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Driver = d
}

// again ends the driver and opens it anew, and waits until it has taken up all.
func (r *rig) again() {
	r.t.Helper()
	r.Close()
	r.open()
	for _, name := range r.names() {
		unlock, err := r.volumes.lock(r.t.Context(), name)
		if err != nil {
			r.t.Fatal(err)
		}
		unlock()
	}
}

func (r *rig) names() (names []string) {
	for _, i := range r.List() {
		names = append(names, i.Name)
	}
	return names
}

func (r *rig) create(name string, o given) {
	r.t.Helper()
	if err := r.Create(r.t.Context(), name, o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) mount(name, id string) string {
	r.t.Helper()
	at, err := r.Mount(r.t.Context(), name, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return at
}

func (r *rig) info(name string) Info {
	r.t.Helper()
	i, err := r.Get(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return i
}

func (r *rig) mounts(name string) int {
	r.t.Helper()
	return r.info(name).Status["mounts"].(int)
}

func (r *rig) trash() (names []string) {
	r.t.Helper()
	entries, err := os.ReadDir(r.trashDir())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// fails asks for an error of a kind that says something.
func fails(t testing.TB, err, kind error, says string) {
	t.Helper()
	if err == nil || kind != nil && !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v; want %v with %q", err, kind, says)
	}
}

func TestCreate(t *testing.T) {
	r := newRig(t, Config{})
	r.create("db", given{"size": "5G"})
	r.create("db", given{"size": "5120M"})
	fails(t, r.Create(t.Context(), "db", given{"size": "6G"}), snapshot.ErrRefused, `size is "5G", not "6G"`)
	fails(t, r.Create(t.Context(), "db", nil), snapshot.ErrRefused, "other options")
	r.b.tell(t, "fail-created=no room")
	fails(t, r.Create(t.Context(), "failed", nil), nil, "no room")
	r.b.release(t, "fail-created")
	if got := r.names(); len(got) != 1 || exists(r.dirOf("failed")) {
		t.Errorf("a failed creation is listed or left: %v", got)
	}
	if _, err := r.Get(t.Context(), "failed"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	r.create("failed", nil)
	r.again()
	if got := strings.Join(r.names(), " "); got != "db failed" {
		t.Errorf("after another start there are %s", got)
	}
	r.create("db", given{"size": "5G"})
}

// What a creation that never ended has left is neither seen nor in the way.
func TestCreateInterrupted(t *testing.T) {
	r := newRig(t, Config{})
	r.b.tell(t, "hold-created", "fail-delete=not now")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Create(ctx, "db", nil) }()
	r.b.reached(t, "created")
	if len(r.names()) != 0 {
		t.Error("a volume is listed while it is made")
	}
	cancel()
	fails(t, <-done, context.Canceled, "created")
	if !exists(filepath.Join(r.dirOf("db"), "data")) {
		t.Fatal("this test leaves nothing to clear away")
	}
	fails(t, r.Create(t.Context(), "db", nil), nil, "not now")
	r.b.release(t, "hold-created", "fail-delete")
	r.create("db", nil)
	if err := os.Mkdir(r.dirOf("early"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dirOf("early"), ".s4-atomic-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.again()
	r.create("early", nil)
}

// A volume whose record is lost is not taken for free.
func TestDamagedRecord(t *testing.T) {
	r := newRig(t, Config{})
	r.create("db", nil)
	r.create("web", nil)
	kept := filepath.Join(r.dirOf("db"), "data", "file")
	if err := errors.Join(os.WriteFile(kept, nil, 0o600), os.WriteFile(filepath.Join(r.dirOf("db"), recordName), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.again()
	if got := strings.Join(r.names(), " "); got != "web" {
		t.Errorf("there are %s", got)
	}
	fails(t, r.Create(t.Context(), "db", nil), snapshot.ErrRefused, "in the way")
	if !exists(kept) {
		t.Error("its content is gone")
	}
}

func TestMounts(t *testing.T) {
	r := newRig(t, Config{})
	r.create("db", nil)
	at := r.mount("db", "a")
	if again := r.mount("db", "a"); again != at || r.mounts("db") != 1 {
		t.Errorf("the same ID twice: %s and %s, %d mounts", at, again, r.mounts("db"))
	}
	r.mount("db", "b")
	if r.mounts("db") != 2 || r.info("db").Mountpoint != at {
		t.Errorf("%+v", r.info("db"))
	}
	unmounted := func() bool { return exists(filepath.Join(r.b.control, "at-unmount")) }
	r.b.release(t, "at-unmount")
	for _, id := range []string{"a", "a", "other"} {
		if err := r.Unmount(t.Context(), "db", id); err != nil {
			t.Fatal(err)
		}
	}
	if unmounted() || r.mounts("db") != 1 {
		t.Error("unmounted while a container has it")
	}
	if err := r.Unmount(t.Context(), "db", "b"); err != nil {
		t.Fatal(err)
	}
	if !unmounted() || r.info("db").Mountpoint != "" {
		t.Errorf("not unmounted after the last container: %+v", r.info("db"))
	}
	_, err := r.Mount(t.Context(), "db", "")
	fails(t, err, snapshot.ErrUsage, "no mount ID")
	_, err = r.Mount(t.Context(), "none", "a")
	fails(t, err, fs.ErrNotExist, "no such volume")
	r.b.tell(t, "fail-mount=it is damaged")
	_, err = r.Mount(t.Context(), "db", "c")
	fails(t, err, nil, "it is damaged")
	if r.mounts("db") != 0 {
		t.Error("a mount that failed counts")
	}
}

// The plugin may end and start with containers running; the host may not.
func TestMountsOverStarts(t *testing.T) {
	r := newRig(t, Config{BootID: "one"})
	r.create("db", nil)
	r.mount("db", "a")
	r.mount("db", "b")
	for i := range 20 {
		name := fmt.Sprint("other", i)
		r.create(name, nil)
		r.mount(name, "c")
	}
	r.b.release(t, "at-mount", "at-unmount")
	r.again()
	if r.mounts("db") != 2 || !exists(filepath.Join(r.b.control, "at-mount")) || exists(filepath.Join(r.b.control, "at-unmount")) {
		t.Errorf("the driver forgot who has it: %+v", r.info("db"))
	}
	r.c.BootID = "two"
	r.again()
	if r.mounts("db") != 0 || r.info("db").Mountpoint != "" || !exists(filepath.Join(r.b.control, "at-unmount")) {
		t.Errorf("after a boot: %+v", r.info("db"))
	}
	for _, name := range r.names() {
		if r.mounts(name) != 0 {
			t.Errorf("after a boot: %+v", r.info(name))
		}
	}
}

// leaver is a backend for a caller that goes away while it mounts.
type leaver struct {
	*dirs
	leave func()
}

func (l leaver) Mount(ctx context.Context, v Volume) (string, error) {
	defer l.leave()
	return l.dirs.Mount(ctx, v)
}

func TestMountNobodyWaitsFor(t *testing.T) {
	r := newRig(t, Config{})
	r.create("db", nil)
	ctx, cancel := context.WithCancel(t.Context())
	r.backend = leaver{r.b, cancel}
	_, err := r.Mount(ctx, "db", "a")
	fails(t, err, context.Canceled, "")
	if r.mounts("db") != 0 || !exists(filepath.Join(r.b.control, "at-unmount")) {
		t.Errorf("it stays mounted: %+v", r.info("db"))
	}
}

// A full disk is told of, and keeps no container from ending.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("a small file system needs root")
		}
		t.Skip("a small file system needs root")
	}
	r := newRig(t, Config{})
	r.Close()
	if err := unix.Mount("tmpfs", r.c.Dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		r.Driver = nil
		if err := unix.Unmount(r.c.Dir, 0); err != nil {
			t.Error(err)
			_ = unix.Unmount(r.c.Dir, unix.MNT_DETACH)
		}
	})
	r.open()
	r.create("db", nil)
	r.create("web", nil)
	r.mount("db", "a")
	filler := filepath.Join(r.c.Dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the file system is not full: %v", err)
	}
	fails(t, r.Create(t.Context(), "new", nil), unix.ENOSPC, "no space left")
	_, err := r.Mount(t.Context(), "web", "b")
	fails(t, err, unix.ENOSPC, "no space left")
	if err := r.Unmount(t.Context(), "db", "a"); err != nil {
		t.Error(err)
	}
	if r.mounts("db") != 0 || r.mounts("web") != 0 || len(r.names()) != 2 {
		t.Errorf("%+v %+v %v", r.info("db"), r.info("web"), r.names())
	}
	if err := r.Remove(t.Context(), "web"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.create("new", nil)
	r.again()
	if got := strings.Join(r.names(), " "); got != "db new" {
		t.Errorf("there are %s", got)
	}
}

func TestOpenTwice(t *testing.T) {
	r := newRig(t, Config{})
	_, err := Open(r.c, r.b)
	fails(t, err, snapshot.ErrLocked, "another volume driver")
}

func TestRemove(t *testing.T) {
	r := newRig(t, Config{Keep: time.Hour})
	fails(t, r.Remove(t.Context(), ""), snapshot.ErrUsage, "names no volume")
	fails(t, r.Remove(t.Context(), "db"), fs.ErrNotExist, "no such volume")
	for range 3 {
		r.create("db", nil)
		if err := r.Remove(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
	}
	trash := r.trash()
	if len(trash) != 3 || len(r.names()) != 0 {
		t.Fatalf("trash %v, volumes %v", trash, r.names())
	}
	// One is taken back by hand.
	r.Close()
	if err := os.Rename(filepath.Join(r.trashDir(), trash[0]), r.dirOf("db")); err != nil {
		t.Fatal(err)
	}
	r.open()
	if got := r.names(); len(got) != 1 || got[0] != "db" {
		t.Errorf("taken back: %v", got)
	}
	if err := r.purge(t.Context(), time.Now().Add(50*time.Minute)); err != nil || len(r.trash()) != 2 {
		t.Errorf("deleted too early: %v, %v", r.trash(), err)
	}
	if err := os.Mkdir(filepath.Join(r.trashDir(), "somebody's own things"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.purge(t.Context(), time.Now().Add(61*time.Minute)); err != nil || len(r.trash()) != 1 {
		t.Errorf("not deleted in time: %v, %v", r.trash(), err)
	}
}

func TestKeepNone(t *testing.T) {
	r := newRig(t, Config{Keep: -1})
	r.create("db", nil)
	if err := r.Remove(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trash is empty", func() bool { return len(r.trash()) == 0 })
}

// A volume that hangs holds up nobody else, nor the looks at itself.
func TestVolumesAreIndependent(t *testing.T) {
	r := newRig(t, Config{})
	r.create("a", nil)
	r.create("b", nil)
	r.b.tell(t, "hold-mount")
	mounted := make(chan error, 1)
	go func() {
		_, err := r.Mount(t.Context(), "a", "1")
		mounted <- err
	}()
	r.b.reached(t, "mount")
	r.create("c", nil)
	if len(r.names()) != 3 || r.info("a").Mountpoint != "" {
		t.Errorf("volumes %v, %+v", r.names(), r.info("a"))
	}
	if err := r.Remove(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	fails(t, r.Remove(short, "a"), context.DeadlineExceeded, "what else is done with volume a")
	r.b.release(t, "hold-mount")
	if err := <-mounted; err != nil {
		t.Error(err)
	}
	if err := r.Unmount(t.Context(), "a", "1"); err != nil {
		t.Error(err)
	}
}

// remoteWith is a remote that has a volume with two files.
func remoteWith(t *testing.T, name string) string {
	t.Helper()
	remote := t.TempDir()
	for _, file := range []string{"one", "two"} {
		path := filepath.Join(remote, name, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, make([]byte, 512), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return remote
}

func TestFill(t *testing.T) {
	r := newRig(t, Config{FillWait: 10 * time.Millisecond})
	remote := remoteWith(t, "db")
	r.b.tell(t, "hold-fill")
	r.create("db", given{"remote": remote})
	r.b.reached(t, "fill")
	_, err := r.Mount(t.Context(), "db", "a")
	fails(t, err, nil, "is being filled from its remote (50%, 512 B of 1.0 KiB)")
	if got := r.info("db").Status["state"]; got != "filling (50%, 512 B of 1.0 KiB)" {
		t.Errorf("state: %v", got)
	}
	r.Close() // in the middle
	r.c.FillWait = time.Minute
	r.open()
	mounted := make(chan string)
	go func() { mounted <- r.mount("db", "a") }()
	r.b.release(t, "hold-fill")
	if at := <-mounted; !exists(filepath.Join(at, "one")) || !exists(filepath.Join(at, "two")) {
		t.Errorf("not all is in %s", at)
	}
	if got := r.info("db").Status["state"]; got != "ready" {
		t.Errorf("state: %v", got)
	}
	r.create("empty", given{"remote": remote})
	r.mount("empty", "a")
}

// A fill that fails says why when somebody mounts, at once, and goes on by
// itself.
func TestFillFails(t *testing.T) {
	r := newRig(t, Config{})
	r.b.tell(t, "fail-fill=connection refused")
	r.create("db", given{"remote": remoteWith(t, "db")})
	for range 2 {
		_, err := r.Mount(t.Context(), "db", "a")
		fails(t, err, nil, "not filled yet (50%, 512 B of 1.0 KiB): connection refused")
	}
	r.b.release(t, "fail-fill")
	r.mount("db", "a")
}

func TestRemoveWhileFilling(t *testing.T) {
	r := newRig(t, Config{Keep: -1})
	remote := remoteWith(t, "db")
	r.b.tell(t, "hold-fill")
	r.create("db", given{"remote": remote})
	r.b.reached(t, "fill")
	mounting := make(chan error, 1)
	go func() {
		_, err := r.Mount(t.Context(), "db", "a")
		mounting <- err
	}()
	if err := r.Remove(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	fails(t, <-mounting, fs.ErrNotExist, "no such volume")
	r.b.release(t, "hold-fill")
	r.create("db", given{"remote": remote})
	r.mount("db", "a")
}
