package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestConnectionKilled kills ssh several times while a file is read through it:
// the bytes are right all the same.
func TestConnectionKilled(t *testing.T) {
	need(t, "borg", "ssh")
	server := startSSHD(t)
	dir := t.TempDir()
	config, err := server.clientConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	const size, kills = 100 << 20, 4
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(body)
	if err := os.Mkdir(dir+"/tree", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tree/big", body, 0o600); err != nil {
		t.Fatal(err)
	}
	calls, rsh := filepath.Join(dir, "calls"), filepath.Join(dir, "rsh")
	if err := os.WriteFile(rsh, fmt.Appendf(nil, "#!/bin/sh\necho $$ >>%s\nexec ssh -F %s \"$@\"\n", calls, config), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := func(program string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = dir + "/tree"
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CACHE_HOME="+dir+"/cache", "BORG_BASE_DIR="+dir+"/borg", "BORG_RSH="+rsh,
			"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
		return cmd
	}
	for _, args := range [][]string{{"init", "-e", "none", dir + "/repo"}, {"create", "-C", "none", dir + "/repo::all", "."}} {
		if out, err := command("borg", args...).CombinedOutput(); err != nil {
			t.Fatalf("borg %s: %v\n%s", args, err, out)
		}
	}
	cat := command(filepath.Join(bin, "s4"), "cat", "--repo", "ssh://mys4remote"+dir+"/repo", "latest:big")
	var stderr bytes.Buffer
	cat.Stderr = &stderr
	out, err := cat.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for range kills {
		if _, err := io.CopyN(h, out, size/(kills+1)); err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		killConnections(t, calls)
	}
	_, err = io.Copy(h, out)
	if werr := cat.Wait(); err != nil || werr != nil {
		t.Fatalf("%v, %v\n%s", err, werr, stderr.String())
	}
	if [32]byte(h.Sum(nil)) != sha256.Sum256(body) {
		t.Error("content differs")
	}
}

// killConnections kills those ssh processes listed in calls that run. There
// must have been one.
func killConnections(t *testing.T, calls string) {
	t.Helper()
	b, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, word := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		// The number of one that is gone may be another program's by now.
		if line, _ := os.ReadFile("/proc/" + word + "/cmdline"); bytes.Contains(line, []byte("mys4remote")) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
				killed++
			}
		}
	}
	if killed == 0 {
		t.Error("no connection to kill")
	}
}
