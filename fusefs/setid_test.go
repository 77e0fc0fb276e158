package fusefs

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What a user does to a file that others may run as its owner takes the owner's
// bits away, as on a disk, whichever way the bytes go.
func TestSetID(t *testing.T) {
	fallocate := tool(t, "fallocate")
	for mode, off := range map[string]bool{"passthrough": false, "through the process": true} {
		t.Run(mode, func(t *testing.T) {
			volume := newVolume(t)
			mnt := mountLive(t, volume, newFakeHistory(), func(o *Options) { o.AllowOther, o.NoPassthrough = true, off })
			after := func(dir string, mode os.FileMode, command string) os.FileMode {
				path := filepath.Join(dir, "program")
				write(t, path, "program")
				if err := errors.Join(os.Chown(path, 1, nobody), os.Chmod(path, mode)); err != nil {
					t.Fatal(err)
				}
				if out, err := as(t, nobody, command+" "+path); err != nil {
					t.Fatalf("%s: %v: %s", command, err, out)
				}
				fi, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				return fi.Mode()
			}
			for _, mode := range []os.FileMode{
				0o666, 0o777 | os.ModeSetuid, 0o777 | os.ModeSetgid, 0o666 | os.ModeSetgid, 0o777 | os.ModeSetuid | os.ModeSetgid,
			} {
				for _, command := range []string{
					"cat", "echo x >>", "echo x >", "truncate -s 3", "truncate -s 30000", "dd if=/dev/zero bs=1 count=1 conv=notrunc status=none of=/dev/stdout 1<>",
					fallocate + " -l 20000", "cat /bin/true >",
				} {
					below, above := after(volume, mode, command), after(mnt, mode, command)
					if below != above {
						t.Errorf("%v after %s: %v below, %v through the mount", mode, command, below, above)
					}
				}
			}
		})
	}
}

func TestNoSetIDBesideWriters(t *testing.T) {
	volume := newVolume(t)
	mnt := mountLive(t, volume, newFakeHistory(), func(o *Options) { o.AllowOther = true })
	path := filepath.Join(mnt, "program")
	write(t, path, "program")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	writer := startAs(t, nobody, "exec 3>>"+path+"; echo; read end; echo more >&3")
	if err := os.Chmod(path, 0o777|os.ModeSetuid); !errors.Is(err, syscall.ETXTBSY) {
		t.Errorf("while another user may write: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Errorf("a mode without the bits: %v", err)
	}
	writer()
	if err := os.Chmod(path, 0o777|os.ModeSetuid); err != nil {
		t.Errorf("after the writer: %v", err)
	}
	// The owner's own open file, as cp and tar leave it, is in nobody's way.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fchmod(int(f.Fd()), 0o4755); err != nil {
		t.Errorf("by who has it open: %v", err)
	}
}

// startAs runs a shell command as an ordinary user up to its first line of
// output; what it gives lets it go on, and waits for its end.
func startAs(t *testing.T, uid uint32, command string) (end func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}
