package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// posixSkips are those of go-fuse's suite that do not fit, and why. Two more
// may skip themselves: Tmpfile before Linux 6.2, and XAttrLarge where the file
// system below has no room for such attributes.
var posixSkips = map[string]string{
	"FcntlFlockLocksFile": "wants F_SETLK to conflict within one process, as only locks of open files do; " +
		"here it behaves as on a disk: see TestLocks",
}

func TestPosix(t *testing.T) {
	for mode, off := range map[string]bool{"passthrough": false, "through the process": true} {
		t.Run(mode, func(t *testing.T) {
			mnt := mountLive(t, newVolume(t), newFakeHistory(), func(o *Options) { o.NoPassthrough = off })
			for name, test := range posixtest.All {
				t.Run(name, func(t *testing.T) {
					if why := posixSkips[name]; why != "" {
						t.Skip(why)
					}
					dir := filepath.Join(mnt, name)
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					test(t, dir)
				})
			}
		})
	}
}

func TestInPlace(t *testing.T) {
	volume := newVolume(t)
	write(t, filepath.Join(volume, "file"), "below")
	live, err := os.Open(volume)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	h := newFakeHistory()
	info := h.add(t, volume, time.Unix(1_700_000_000, 0))
	s := mount(t, volume, Options{Live: live, History: h})

	write(t, filepath.Join(volume, "file"), "through the mount")
	write(t, filepath.Join(volume, "new"), "new")
	if got := read(t, filepath.Join(volume, ".s4/history", info.Dir, "file")); got != "below" {
		t.Errorf("history has %q", got)
	}
	below := make([]byte, 100)
	n, err := unix.Getxattr(volume, XattrRoot, below)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(string(below[:n]), "new")); got != "new" {
		t.Errorf("below the mount: %q", got)
	}
	if _, err := os.Stat(filepath.Join(string(below[:n]), ".s4/local/secret")); err != nil {
		t.Error(err)
	}
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(volume, "file")); got != "through the mount" {
		t.Errorf("after unmounting: %q", got)
	}
}

func TestDotS4(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	dir := filepath.Join(mnt, ".s4")
	if got := names(t, dir); !slices.Equal(got, []string{"config", "deleted", "history", "versions"}) {
		t.Errorf("listed: %q", got)
	}
	// Once more from a position in the middle, as a rewound listing is.
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		if list, err := f.Readdirnames(-1); err != nil || len(list) != 4 {
			t.Errorf("listed again: %q, %v", list, err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
	}
	for what, got := range map[string]error{
		"stat local":     func() error { _, err := os.Lstat(filepath.Join(dir, "local")); return err }(),
		"mkdir local":    os.Mkdir(filepath.Join(dir, "local"), 0o755),
		"remove .s4":     syscall.Rmdir(dir),
		"rename .s4":     os.Rename(dir, filepath.Join(mnt, "other")),
		"rename history": os.Rename(filepath.Join(dir, "history"), filepath.Join(mnt, "other")),
		"rename to local": func() error {
			return os.Rename(filepath.Join(dir, "config"), filepath.Join(dir, "local"))
		}(),
	} {
		want := map[string]error{
			"stat local": syscall.ENOENT, "mkdir local": syscall.EPERM, "remove .s4": syscall.EBUSY,
			"rename .s4": syscall.EBUSY, "rename history": syscall.EXDEV, "rename to local": syscall.EPERM,
		}[what]
		if what == "rename history" && errors.Is(got, syscall.EBUSY) {
			continue
		}
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	write(t, filepath.Join(dir, "config"), "[volume]\nname = other\n")
}

func TestNoWayOut(t *testing.T) {
	volume, outside := newVolume(t), t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	if err := os.Mkdir(filepath.Join(volume, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(volume, "dir/secret"), "harmless")
	mnt := mountLive(t, volume, newFakeHistory(), nil)
	if got := read(t, filepath.Join(mnt, "dir/secret")); got != "harmless" {
		t.Fatal(got)
	}
	// The kernel still believes in the directory when it is replaced below.
	if err := os.Rename(filepath.Join(volume, "dir"), filepath.Join(volume, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(volume, "dir")); err != nil {
		t.Fatal(err)
	}
	f, err := newLiveTreeAt(t, volume).open("dir/secret", unix.O_RDONLY, 0)
	if err == nil {
		_ = unix.Close(f)
	}
	if !errors.Is(err, unix.ELOOP) {
		t.Errorf("through a link: %v, want ELOOP", err)
	}
}

func newLiveTreeAt(t *testing.T, dir string) *liveTree {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	tree, err := newLiveTree(f)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

const nobody = 65534

// as runs a shell command as an ordinary user.
func as(t *testing.T, uid uint32, command string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestOtherUsers(t *testing.T) {
	volume := newVolume(t)
	write(t, filepath.Join(volume, "private"), "private")
	write(t, filepath.Join(volume, "public"), "public")
	if err := os.Chmod(filepath.Join(volume, "private"), 0); err != nil {
		t.Fatal(err)
	}
	for dir, mode := range map[string]os.FileMode{"open": 0o777, "team": 0o777 | os.ModeSetgid} {
		path := filepath.Join(volume, dir)
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 0, 42); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	h := newFakeHistory()
	h.add(t, volume, time.Unix(1_700_000_000, 0))
	mnt := mountLive(t, volume, h, func(o *Options) { o.AllowOther = true })

	for _, dir := range []string{mnt, filepath.Join(mnt, ".s4/history/latest")} {
		if out, err := as(t, nobody, "cat "+filepath.Join(dir, "public")); err != nil || out != "public" {
			t.Errorf("public in %s: %q, %v", dir, out, err)
		}
		if out, err := as(t, nobody, "cat "+filepath.Join(dir, "private")); err == nil || !strings.Contains(out, "denied") {
			t.Errorf("private in %s: %q, %v", dir, out, err)
		}
	}
	script := "cd " + mnt + "/open && umask 0 && echo x >file && mkdir dir && ln -s x link && mkfifo fifo && mkdir ../team/dir && echo x >../team/file"
	if out, err := as(t, nobody, script); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]struct {
		gid  uint32
		mode uint32
	}{
		"open/file": {nobody, unix.S_IFREG | 0o666},
		"open/dir":  {nobody, unix.S_IFDIR | 0o777},
		"open/link": {nobody, unix.S_IFLNK | 0o777},
		"open/fifo": {nobody, unix.S_IFIFO | 0o666},
		"team/dir":  {42, unix.S_IFDIR | unix.S_ISGID | 0o777},
		"team/file": {42, unix.S_IFREG | 0o666},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(volume, name), &st); err != nil {
			t.Error(err)
			continue
		}
		if st.Uid != nobody || st.Gid != want.gid || st.Mode != want.mode {
			t.Errorf("%s: %d:%d %o, want %d:%d %o", name, st.Uid, st.Gid, st.Mode, nobody, want.gid, want.mode)
		}
	}
}

// A file without a name can still be changed by those who have it open.
func TestUnlinkedOpenFile(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	f, err := os.Create(filepath.Join(mnt, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o600); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteString("still here"); err != nil {
		t.Error(err)
	}
	if fi, err := f.Stat(); err != nil || fi.Mode() != 0o600 || fi.Size() != 10 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestLocks(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	path := filepath.Join(mnt, "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flock := tool(t, "flock")
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), flock, "-n", path, "true").Run(); err == nil {
		t.Error("another process got a lock that is held")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	run(t, flock, "-n", path, "true")
}

// What is made through the mount gets the modes and ACLs that it gets below.
func TestUmaskAndACL(t *testing.T) {
	setfacl, getfacl := tool(t, "setfacl"), tool(t, "getfacl")
	volume := newVolume(t)
	mnt := mountLive(t, volume, newFakeHistory(), func(o *Options) { o.AllowOther = true })
	made := func(top string) string {
		return run(t, "sh", "-c", "set -e; cd "+top+"; mkdir plain acl narrow; "+
			setfacl+" -d -m u:1234:rw acl; "+setfacl+" -d -m g::r,o::- narrow; "+
			"for m in 0 022 077; do umask $m; for d in plain acl narrow; do "+
			"mkdir $d/dir$m; echo >$d/file$m; mkfifo $d/fifo$m; done; done; "+
			getfacl+" -R plain acl narrow; rm -r plain acl narrow")
	}
	if below, above := made(volume), made(mnt); below != above {
		t.Errorf("below:\n%s\nthrough the mount:\n%s", below, above)
	}
	secret := filepath.Join(mnt, "secret")
	write(t, secret, "secret")
	run(t, "chmod", "600", secret)
	if out, err := as(t, nobody, "cat "+secret); err == nil {
		t.Errorf("without an ACL: %q", out)
	}
	run(t, setfacl, "-m", "u:65534:r", secret)
	if out, err := as(t, nobody, "cat "+secret); err != nil || out != "secret" {
		t.Errorf("with an ACL: %q, %v", out, err)
	}
}

func TestRenameFlags(t *testing.T) {
	mnt := mountLive(t, newVolume(t), newFakeHistory(), nil)
	a, b := filepath.Join(mnt, "a"), filepath.Join(mnt, "dir/b")
	write(t, a, "a")
	write(t, b, "b")
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE); !errors.Is(err, unix.EEXIST) {
		t.Errorf("noreplace: %v", err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		t.Errorf("exchange: %v", err)
	}
	if read(t, a) != "b" || read(t, b) != "a" {
		t.Errorf("exchanged: a is %q, b is %q", read(t, a), read(t, b))
	}
}

// Without root, fusermount3 mounts and reads and writes go through the
// process. A private mount namespace has a /dev/fuse that everybody may open.
func TestOrdinaryUser(t *testing.T) {
	needFUSE(t)
	unshare, setpriv := tool(t, "unshare"), tool(t, "setpriv")
	tool(t, "fusermount3")
	dir := publicDir(t)
	volume, program, device := filepath.Join(dir, "volume"), filepath.Join(dir, "program"), filepath.Join(dir, "fuse")
	write(t, filepath.Join(volume, ".s4/config"), "config")
	write(t, filepath.Join(volume, "file"), "file")
	run(t, "cp", os.Args[0], program)
	run(t, "chown", "-R", "65534:65534", volume)
	script := `set -e
mknod -m 666 ` + device + ` c 10 229
mount --bind -o dev ` + device + ` /dev/fuse
exec ` + setpriv + ` --reuid 65534 --regid 65534 --clear-groups sh -ec '
	mkfifo said
	` + envDaemon + `=$PWD ` + program + ` >said & daemon=$!
	read line <said
	cat $PWD/file
	echo new >$PWD/new
	ls $PWD/.s4
	fusermount3 -u $PWD
	wait $daemon'`
	cmd := exec.CommandContext(t.Context(), unshare, "-m", "--propagation", "private", "sh", "-c", script)
	cmd.Dir = volume
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := string(out), "fileconfig\ndeleted\nhistory\nversions\n"; got != want {
		t.Errorf("saw %q, want %q", got, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(volume, "new"), &st); err != nil || st.Uid != nobody {
		t.Errorf("new file of %d: %v", st.Uid, err)
	}
}

// Where the kernel can, it reads and writes the file below by itself.
func TestPassthrough(t *testing.T) {
	var release unix.Utsname
	if err := unix.Uname(&release); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(release.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if major < 6 || major == 6 && minor < 9 {
		t.Skip("needs Linux 6.9")
	}
	for _, off := range []bool{false, true} {
		var log logBuffer
		mnt := mountLive(t, newVolume(t), newFakeHistory(), func(o *Options) {
			o.NoPassthrough, o.Debug = off, true
			o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		path := filepath.Join(mnt, "file")
		write(t, path, "data")
		if got := read(t, path); got != "data" {
			t.Error(got)
		}
		if saw := strings.Contains(log.String(), ": WRITE "); saw != off {
			t.Errorf("passthrough off: %v, but this process saw a write: %v", off, saw)
		}
	}
}
