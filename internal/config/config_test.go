package config

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSetGetUnset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "config")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"volume.name":           "photos of 2024",
		"remote.origin.url":     "s4@nas:/volumes",
		"remote.my.nas.url":     `C:\odd "path" # not a comment ; neither`,
		"remote.my.nas.comment": " spaces around ",
		"label.empty":           "",
		"label.lines":           "one\ntwo\tthree",
		"core.passcommand":      "sh -c 'pass show borg'",
	}
	for key, value := range want {
		if err := f.Set(key, value); err != nil {
			t.Fatalf("set %s: %v", key, err)
		}
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range want {
		if got, ok := again.Get(key); !ok || got != value {
			t.Errorf("%s = %q, %v; want %q", key, got, ok, value)
		}
	}
	n := 0
	for key, value := range again.All() {
		if want[key] != value {
			t.Errorf("All has %s = %q, want %q", key, value, want[key])
		}
		n++
	}
	if n != len(want) {
		t.Errorf("All yields %d keys, want %d", n, len(want))
	}
	if got, ok := again.Get("VOLUME.Name"); !ok || got != "photos of 2024" {
		t.Errorf("section and name are not case-insensitive: %q, %v", got, ok)
	}
	if err := again.Unset("remote.my.nas.comment"); err != nil {
		t.Error(err)
	}
	if err := again.Unset("remote.my.nas.comment"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unset twice: %v", err)
	}
	again.RemoveSubsection("remote", "my.nas")
	if got := again.Subsections("remote"); len(got) != 1 || got[0] != "origin" {
		t.Errorf("remotes left: %q", got)
	}
}

// What s4 writes, git reads.
func TestGitReadsIt(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	path := filepath.Join(t.TempDir(), "config")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	const odd = `a "quoted" \ value # with ; everything`
	for _, key := range []string{"volume.name", "remote.a b.url"} {
		if err := errors.Join(f.Set(key, odd), f.Save()); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("git", "config", "-f", path, key).Output()
		if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != odd {
			t.Errorf("git reads %s as %q, %v; want %q", key, got, err, odd)
		}
	}
}

func TestBadKeys(t *testing.T) {
	f, err := Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "name", ".name", "section.", "sec tion.name", "section.na me", "a.b\nc.d", "-a.b"} {
		if err := f.Set(key, "x"); err == nil {
			t.Errorf("%q was accepted", key)
		}
	}
}

// The first s4 wrote this with Python's configparser.
func TestLegacy(t *testing.T) {
	f, err := Parse([]byte("[volume]\nname = old\nid = 5d8f7a1e\nsize = 10G\n\n[remotes]\norigin = s4@host:/volumes\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"volume.name": "old", "volume.size": "10G", "remotes.origin": "s4@host:/volumes"} {
		if got, _ := f.Get(key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
}

func TestBrokenFileIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("[volume\nname"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a broken file gives %v", err)
	}
}

// A list comes back as it was, also where git reads it, and what could not be read
// again is not taken.
func TestLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	odd := []string{"*.tmp", ` a "b" \* # ; `, "x\ny", "a", "[!a]/", "#", "ä", "-", "\t", "=", "a"}
	if err := errors.Join(f.Set("push.other", "stays"), f.SetAll("push.exclude", []string{"old", "a"}), f.SetAll("push.exclude", odd), f.Save()); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Values("push.exclude"); !slices.Equal(got, odd) {
		t.Errorf("got %q", got)
	}
	if out, err := exec.Command("git", "config", "-f", path, "-z", "--get-all", "push.exclude").Output(); err == nil && string(out) != strings.Join(odd, "\x00")+"\x00" {
		t.Errorf("git reads %q", out)
	}
	if v, _ := again.Get("push.other"); v != "stays" || len(again.Values("push.none")) > 0 {
		t.Errorf("beside it: %q", v)
	}
	if err := again.SetAll("push.exclude", nil); err != nil || len(again.Values("push.exclude")) > 0 {
		t.Errorf("an empty list: %v", err)
	}
	for _, bad := range []string{"\xff", "a\x00", "a\r", "\ufeff"} {
		if again.Set("a.b", bad) == nil || again.SetAll("a.b", []string{"ok", bad}) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
