package worktree_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/s4-storage/s4/worktree"
)

// Where a snapshot has no names for content it is compared by its bytes: files
// that are right keep theirs, and those that only look so get the right ones.
func TestContentWithoutNames(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"stays", "mode", "sly", "secret", "touched"} {
		write(t, filepath.Join(from, name), name+string(random(3<<20)))
	}
	old, stamps := take(t, from), openStamps(t)
	old.unnamed = true
	bring(t, to, old, nil, stamps)
	equal(t, from, to)

	keepTime := func(dir, name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		do(t, err)
		write(t, path, content)
		do(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	}
	do(t, os.Chmod(filepath.Join(from, "mode"), 0o604))
	keepTime(from, "sly", "SLY"+string(random(3<<20)))       // the snapshot has other bytes behind the same time
	keepTime(to, "secret", "SECRET"+string(random(3<<20)))   // the live tree has
	keepTime(to, "touched", "touched"+string(random(3<<20))) // nothing has
	next := take(t, from)
	next.unnamed = true
	kept := map[string]uint64{}
	for _, name := range []string{"stays", "touched"} {
		l, err := open(t, to).Stat(name)
		do(t, err)
		kept[name] = l.Ino
	}
	p, _ := bring(t, to, next, old, stamps)
	equal(t, from, to)
	for name, ino := range kept {
		if l, err := open(t, to).Stat(name); err != nil || l.Ino != ino {
			t.Errorf("%s was written anew, %v", name, err)
		}
	}
	for _, a := range p.Actions {
		if a.Path == "stays" || a.Path == "touched" && a.Op != worktree.SetMeta {
			t.Errorf("planned %s of %s", a.Op, a.Path)
		}
	}
}
