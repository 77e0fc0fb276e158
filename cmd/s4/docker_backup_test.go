package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/volume"
)

// TestDockerBackupPrunes: of a docker volume that was pushed some times, what its
// label keeps is at the remote then, as borg sees it.
func TestDockerBackupPrunes(t *testing.T) {
	borg, err := exec.LookPath("borg")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	home, dir, place := t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "BORG_BASE_DIR"} {
		t.Setenv(name, home)
	}
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
	access, err := reach.NewAccess(slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &dockerBackup{&app{Globals: &Globals{}, access: access}}
	dv := dockeragent.Volume{Name: "app_data", Path: dir, Remote: place, Captured: func() {}}
	for n := range 4 {
		if err := os.WriteFile(filepath.Join(dir, "file"), fmt.Append(nil, "number ", n), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Push(t.Context(), dv); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		keep       dockeragent.Keep
		gone, left int
	}{
		{dockeragent.Keep{Within: time.Hour}, 0, 4},
		{dockeragent.Keep{Last: 3}, 1, 3},
		{dockeragent.Keep{Yearly: 1}, 2, 1},
	} {
		dv.Keep = c.keep
		r, err := b.Prune(t.Context(), dv)
		if err != nil || r.Snapshots != c.gone || c.gone > 0 && r.Freed == 0 {
			t.Errorf("%+v: %+v, %v", c.keep, r, err)
		}
		out, err := exec.Command(borg, "list", "--short", filepath.Join(place, "app_data")).Output()
		if got := len(strings.Fields(string(out))); err != nil || got != c.left {
			t.Errorf("%+v: borg lists %d archives: %v", c.keep, got, err)
		}
	}
}

// What labels leave out comes and goes with them; what a person leaves out stays out.
func TestDockerBackupLeavesOut(t *testing.T) {
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"} {
		t.Setenv(name, t.TempDir())
	}
	access, err := reach.NewAccess(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dv := dockeragent.Volume{Name: "data", Path: filepath.Join(t.TempDir(), "_data"), Remote: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(dv.Path, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tmp/a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dv.Path, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := newDockerBackup(&app{access: access})
	for _, c := range []struct {
		exclude []string
		files   int64 // with .s4/config
	}{{nil, 4}, {[]string{"/tmp/*", "/b"}, 2}, {[]string{"/tmp/*"}, 3}, {nil, 4}} {
		dv.Exclude = c.exclude
		r, err := b.Push(t.Context(), dv)
		if err != nil || r.Files != c.files {
			t.Errorf("without %q: %d files, %v", c.exclude, r.Files, err)
		}
	}
	v, err := volume.Open(dv.Path, access)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := volume.SetSetting(v, access, "push.exclude", "c"); err != nil {
		t.Fatal(err)
	}
	dv.Exclude = []string{"/b"}
	if r, err := b.Push(t.Context(), dv); err != nil || r.Files != 2 {
		t.Errorf("with a person's: %d files, %v", r.Files, err)
	}
}
