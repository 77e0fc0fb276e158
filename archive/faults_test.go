package archive_test

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/s4-storage/s4/archive"
	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/worktree"
)

// update archives what a scan since the base tells.
func (r *repository) update(t testing.TB, dir string, base *borgio.Outline, name string, left func(string, error)) archive.Result {
	t.Helper()
	root := openRoot(t, dir)
	tx := r.begin(t)
	m := &archive.Maker{Tx: tx, Root: root, Left: left, Moving: true}
	scan := root.Compare(t.Context(), archived(r.items(t, base.Archive)), worktree.Options{Strict: true})
	made, err := m.Update(t.Context(), base, archive.FromScan(scan, left), info(name))
	do(t, err, tx.Commit(t.Context()))
	return made
}

// TestChanging: a file that grows or goes while the archive is made is told of, and
// the next archive has it right.
func TestChanging(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		do(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	for _, name := range []string{"goes", "grows", "stays"} {
		write(name, "old")
	}
	do(t, os.Link(filepath.Join(dir, "goes"), filepath.Join(dir, "linked")))
	r := newRepository(t, "none")
	base := r.all(t, dir, "base")

	root := openRoot(t, dir)
	// What a scan has seen, and what happens before the file is opened.
	changed := iter.Seq2[archive.Changed, error](func(yield func(archive.Changed, error) bool) {
		for _, name := range []string{"goes", "grows", "linked", "new"} {
			if name == "new" {
				write("new", "short")
			}
			l, err := root.Stat(name)
			do(t, err)
			switch name {
			case "goes":
				do(t, os.Remove(filepath.Join(dir, "goes")))
			case "grows":
				write("grows", "longer than it was")
			case "new":
				do(t, os.Remove(filepath.Join(dir, "new")))
			}
			if !yield(archive.Changed{Path: name, Live: &l}, nil) {
				return
			}
		}
	})
	left := map[string]error{}
	tx := r.begin(t)
	m := &archive.Maker{Tx: tx, Root: root, Moving: true, Left: func(path string, err error) { left[path] = err }}
	made, err := m.Update(t.Context(), base.Outline, changed, info("moving"))
	do(t, err, tx.Commit(t.Context()))
	if len(left) != 3 || !errors.Is(left["grows"], archive.ErrChanging) || !errors.Is(left["goes"], fs.ErrNotExist) || !errors.Is(left["new"], fs.ErrNotExist) {
		t.Errorf("told of %v", left)
	}
	if got := summary(r.items(t, made.Ref.ID)); got != ". grows=18 linked=3 stays=3" {
		t.Errorf("archived %s", got)
	}
	next := r.update(t, dir, made.Outline, "next", func(path string, err error) { t.Errorf("%s: %v", path, err) })
	whole := r.all(t, dir, "whole")
	sameItems(t, r.items(t, next.Ref.ID), r.items(t, whole.Ref.ID))
}

// summary names the items with their sizes or what they are links of.
func summary(items []borgio.Item) string {
	var all []string
	for _, it := range items {
		s := it.Path
		if it.Mode&syscall.S_IFMT == syscall.S_IFREG {
			s += "=" + it.Source
			if it.Source == "" {
				s += string(rune('0'+it.Size/10)) + string(rune('0'+it.Size%10))
			}
		}
		all = append(all, strings.ReplaceAll(s, "=0", "="))
	}
	return strings.Join(all, " ")
}

// TestUnreadable runs itself again as a user who may not read everything: what he
// may not is told of, and of what was archived before the old version stays.
func TestUnreadable(t *testing.T) {
	if dir := os.Getenv("S4_TEST_UNREADABLE"); dir != "" {
		unreadable(t, dir)
		return
	}
	needRoot(t)
	dir, err := os.MkdirTemp("/tmp", "s4-unreadable-")
	do(t, err)
	defer os.RemoveAll(dir)
	b, err := os.ReadFile("/proc/self/exe")
	do(t, err, os.WriteFile(filepath.Join(dir, "test"), b, 0o755), os.Chmod(dir, 0o777))
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "test"), "-test.run=^TestUnreadable$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "S4_TEST_UNREADABLE="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func unreadable(t *testing.T, dir string) {
	tree := filepath.Join(dir, "tree")
	at := func(name string) string { return filepath.Join(tree, name) }
	do(t, os.MkdirAll(at("dark/in it"), 0o755))
	for _, name := range []string{"a", "dark/f", "gone", "here", "secret"} {
		do(t, os.WriteFile(at(name), []byte(name), 0o644))
	}
	do(t, os.Link(at("a"), at("z")), os.Link(at("gone"), at("kept")), os.Chmod(at("secret"), 0))
	r := newRepository(t, "none")
	var told []string
	left := func(path string, err error) {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", path, err)
		}
		told = append(told, path)
		slices.Sort(told)
	}
	tx := r.begin(t)
	base, err := (&archive.Maker{Tx: tx, Root: openRoot(t, tree), Left: left}).All(t.Context(), nil, info("base"))
	do(t, err, tx.Commit(t.Context()))
	if got := summary(r.items(t, base.Ref.ID)); got != ". a=1 dark dark/f=6 dark/in it gone=4 here=4 kept=gone z=a" || strings.Join(told, " ") != "secret" {
		t.Errorf("archived %s; told of %s", got, told)
	}

	// A link whose master went, a directory that became dark, and what is new.
	do(t, os.Remove(at("gone")), os.Chmod(at("kept"), 0), os.Chmod(at("a"), 0), os.Chmod(at("dark"), 0), os.WriteFile(at("new"), nil, 0), os.Chmod(at("secret"), 0o400))
	t.Cleanup(func() { _ = os.Chmod(at("dark"), 0o700) })
	told = nil
	next := r.update(t, tree, base.Outline, "next", left)
	if got := summary(r.items(t, next.Ref.ID)); got != ". a=1 dark dark/f=6 dark/in it here=4 kept=4 secret=6 z=1" || strings.Join(told, " ") != "a dark kept new z" {
		t.Errorf("archived %s; told of %s", got, told)
	}
	told = nil
	changed, err := archive.FromBtrfs(t.Context(), openRoot(t, tree), []btrfsvol.Change{
		{Kind: btrfsvol.Changed, Path: "dark/f", Mode: 0o644}, {Kind: btrfsvol.Changed, Path: "here", Mode: 0o644},
	}, func(string, bool) bool { return false }, left)
	do(t, err)
	for c, err := range changed {
		if do(t, err); c.Path != "here" {
			t.Errorf("changed: %+v", c)
		}
	}
	if strings.Join(told, " ") != "dark/f" {
		t.Errorf("told of %s", told)
	}
	do(t, os.Chmod(at("a"), 0o600), os.Chmod(at("dark"), 0o700), os.Chmod(at("kept"), 0o600), os.Chmod(at("new"), 0o600))
	told = nil
	last := r.update(t, tree, next.Outline, "last", left)
	whole := r.all(t, tree, "whole")
	sameItems(t, r.items(t, last.Ref.ID), r.items(t, whole.Ref.ID))
	if told != nil {
		t.Errorf("still told of %s", told)
	}
}
