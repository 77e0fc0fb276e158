package history

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/posixacl"
	"github.com/s4-storage/s4/snapshot"
)

// borg runs the real program in dir with a base directory of its own.
type borg struct {
	t         *testing.T
	dir, base string
}

func newBorg(t *testing.T) *borg {
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is missing")
	}
	return &borg{t, t.TempDir(), t.TempDir()}
}

func (b *borg) run(args ...string) string {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), "borg", args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "BORG_BASE_DIR="+b.base, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("borg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBorgRepository follows archives of stock borg from the repository to
// metadata and bytes.
func TestBorgRepository(t *testing.T) {
	b := newBorg(t)
	repo := filepath.Join(t.TempDir(), "repo")
	must(t, os.MkdirAll(filepath.Join(b.dir, "sub"), 0o755))
	file := filepath.Join(b.dir, "sub/file")
	must(t, os.WriteFile(file, []byte("first"), 0o640))
	must(t, os.Link(file, filepath.Join(b.dir, "another name")))
	must(t, os.Symlink("sub/file", filepath.Join(b.dir, "link")))
	must(t, os.WriteFile(filepath.Join(b.dir, "stays"), bytes.Repeat([]byte("big"), 1<<20), 0o600))
	must(t, unix.Mkfifo(filepath.Join(b.dir, "fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(b.dir, "\xff\xfe"), nil, 0o600))
	acl, err := posixacl.ToXattr("user::rw-\nuser:1234:r--\ngroup::r--\nmask::r--\nother::---\n")
	must(t, err)
	hasACL := unix.Lsetxattr(filepath.Join(b.dir, "stays"), posixacl.AccessXattr, acl, 0) == nil

	b.run("init", "-e", "none", repo)
	b.run("create", "-C", "none", "--comment", FormatComment("the first", "vol", "snap-1", ""), repo+"::v-1", ".")
	must(t, os.WriteFile(filepath.Join(b.dir, "sub/new"), []byte("new"), 0o644))
	b.run("create", "--comment", FormatComment("", "vol", "snap-2", "snap-1"), repo+"::v-2", ".")

	open := func(ctx context.Context) (*borgio.Repository, error) {
		loc, err := borgio.ParseLocation(repo)
		if err != nil {
			return nil, err
		}
		return borgio.Open(ctx, loc, borgio.Options{})
	}
	probe, err := open(t.Context())
	must(t, err)
	id := probe.ID().String()
	must(t, probe.Close())
	src := NewBorgSource(id, true, open, nil)
	defer src.Close()
	h, _ := newHistory(t, src)
	must(t, h.Refresh(t.Context()))
	peeked := map[string]string{}
	for _, path := range []string{"another name", "fifo", "link", "stays", "sub", "sub/file", "\xff\xfe", "", "tays", "nothing"} {
		first := line(t, h)[0]
		f, err := h.Peek(t.Context(), first.Num, path)
		must(t, err)
		if f == nil {
			continue
		}
		var got strings.Builder
		_, err = f.WriteTo(&got)
		must(t, err)
		must(t, f.Close())
		peeked[path] = got.String()
		if first.Indexed {
			t.Fatal("peeking indexed the snapshot")
		}
	}
	must(t, h.Fill(t.Context(), FillOptions{}))

	infos := line(t, h)
	if len(infos) != 2 || infos[0].ID != "snap-1" || infos[0].Message != "the first" || infos[1].Parent != "snap-1" ||
		infos[0].Series != infos[1].Series || infos[0].Files == 0 {
		t.Fatalf("time line %+v", infos)
	}
	var paths []string
	for n, err := range h.Walk(t.Context(), infos[0].Num, "") {
		must(t, err)
		paths = append(paths, n.Path)
		compareWithDisk(t, b.dir, n)
	}
	if want := []string{"", "another name", "fifo", "link", "stays", "sub", "sub/file", "\xff\xfe"}; !slices.Equal(paths, want) {
		t.Fatalf("tree %q, want %q", paths, want)
	}
	for path, want := range map[string]string{"sub/file": "first", "another name": "first", "stays": strings.Repeat("big", 1<<20), "\xff\xfe": ""} {
		if got := content(t, h, infos[0].Num, path); got != want {
			t.Errorf("%q holds %d bytes, want %d", path, len(got), len(want))
		}
		got, ok := peeked[path]
		if hardlink := want == "first"; ok && got != want || !ok && !hardlink {
			t.Errorf("%q was peeked at as %d bytes, want %d", path, len(got), len(want))
		}
		delete(peeked, path)
	}
	if len(peeked) > 0 {
		t.Errorf("peeked at what is no file: %q", peeked)
	}
	if f, err := h.Peek(t.Context(), infos[0].Num, "stays"); f != nil || err != nil {
		t.Errorf("peeked at what is indexed: %v, %v", f, err)
	}
	one, err := h.Find(t.Context(), infos[0].Num, "sub/file")
	must(t, err)
	two, err := h.Find(t.Context(), infos[1].Num, "another name")
	must(t, err)
	if one.Nlink != 2 || one.LinkID == 0 || one.LinkID != two.LinkID || one.Size != 5 || two.Size != 5 {
		t.Errorf("hard links %+v and %+v", one, two)
	}
	if hasACL {
		e, err := h.Find(t.Context(), infos[0].Num, "stays")
		must(t, err)
		i := slices.IndexFunc(e.Xattrs, func(x snapshot.Xattr) bool { return x.Name == posixacl.AccessXattr })
		if i < 0 || !bytes.Equal(e.Xattrs[i].Value, acl) {
			t.Errorf("access control list %+v, want %x", e.Xattrs, acl)
		}
	}
	var changed []string
	for c, err := range h.Changes(t.Context(), infos[0].Num, infos[1].Num) {
		must(t, err)
		changed = append(changed, c.Path)
	}
	if !slices.Equal(changed, []string{"sub", "sub/new"}) {
		t.Errorf("changed: %q", changed)
	}

	// What stock borg deletes disappears.
	b.run("delete", repo+"::v-1")
	must(t, h.Refresh(t.Context()))
	if now := line(t, h); len(now) != 1 || now[0].ID != "snap-2" || !now[0].Indexed {
		t.Fatalf("after deletion: %+v", now)
	}

	// What the repository has lost is damage, not a name that is missing.
	lossy := NewBorgSource(id, true, open, nil)
	defer lossy.Close()
	h, _ = newHistory(t, lossy)
	must(t, h.Refresh(t.Context()))
	must(t, h.Fill(t.Context(), FillOptions{}))
	removeLargest(t, filepath.Join(repo, "data/0"))
	num := line(t, h)[0].Num
	e, err := h.Find(t.Context(), num, "stays")
	must(t, err)
	f, err := h.Open(t.Context(), num, e)
	must(t, err)
	defer f.Close()
	if _, err := f.ReadAtContext(t.Context(), make([]byte, 10), 0); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("read of a lost object: %v", err)
	}
	if _, err := f.WriteTo(io.Discard); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("copy of a lost object: %v", err)
	}

	// A repository that was replaced is noticed.
	replaced := NewBorgSource(strings.Repeat("0", 64), true, open, nil)
	defer replaced.Close()
	if _, err := replaced.Snapshots(t.Context()); !errors.Is(err, snapshot.ErrRefused) {
		t.Fatalf("another repository: %v", err)
	}
}

func compareWithDisk(t *testing.T, root string, n snapshot.Node) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(root, n.Path), &st))
	if n.Path == "" || n.Path == "sub" {
		n.Mtime = st.Mtim.Nano() // changed by the second archive's file, or by ours
	}
	if n.Mode != st.Mode || n.UID != st.Uid || n.GID != st.Gid || n.Mtime != st.Mtim.Nano() {
		t.Errorf("%q: %+v, on disk %+v", n.Path, n.Entry, st)
	}
	if n.Mode&modeType == 0o100000 && (n.Size != st.Size || n.Nlink != uint32(st.Nlink)) {
		t.Errorf("%q: size %d, links %d; on disk %d, %d", n.Path, n.Size, n.Nlink, st.Size, st.Nlink)
	}
	if n.Mode&modeType == modeSymlink && n.Target != "sub/file" {
		t.Errorf("%q leads to %q", n.Path, n.Target)
	}
}

// removeLargest removes the largest file in dir.
func removeLargest(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	largest := slices.MaxFunc(entries, func(a, b os.DirEntry) int {
		x, err := a.Info()
		must(t, err)
		y, err := b.Info()
		must(t, err)
		return cmp.Compare(x.Size(), y.Size())
	})
	must(t, os.Remove(filepath.Join(dir, largest.Name())))
}

// TestBorgUnreachable: a repository that cannot be opened is not tried again
// for each of many questions, but is found when it is back.
func TestBorgUnreachable(t *testing.T) {
	tries := 0
	s := NewBorgSource("x", true, func(context.Context) (*borgio.Repository, error) {
		tries++
		return nil, borgio.ErrUnreachable
	}, nil)
	defer s.Close()
	for range 10 {
		if _, err := s.Open(t.Context(), []snapshot.Extent{{Size: 1}}); !errors.Is(err, snapshot.ErrUnreachable) {
			t.Fatal(err)
		}
	}
	if tries != 1 {
		t.Fatalf("tried %d times", tries)
	}
	s.mu.Lock()
	s.failedAt = s.failedAt.Add(-reopenAfter)
	s.mu.Unlock()
	if _, err := s.Snapshots(t.Context()); !errors.Is(err, snapshot.ErrUnreachable) || tries != 2 {
		t.Fatalf("%v after %d tries", err, tries)
	}
}
