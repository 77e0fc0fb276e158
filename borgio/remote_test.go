package borgio_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
)

// script makes a shell script to stand in for ssh.
func script(t testing.TB, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rsh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRemoteFailures: each way of not reaching a server is told apart, in words
// that include the remote's own, and in time. For what servers do, see
// TestHostileServer.
func TestRemoteFailures(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         error
		says         string
	}{
		{"refused", "echo 'ssh: connect to host h port 22: Connection refused' >&2; exit 255", borgio.ErrUnreachable, "Connection refused"},
		{"host key", "echo 'Host key verification failed.' >&2; exit 255", borgio.ErrHostKey, "Host key"},
		{"no borg", "echo 'sh: 1: borg: not found' >&2; exit 127", borgio.ErrNoBorg, "not found"},
		{"silent", "exec sleep 100", borgio.ErrUnreachable, "no answer"},
		{"chatter", "echo hello, this is a login message; exec sleep 100", borgio.ErrUnreachable, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			loc, _ := borgio.ParseLocation("h:/r")
			begun := time.Now()
			_, err := borgio.Open(t.Context(), loc, borgio.Options{
				Environ: environ("BORG_RSH=/bin/sh " + script(t, c.script)), Timeout: 2 * time.Second,
			})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			if d := time.Since(begun); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func TestRemoteRefusals(t *testing.T) {
	needBorg(t)
	program, _ := rsh(t)
	loc, _ := borgio.ParseLocation("host:/does/not/exist")
	if _, err := borgio.Open(t.Context(), loc, remoteOptions(t, program)); !errors.Is(err, borgio.ErrNotRepository) {
		t.Errorf("nothing there: %v", err)
	}
	dir := copyFrozen(t, "mode-none")
	lockElsewhere(t, dir)
	opts := remoteOptions(t, program)
	opts.LockWait = time.Second
	loc, _ = borgio.ParseLocation("host:" + dir)
	if _, err := borgio.Open(t.Context(), loc, opts); !errors.Is(err, borgio.ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	readArchive(t, mustOpen(t, dir, frozenOptions(t)), "first") // in place no lock matters
}

// TestRestrictedServer: what an authorized_keys file may make of the command
// does not matter, unless the repository is not among what it allows.
func TestRestrictedServer(t *testing.T) {
	needBorg(t)
	dir := copyFrozen(t, "mode-none")
	for _, c := range []struct {
		name, options string
		want          error
	}{
		{"path", "--restrict-to-path " + filepath.Dir(dir), nil},
		{"repository", "--restrict-to-repository " + dir, nil},
		{"append only", "--append-only --restrict-to-path " + dir, nil},
		{"quota", "--storage-quota 1G", nil},
		{"another path", "--restrict-to-path " + t.TempDir(), os.ErrPermission},
		{"another repository", "--append-only --restrict-to-repository " + filepath.Dir(dir), os.ErrPermission},
	} {
		t.Run(c.name, func(t *testing.T) {
			// As sshd does it, with what the client asked for in a variable.
			opts := remoteOptions(t, script(t, `SSH_ORIGINAL_COMMAND="borg serve" exec borg serve `+c.options))
			loc, _ := borgio.ParseLocation("host:" + dir)
			r, err := borgio.Open(t.Context(), loc, opts)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				return
			}
			readArchive(t, r, "first")
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestConnectionDies kills the remote process again and again under a reader,
// who notices nothing; once it cannot come back, there is an error in time.
func TestConnectionDies(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	fillTree(t, tree, 9<<20)
	runBorg(t, tree, "init", "-e", "authenticated", repo)
	runBorg(t, tree, "create", "-C", "none", repo+"::all", ".")
	program, calls := rsh(t)
	opts := remoteOptions(t, program)
	opts.Timeout = 4 * time.Second
	r := mustOpen(t, "host:"+repo, opts)
	big := readArchive(t, r, "all")["big"]
	for round := range 3 {
		pr, pw := io.Pipe()
		go func() {
			_, err := r.OpenFile(big.Chunks).WriteTo(pw)
			pw.CloseWithError(err)
		}()
		h := sha256.New()
		if _, err := io.CopyN(h, pr, 1<<20); err != nil {
			t.Fatal(err)
		}
		killAll(t, calls)
		if _, err := io.Copy(h, pr); err != nil || [32]byte(h.Sum(nil)) != big.sum {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	killAll(t, calls)
	begun := time.Now()
	_, err := r.OpenFile(big.Chunks).WriteTo(io.Discard)
	if !errors.Is(err, borgio.ErrUnreachable) || time.Since(begun) > 15*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Manifest(t.Context()); !errors.Is(err, borgio.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// killAll kills the stand-ins for ssh that run.
func killAll(t *testing.T, calls string) {
	t.Helper()
	for _, pid := range running(t, calls) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
}

// running lists the stand-ins for ssh that run.
func running(t *testing.T, calls string) (pids []int) {
	t.Helper()
	b, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		// The number of one that is gone may be another program's by now.
		if line, _ := os.ReadFile("/proc/" + word + "/cmdline"); bytes.Contains(line, []byte("serve")) {
			pids = append(pids, pid)
		}
	}
	return pids
}
