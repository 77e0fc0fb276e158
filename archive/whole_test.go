package archive_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

// makeTree makes every kind of entry that an archive can hold, and some that it
// cannot.
func makeTree(t testing.TB, root string) {
	t.Helper()
	at := func(p string) string { return filepath.Join(root, p) }
	do(t, os.MkdirAll(at("dir/deep/er"), 0o755), os.Mkdir(at("empty dir"), 0o700))
	noise := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{7}).Read(noise)
	for name, data := range map[string][]byte{
		"file": []byte("hello\n"), "empty": nil, "dir/deep/er/exec": []byte("#!/bin/sh\n"), "dir/\xff\xfenot utf8": []byte("x"),
		"dir/new\nline": []byte("y"), "dir/big": noise, "dir/deep/zeros": make([]byte, 3<<20), "ümläut": []byte("z"), "dir.x": []byte("before dir/"),
	} {
		do(t, os.WriteFile(at(name), data, 0o644))
	}
	do(t, os.Link(at("file"), at("dir/hard")), os.Link(at("file"), at("dir/deep/hard2")), os.Link(at("dir/big"), at("a big one")))
	do(t, os.Symlink("../file", at("dir/link")), os.Symlink("/nowhere/at all", at("dangling")), os.Link(at("dangling"), at("dir/dangling")))
	do(t, unix.Mkfifo(at("fifo"), 0o640), os.Link(at("fifo"), at("dir/fifo")))
	do(t, unix.Setxattr(at("file"), "user.comment", []byte("a \x00 value"), 0), unix.Setxattr(at("dir"), "user.dir", nil, 0))
	sparse, err := os.Create(at("sparse"))
	do(t, err)
	_, err = sparse.WriteAt([]byte("end"), 3<<20)
	do(t, err, sparse.Close())
	do(t, exec.Command("setfacl", "-m", "u:1234:rw,g:2345:r", at("empty")).Run(), exec.Command("setfacl", "-d", "-m", "u:1234:rwx", at("empty dir")).Run())
	do(t, os.Chmod(at("dir/deep/er/exec"), 0o755|os.ModeSetuid))
	for i := range 300 {
		do(t, os.WriteFile(at(fmt.Sprintf("dir/deep/n%03d", i)), noise[i:i*i], 0o600))
	}
	if os.Geteuid() == 0 {
		do(t, unix.Mknod(at("device"), unix.S_IFCHR|0o620, int(unix.Mkdev(1, 3))), unix.Mknod(at("block"), unix.S_IFBLK|0o620, int(unix.Mkdev(300, 70000))))
		do(t, os.Link(at("device"), at("dir/device")), os.Lchown(at("dangling"), 1234, 2345), os.Chown(at("dir/big"), 1234, 2345))
		do(t, unix.Setxattr(at("dir/big"), "trusted.t", []byte("t"), 0))
	}
	socket, err := net.Listen("unix", at("socket"))
	do(t, err)
	t.Cleanup(func() { socket.Close() })
	for i, p := range []string{"file", "dir/big", "empty dir", "dir/deep", "dir"} {
		old := time.Unix(1_000_000_000+int64(i), 123_456_789)
		do(t, os.Chtimes(at(p), old, old))
	}
}

// TestAsBorg: an archive of everything is as borg's own, and borg makes the same
// tree of it.
func TestAsBorg(t *testing.T) {
	needTools(t, "borg", "rsync", "setfacl")
	for _, mode := range []string{"none", "repokey-blake2"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			tree := t.TempDir()
			makeTree(t, tree)
			r := newRepository(t, mode)
			r.borg(t, tree, "create", r.dir+"::borg", ".")
			made := r.all(t, tree, "s4")
			theirs := map[string]borgio.Item{}
			m, err := r.Manifest(t.Context())
			do(t, err)
			for _, a := range m.Archives {
				if a.Name == "borg" {
					for _, it := range r.items(t, a.ID) {
						theirs[it.Path] = it
					}
				}
			}
			// borg meets the names of an inode in another order, so which of them
			// has the content may differ.
			masters := func(items map[string]borgio.Item) map[string]string {
				by := map[string]string{}
				for path, it := range items {
					if it.HardlinkMaster {
						by[path] = path
					} else if it.Source != "" && it.Mode&unix.S_IFMT != unix.S_IFLNK {
						by[path] = it.Source
					}
				}
				return by
			}
			ours := map[string]borgio.Item{}
			for _, it := range r.items(t, made.Ref.ID) {
				ours[it.Path] = it
			}
			byOurs, byTheirs := masters(ours), masters(theirs)
			groups := map[[2]string]int{}
			for path := range byOurs {
				groups[[2]string{byOurs[path], byTheirs[path]}]++
			}
			if got := slices.Sorted(maps.Values(groups)); os.Geteuid() == 0 && fmt.Sprint(got) != "[2 2 2 3]" {
				t.Errorf("hard links: %v", groups)
			}
			plain := func(items map[string]borgio.Item, by map[string]string) (list []borgio.Item) {
				for path, it := range items {
					if master, ok := by[path]; ok {
						it.Chunks, it.Size = items[master].Chunks, items[master].Size
						it.Source, it.HardlinkMaster = "", false
					}
					if it.ACLDefault != nil { // then borg also tells what the mode says
						it.ACLAccess = nil
					}
					list = append(list, it)
				}
				slices.SortFunc(list, func(a, b borgio.Item) int { return borgio.ComparePaths(a.Path, b.Path) })
				return list
			}
			sameItems(t, plain(ours, byOurs), plain(theirs, byTheirs))
			if _, ok := ours["socket"]; ok {
				t.Error("a socket was archived")
			}
			for _, order := range [][]string{{"s4", "borg"}, {"borg", "s4"}} {
				if out := r.borg(t, tree, "diff", r.dir+"::"+order[0], order[1]); out != "" {
					t.Errorf("borg diff %s:\n%s", order, out)
				}
			}
			do(t, os.Remove(filepath.Join(tree, "socket")))
			extracted := t.TempDir()
			r.borg(t, extracted, "extract", "--numeric-ids", "--sparse", r.dir+"::s4")
			// Borg's archives cannot tell that links have several names.
			if target, err := os.Readlink(filepath.Join(extracted, "dir/dangling")); err != nil || target != "/nowhere/at all" {
				t.Errorf("a second name of a link leads to %q, %v", target, err)
			}
			do(t, os.Remove(filepath.Join(tree, "dir/dangling")), os.Remove(filepath.Join(extracted, "dir/dangling")))
			for _, dir := range []string{"", "dir"} { // removing changed theirs
				st, err := os.Stat(filepath.Join(tree, dir))
				do(t, err, os.Chtimes(filepath.Join(extracted, dir), st.ModTime(), st.ModTime()))
			}
			sameTree(t, tree, extracted)
			r.borg(t, tree, "check", "--verify-data", r.dir)
			if out := r.borg(t, tree, "list", "--short", r.dir+"::s4", "dir/deep/er"); len(strings.Fields(out)) != 2 {
				t.Errorf("borg lists %q", out)
			}
		})
	}
}
