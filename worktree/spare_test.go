package worktree_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// What is hidden or protected stays whatever takes its place or goes around it, and
// so do the directories that it is in.
func TestSpared(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	f := func(path string) string { return filepath.Join(from, path) }
	p := func(path string) string { return filepath.Join(to, path) }
	write(t, f("shared"), "new")
	write(t, f("busy"), "a file where a directory is")
	write(t, f("guarded"), "another one")
	write(t, f("build"), "a file, where directories of that name are hidden")
	do(t, os.Link(f("shared"), f("link")))
	for path, text := range map[string]string{
		"shared": "new", "gone/file": "x", "gone/deep/hid": "hidden", "gone/deep/file": "x", "busy/hid": "hidden", "busy/file": "x",
		"guarded/keep/file": "protected", "guarded/file": "x", "keep/file": "protected", "build/file": "hidden", "all/gone": "x",
	} {
		write(t, p(path), text)
	}
	do(t, os.Link(p("shared"), p("gone/hid")), os.Chmod(f("shared"), 0o600), os.Chmod(p("shared"), 0o644))
	s := take(t, from)
	exclude := func(path string, dir bool) bool { return filepath.Base(path) == "hid" || dir && path == "build" }
	met := ""
	o := worktree.PlanOptions{Source: source{s}, Delete: true, Options: worktree.Options{Exclude: exclude,
		Hidden: func(path string, _ bool) { met += path + " " }}}
	o.Protect = func(path string, dir bool) bool { return dir && filepath.Base(path) == "keep" }
	root := open(t, to)
	plan, err := root.Plan(t.Context(), s, o)
	do(t, err)
	if met != "build busy/hid gone/deep/hid gone/hid " || plan.Spared != 4 {
		t.Errorf("hidden: %q, %d spared", met, plan.Spared)
	}
	result, err := root.Apply(t.Context(), plan, worktree.ApplyOptions{Source: source{s}})
	if !errors.Is(err, snapshot.ErrRefused) || strings.Count(err.Error(), "in the way") != 3 || result.Spared != 4 {
		t.Errorf("%+v, %v", result, err)
	}
	for path, want := range map[string]string{
		"shared": "new", "link": "new", "gone/deep/hid": "hidden", "gone/hid": "new", "busy/hid": "hidden", "busy/file": "x",
		"guarded/keep/file": "protected", "guarded/file": "x", "keep/file": "protected", "build/file": "hidden",
		"gone/file": "", "gone/deep/file": "", "all": "",
	} {
		data, err := os.ReadFile(p(path))
		if string(data) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", path, data, err, want)
		}
	}
	// A name that is hidden keeps the metadata that it has.
	if info, err := os.Stat(p("gone/hid")); err != nil || info.Mode() != 0o644 {
		t.Errorf("hidden name of what got another mode: %v, %v", info, err)
	}
}
