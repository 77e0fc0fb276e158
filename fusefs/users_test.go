package fusefs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asMember runs a shell command as a user who is in further groups, too.
func asMember(t *testing.T, uid uint32, groups []uint32, command string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What modes, groups and ACLs forbid is forbidden in each view, and the rest not.
func TestWhoMayRead(t *testing.T) {
	setfacl := tool(t, "setfacl")
	const alice, bob, team = 1001, 1002, 2000
	volume := newVolume(t)
	script := `set -e; cd "$0"; mkdir closed team blind; for d in . closed team blind; do echo secret >$d/file; done
		mkdir closed/sub; echo secret >closed/sub/file
		chmod 700 closed; chown 0:2000 team; chmod 750 team; chmod 744 blind
		echo secret >own; chown 1001 own; chmod 600 own
		echo secret >group; chown 0:2000 group; chmod 640 group
		echo secret >listed; chmod 600 listed; ` + setfacl + ` -m u:1001:r listed
		echo secret >barred; chmod 644 barred; ` + setfacl + ` -m u:1001:- barred
		echo secret >masked; chmod 640 masked; ` + setfacl + ` -m u:1001:r,m::- masked`
	run(t, "sh", "-c", script, volume)
	h := newFakeHistory()
	first := h.add(t, volume, time.Unix(1_700_000_000, 0))
	if err := os.RemoveAll(filepath.Join(volume, "closed/sub")); err != nil {
		t.Fatal(err)
	}
	h.add(t, volume, time.Unix(1_700_000_100, 0))
	mnt := mountLive(t, volume, h, func(o *Options) { o.AllowOther = true })

	for _, c := range []struct {
		path  string
		alice bool // she alone
		bob   bool // he alone
		group bool // bob, being in the team
	}{
		{"file", true, true, true},
		{"closed/file", false, false, false},
		{"team/file", false, false, true},
		{"blind/file", false, false, false}, // may be listed, not entered
		{"own", true, false, false},
		{"group", false, false, true},
		{"listed", true, false, false},
		{"barred", false, true, true},
		{"masked", false, false, false},
	} {
		version := first.Dir + filepath.Ext(c.path)
		for _, path := range []string{c.path, ".s4/history/latest/" + c.path, ".s4/versions/" + c.path + "/" + version} {
			if c.path == "listed" && strings.Contains(path, "versions") {
				continue // versions knows modes only, and is the stricter for it
			}
			for who, can := range map[string]struct {
				uid    uint32
				groups []uint32
				want   bool
			}{"alice": {alice, nil, c.alice}, "bob": {bob, nil, c.bob}, "bob of the team": {bob, []uint32{team}, c.group}} {
				out, err := asMember(t, can.uid, can.groups, "cat "+filepath.Join(mnt, path))
				if got := err == nil && out == "secret\n"; got != can.want || !can.want && !strings.Contains(out, "denied") {
					t.Errorf("%s reads %s: %q, want it to work: %v", who, path, out, can.want)
				}
			}
		}
	}
	for _, path := range []string{".s4/deleted/closed/sub/file", ".s4/versions/closed/sub/file", "closed/.s4/history/latest/file"} {
		if out, err := as(t, alice, "ls -L "+filepath.Join(mnt, path)); err == nil || !strings.Contains(out, "denied") {
			t.Errorf("alice sees %s: %q", path, out)
		}
	}
	if got := read(t, filepath.Join(mnt, ".s4/deleted/closed/sub/file")); got != "secret\n" {
		t.Errorf("deleted, for root: %q", got)
	}
}

// Each of these ends the same for an ordinary user in the mount as on the disk.
func TestOthersFiles(t *testing.T) {
	const prepare = `set -e; cd "$0"; umask 022; chmod 755 .
		mkdir sticky mine; chmod 1777 sticky; chown 1001 mine
		echo root >file; echo root >sticky/root; echo alice >sticky/alice; chown 1001:1001 sticky/alice
		for f in suid sgid plain; do echo x >$f; chmod 777 $f; done; chmod u+s suid; chmod g+s sgid; chmod 6777 plain
		echo x >trunc; chmod 6777 trunc; echo x >both; chmod 6755 both; chown 1001:1001 both; chmod 6755 both
		echo x >elsewhere; chown 1001:2000 elsewhere; chmod 2755 elsewhere
		setfattr -n trusted.hidden -v 1 file; setfattr -n user.seen -v 1 file`
	commands := []string{
		"echo x >file", "echo x >>file", "rm -f file", "mv file mine/file", "ln file mine/link", "chmod 777 file", "chown 1001 file",
		"touch -d 2000-01-01 file", "setfattr -n user.x -v 1 file", "mkdir new", "truncate -s 0 file",
		"rm -f sticky/root", "mv sticky/root sticky/other", "rm -f sticky/alice", "echo x >sticky/new",
		"echo y >>suid", "echo y >>sgid", "dd if=/dev/zero of=plain bs=1 count=1 conv=notrunc status=none", "truncate -s 1 trunc",
		"chgrp 2000 both", "chmod g+s elsewhere", "chown 1001:2000 mine", "chown 0 mine", "chgrp 3000 mine",
		"getfattr -m - file", "getfattr -n trusted.hidden file", "setfacl -m u:1:r elsewhere", "setfacl -m u:1:r file",
		"mknod mine/dev c 1 3", "mkfifo mine/fifo", "cp -p suid mine/copy",
	}
	for _, name := range []string{"setfattr", "getfattr", "setfacl"} {
		tool(t, name)
	}
	bothWays(t, func(t *testing.T, volume, mnt string) {
		below := filepath.Join(volume, "work")
		if err := os.Mkdir(below, 0o755); err != nil {
			t.Fatal(err)
		}
		plain := publicDir(t)
		run(t, "sh", "-c", prepare, below)
		run(t, "sh", "-c", prepare, plain)
		for _, command := range commands {
			for _, groups := range [][]uint32{nil, {2000}} {
				ended := func(dir string) string {
					out, err := asMember(t, 1001, groups, "cd "+dir+" && "+command+"; s=$?; find . -printf '%p %m %U:%G %s %n\\n' | grep -vF '. ' | sort; exit $s")
					return fmt.Sprint(err, "\n", strings.ReplaceAll(out, dir, ""))
				}
				if got, want := ended(filepath.Join(mnt, "work")), ended(plain); got != want {
					t.Errorf("%s, in groups %v:\n%s\nwant\n%s", command, groups, got, want)
				}
			}
		}
	})
}

// What a write takes from a file, the rights that running it gives, goes in the
// mount, too: of file capabilities this is told by an attribute.
func TestCapabilitiesGo(t *testing.T) {
	bothWays(t, func(t *testing.T, volume, mnt string) {
		path := filepath.Join(mnt, "program")
		write(t, path, "program")
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
		value := append([]byte{1, 0, 0, 2, 0, 4}, make([]byte, 14)...) // revision 2, cap_net_bind_service or so
		if err := unix.Setxattr(path, "security.capability", value, 0); err != nil {
			t.Fatal(err)
		}
		if out, err := as(t, nobody, "echo x >>"+path); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if n, err := unix.Getxattr(filepath.Join(volume, "program"), "security.capability", nil); err != unix.ENODATA {
			t.Errorf("still there after a write: %d bytes, %v", n, err)
		}
	})
}
