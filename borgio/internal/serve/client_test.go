package serve

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// openOn makes a repository and opens it with a stand-in for ssh that runs borg here;
// calls has the number of each process that did.
func openOn(t *testing.T, keep bool) (c *Client, calls string) {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	dir := t.TempDir()
	repo, rsh, calls := filepath.Join(dir, "repo"), filepath.Join(dir, "rsh"), filepath.Join(dir, "calls")
	if out, err := exec.Command("borg", "init", "-e", "none", repo).CombinedOutput(); err != nil {
		t.Fatalf("borg init: %v: %s", err, out)
	}
	if err := os.WriteFile(rsh, []byte("#!/bin/sh\necho $$ >>"+calls+"\nshift\nexec \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), Options{
		Host: "host", Path: repo, Name: "host:" + repo, Logger: slog.New(slog.DiscardHandler),
		Environ: func(name string) (string, bool) {
			if name == "BORG_RSH" {
				return "/bin/sh " + rsh, true
			}
			return "", false
		},
		Timeout: time.Minute, LockWait: 10 * time.Second, Keep: keep,
	}, &buffer.Pool{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, calls
}

// TestIdleReaderEnds: some time after the last call nothing runs on the other
// side, and the next call makes it run again.
func TestIdleReaderEnds(t *testing.T) {
	c, _ := openOn(t, false)
	rd, err := c.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rd.release()
	rd.mu.Lock()
	rd.idle = time.Now().Add(-readerIdle)
	rd.mu.Unlock()
	select {
	case <-rd.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the session goes on")
	}
	if _, err := c.Get(t.Context(), manifestID); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(t.Context(), [32]byte{1}); !errors.Is(err, ErrNoObject) {
		t.Errorf("what is not there: %v", err)
	}
}
