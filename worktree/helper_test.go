package worktree_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// extentSize is small so that small test files have several extents.
const extentSize = 16 << 10

// store is a snapshot's tree and content in memory, taken from a directory.
type store struct {
	nodes   []snapshot.Node
	content map[string][]byte // by path
	byEntry map[int64]string  // path by Entry.Version

	mu      sync.Mutex
	fetched int64
	broken  map[string]bool                              // paths whose content is damaged
	onOpen  func(ctx context.Context, path string) error // before a file is opened
	onPiece func()                                       // after each piece of WriteTo
	unnamed bool                                         // content has no extents
}

var versions int64

// take copies the tree at dir into memory, as pushing it would.
func take(t *testing.T, dir string) *store {
	t.Helper()
	r := open(t, dir)
	s := &store{content: map[string][]byte{}, byEntry: map[int64]string{}, broken: map[string]bool{}}
	links := map[uint64][]int{}
	for l, err := range r.Walk(t.Context(), worktree.Options{}) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Mode&unix.S_IFMT == unix.S_IFSOCK {
			continue
		}
		n := snapshot.Node{Path: l.Path, Entry: l.Entry}
		n.Atime, n.Birth = 0, 0
		if n.Xattrs, err = r.Xattrs(l.Path); err != nil {
			t.Fatal(err)
		}
		versions++
		n.Version = versions
		if l.Mode&unix.S_IFMT == unix.S_IFREG {
			b, err := os.ReadFile(filepath.Join(dir, l.Path))
			if err != nil {
				t.Fatal(err)
			}
			s.content[l.Path] = b
			s.byEntry[n.Version] = l.Path
		}
		if l.Nlink > 1 {
			links[l.Ino] = append(links[l.Ino], len(s.nodes))
		}
		n.Nlink = 1
		s.nodes = append(s.nodes, n)
	}
	for ino, group := range links {
		for _, i := range group {
			if len(group) > 1 {
				s.nodes[i].LinkID, s.nodes[i].Nlink = ino, uint32(len(group))
			}
		}
	}
	return s
}

func (s *store) Walk(_ context.Context, path string) iter.Seq2[snapshot.Node, error] {
	return func(yield func(snapshot.Node, error) bool) {
		for _, n := range s.nodes {
			if path != "" && n.Path != path && !bytes.HasPrefix([]byte(n.Path), []byte(path+"/")) {
				continue
			}
			if !yield(n, nil) {
				return
			}
		}
	}
}

// add puts an entry with a few bytes of content into the store.
func (s *store) add(path string, e snapshot.Entry) {
	versions++
	e.Version = versions
	s.nodes = append(s.nodes, snapshot.Node{Path: path, Entry: e})
	s.byEntry[e.Version] = path
	s.content[path] = []byte("content")
}

func (s *store) node(path string) *snapshot.Node {
	for i := range s.nodes {
		if s.nodes[i].Path == path {
			return &s.nodes[i]
		}
	}
	return nil
}

// source joins the contents of several stores.
type source []*store

func (all source) find(e snapshot.Entry) (*store, string, error) {
	for _, s := range all {
		if p, ok := s.byEntry[e.Version]; ok {
			return s, p, nil
		}
	}
	return nil, "", fs.ErrNotExist
}

func (all source) Content(_ context.Context, e snapshot.Entry) (list []snapshot.Extent, err error) {
	s, path, err := all.find(e)
	if err != nil {
		return nil, err
	}
	if s.unnamed {
		return nil, nil
	}
	for piece := range slices.Chunk(s.content[path], extentSize) {
		list = append(list, snapshot.Extent{ID: sha256.Sum256(piece), Size: uint32(len(piece))})
	}
	return list, nil
}

func (all source) Verify(id [32]byte, data []byte) bool { return sha256.Sum256(data) == id }

func (all source) Open(ctx context.Context, e snapshot.Entry) (snapshot.File, error) {
	s, path, err := all.find(e)
	if err != nil {
		return nil, err
	}
	if s.onOpen != nil {
		if err := s.onOpen(ctx, path); err != nil {
			return nil, err
		}
	}
	return &file{s: s, data: s.content[path], broken: s.broken[path]}, nil
}

type file struct {
	s      *store
	data   []byte
	broken bool
}

func (f *file) Close() error { return nil }
func (f *file) Size() int64  { return int64(len(f.data)) }
func (f *file) WriteTo(w io.Writer) (total int64, err error) {
	for piece := range slices.Chunk(f.data, extentSize) {
		if f.broken && total > 0 {
			return total, fmt.Errorf("object: %w", snapshot.ErrDamaged)
		}
		n, err := w.Write(piece)
		if total += int64(n); err != nil {
			return total, err
		}
		if f.s.onPiece != nil {
			f.s.onPiece()
		}
	}
	f.s.mu.Lock()
	f.s.fetched += total
	f.s.mu.Unlock()
	return total, nil
}

func (f *file) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if f.broken {
		return 0, fmt.Errorf("object: %w", snapshot.ErrDamaged)
	}
	n, err := bytes.NewReader(f.data).ReadAt(p, off)
	f.s.mu.Lock()
	f.s.fetched += int64(n)
	f.s.mu.Unlock()
	return n, err
}

func open(t *testing.T, dir string) *worktree.Root {
	t.Helper()
	r, err := worktree.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func openStamps(t *testing.T) *worktree.Stamps {
	t.Helper()
	s, err := worktree.OpenStamps(t.Context(), filepath.Join(t.TempDir(), "stamps"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// bring plans and applies target onto dir.
func bring(t *testing.T, dir string, target, base *store, stamps *worktree.Stamps) (*worktree.Plan, worktree.Result) {
	t.Helper()
	src := source{target}
	o := worktree.PlanOptions{Options: worktree.Options{Stamps: stamps}, Delete: true}
	if base != nil {
		src = append(src, base)
		o.Base = base
	}
	o.Source = src
	r := open(t, dir)
	p, err := r.Plan(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Apply(t.Context(), p, worktree.ApplyOptions{Source: src, Stamps: stamps, Sync: worktree.SyncNone})
	if err != nil {
		t.Fatal(err)
	}
	return p, res
}

// equal fails unless rsync, which compares content too, finds no difference.
func equal(t *testing.T, want, got string) {
	t.Helper()
	if _, err := exec.LookPath("rsync"); err != nil {
		need(t, "rsync is not installed")
	}
	attributes := "-naicHX"
	if hasACLs() {
		attributes = "-naicHAX"
	}
	args := []string{attributes, "--delete", want + "/", got + "/"}
	out, err := exec.CommandContext(t.Context(), "rsync", args...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("trees differ (%v):\n%s", err, out)
	}
}

func hasACLs() bool {
	_, err := exec.LookPath("setfacl")
	return err == nil
}

// clean fails unless the live tree at dir compares as unchanged.
func clean(t *testing.T, dir string, base *store, stamps *worktree.Stamps) {
	t.Helper()
	for _, c := range changes(t, dir, base, stamps) {
		t.Errorf("%s is %s", c.Path, c.Kind)
	}
}

func changes(t *testing.T, dir string, base *store, stamps *worktree.Stamps) (list []worktree.Change) {
	t.Helper()
	for c, err := range open(t, dir).Compare(t.Context(), base, worktree.Options{Stamps: stamps}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// need skips, but not where everything has to be there.
func need(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		need(t, "needs root")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	do(t, os.MkdirAll(filepath.Dir(path), 0o755))
	do(t, os.WriteFile(path, []byte(content), 0o644))
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	do(t, err)
	return string(b)
}

func noTemps(t *testing.T, dir string) {
	t.Helper()
	do(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if bytes.Contains([]byte(path), []byte(".s4-tmp-")) {
			t.Errorf("temporary file left: %s", path)
		}
		return err
	}))
}
