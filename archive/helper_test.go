package archive_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/archive"
	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/posixacl"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

func do(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// needTools skips without them, which with CI=true is a failure.
func needTools(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err.Error())
		}
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "needs root")
	}
}

func missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// repository is one of this test alone.
type repository struct {
	*borgio.Repository
	dir, base string // BORG_BASE_DIR
}

func newRepository(t testing.TB, mode string) *repository {
	t.Helper()
	r := &repository{dir: filepath.Join(t.TempDir(), "repo"), base: t.TempDir()}
	opts := borgio.Options{Environ: func(name string) (string, bool) {
		switch name {
		case "BORG_BASE_DIR":
			return r.base, true
		case "BORG_PASSPHRASE":
			return "s4-test", true
		}
		return "", false
	}}
	_, err := borgio.Create(t.Context(), borgio.Location{Path: r.dir}, mode, borgio.CreateOptions{Options: opts})
	do(t, err)
	r.Repository, err = borgio.Open(t.Context(), borgio.Location{Path: r.dir}, opts)
	do(t, err)
	t.Cleanup(func() { r.Close() })
	return r
}

// borg runs it in a directory and gives its output.
func (r *repository) borg(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "borg", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BORG_BASE_DIR="+r.base, "BORG_PASSPHRASE=s4-test",
		"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("borg %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *repository) begin(t testing.TB) *borgio.Transaction {
	t.Helper()
	tx, err := r.Begin(t.Context(), borgio.WriteOptions{})
	do(t, err)
	t.Cleanup(func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
	return tx
}

// items are what an archive has, by path; they last.
func (r *repository) items(t testing.TB, id borgio.ID) (all []borgio.Item) {
	t.Helper()
	a, err := r.Archive(t.Context(), id)
	do(t, err)
	for it, err := range r.Items(t.Context(), a) {
		do(t, err)
		c := *it
		c.Chunks, c.Xattrs = slices.Clone(c.Chunks), slices.Clone(c.Xattrs)
		all = append(all, c)
	}
	return all
}

func info(name string) borgio.ArchiveInfo {
	return borgio.ArchiveInfo{Name: name, Hostname: "host", Username: "user", Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func openRoot(t testing.TB, dir string) *worktree.Root {
	t.Helper()
	root, err := worktree.Open(dir)
	do(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// all archives a directory in a transaction of its own.
func (r *repository) all(t testing.TB, dir, name string) archive.Result {
	t.Helper()
	tx := r.begin(t)
	m := &archive.Maker{Tx: tx, Root: openRoot(t, dir), Left: func(path string, err error) { t.Errorf("%s: %v", path, err) }}
	made, err := m.All(t.Context(), nil, info(name))
	do(t, err, tx.Commit(t.Context()))
	return made
}

// archived is an archive's items as a tree to compare with.
type archived []borgio.Item

func (a archived) Walk(_ context.Context, _ string) iter.Seq2[snapshot.Node, error] {
	return func(yield func(snapshot.Node, error) bool) {
		for _, it := range a {
			n := snapshot.Node{Path: it.Path, Entry: snapshot.Entry{
				Mode: it.Mode, UID: it.UID, GID: it.GID, Size: it.Size, Rdev: it.Rdev,
				Mtime: it.Mtime, Ctime: it.Ctime, Flags: it.BSDFlags,
			}}
			if n.Path == "." {
				n.Path = ""
			}
			if it.Mode&unix.S_IFMT == unix.S_IFLNK {
				n.Target = it.Source
			} else if it.Source != "" {
				for _, master := range a {
					if master.Path == it.Source {
						n.Size = master.Size
					}
				}
			}
			for _, x := range it.Xattrs {
				n.Xattrs = append(n.Xattrs, snapshot.Xattr(x))
			}
			for name, text := range map[string][]byte{posixacl.AccessXattr: it.ACLAccess, posixacl.DefaultXattr: it.ACLDefault} {
				if text == nil {
					continue
				}
				value, err := posixacl.ToXattr(string(text))
				if err != nil {
					yield(n, err)
					return
				}
				n.Xattrs = append(n.Xattrs, snapshot.Xattr{Name: name, Value: value})
			}
			slices.SortFunc(n.Xattrs, func(x, y snapshot.Xattr) int { return strings.Compare(x.Name, y.Name) })
			if !yield(n, nil) {
				return
			}
		}
	}
}

// sameItems tells where two archives' items differ.
func sameItems(t testing.TB, got, want []borgio.Item) {
	t.Helper()
	told := 0
	for i, j := 0, 0; (i < len(got) || j < len(want)) && told < 10; {
		switch {
		case j == len(want) || i < len(got) && borgio.ComparePaths(got[i].Path, want[j].Path) < 0:
			t.Errorf("%q is there", got[i].Path)
			i, told = i+1, told+1
		case i == len(got) || borgio.ComparePaths(got[i].Path, want[j].Path) > 0:
			t.Errorf("%q is not there", want[j].Path)
			j, told = j+1, told+1
		default:
			if a, b := fmt.Sprintf("%+v", got[i]), fmt.Sprintf("%+v", want[j]); a != b {
				t.Errorf("%q is\n%.900s\nand should be\n%.900s", got[i].Path, a, b)
				told++
			}
			i, j = i+1, j+1
		}
	}
}

// sameTree fails unless rsync finds no difference, in content or metadata.
func sameTree(t testing.TB, a, b string) {
	t.Helper()
	for _, dirs := range [][2]string{{a, b}, {b, a}} {
		out, err := exec.CommandContext(t.Context(), "rsync", "-naicHAX", "--delete", dirs[0]+"/", dirs[1]+"/").CombinedOutput()
		text := strings.TrimSpace(string(out))
		if err != nil || text != "" && text != ".d..t...... ./" { // borg restores the root's time too early
			t.Fatalf("rsync: %v\n%s", err, text)
		}
	}
}
