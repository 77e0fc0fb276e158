package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// fakeHistory is a history in memory, made of copies of real directories.
type fakeHistory struct {
	mu       sync.Mutex
	snaps    map[int64]*fakeSnap
	infos    []snapshot.Info
	versions map[string]int64 // by everything that makes a version
	changed  chan struct{}
	last     int64

	// broken makes reading the named file fail, hung makes it wait.
	broken, hung string
	opened       int // calls of Open

	// unindexed snapshots can be entered once the channel is closed.
	unindexed map[int64]chan struct{}
}

type fakeSnap struct {
	root     int64
	entries  map[int64]snapshot.Entry
	children map[int64][]snapshot.Entry // by Dir, sorted by name
	content  map[int64][]byte
	paths    map[int64]string // below the root, "" for itself
}

var _ History = (*fakeHistory)(nil)

func newFakeHistory() *fakeHistory {
	return &fakeHistory{
		snaps: make(map[int64]*fakeSnap), versions: make(map[string]int64), changed: make(chan struct{}, 1),
	}
}

// add takes a snapshot of a real directory, as of the given time.
func (h *fakeHistory) add(t *testing.T, dir string, at time.Time) snapshot.Info {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	s := &fakeSnap{
		entries: make(map[int64]snapshot.Entry), children: make(map[int64][]snapshot.Entry),
		content: make(map[int64][]byte), paths: make(map[int64]string),
	}
	info := snapshot.Info{
		Num: h.last, ID: fmt.Sprint("id", h.last), Time: at.UTC(), Dir: at.UTC().Format(snapshot.DirFormat), Indexed: true,
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		e := entryOf(t, path, rel)
		key := fmt.Sprintf("%s %+v", rel, e)
		if h.versions[key] == 0 {
			h.versions[key] = int64(len(h.versions) + 1)
		}
		e.Version = h.versions[key]
		switch e.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			e.Dir = e.Version + 1_000_000
		case syscall.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s.content[e.Version] = data
			e.Holes = holes(extentsOf(data))
		}
		s.entries[e.Version] = e
		s.paths[e.Version] = strings.TrimPrefix(rel, ".")
		if rel != "." {
			s.paths[e.Version] = rel
		}
		if rel == "." {
			s.root = e.Version
			return nil
		}
		for _, parent := range s.entries {
			if parent.Dir != 0 && s.pathOf(t, dir, parent) == filepath.Dir(path) {
				s.children[parent.Dir] = append(s.children[parent.Dir], e)
			}
		}
		s.setPath(e, path)
		info.Size += e.Size
		info.Files++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range s.children {
		sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	}
	h.snaps[info.Num] = s
	h.infos = append(h.infos, info)
	h.signal()
	return info
}

// remove forgets a snapshot, as prune would.
func (h *fakeHistory) remove(num int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.snaps, num)
	h.infos = slices.DeleteFunc(h.infos, func(i snapshot.Info) bool { return i.Num == num })
	h.signal()
}

func (h *fakeHistory) signal() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *fakeHistory) Timeline(context.Context) ([]snapshot.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.infos), nil
}

func (h *fakeHistory) Resolve(_ context.Context, when string) (snapshot.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.infos) - 1; i >= 0; i-- {
		if strings.HasPrefix(h.infos[i].Dir, when) || when == "yesterday" && i == 0 {
			return h.infos[i], nil
		}
	}
	return snapshot.Info{}, fmt.Errorf("moment %q: %w", when, fs.ErrNotExist)
}

func (h *fakeHistory) Watch(ctx context.Context, _ time.Duration) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		for {
			select {
			case <-h.changed:
			case <-ctx.Done():
				return
			}
			select {
			case out <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (h *fakeHistory) snap(num int64) (*fakeSnap, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.snaps[num]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("snapshot %d: %w", num, fs.ErrNotExist)
}

func (h *fakeHistory) Root(ctx context.Context, num int64) (snapshot.Entry, error) {
	s, err := h.snap(num)
	if err != nil {
		return snapshot.Entry{}, err
	}
	h.mu.Lock()
	ready := h.unindexed[num]
	h.mu.Unlock()
	if ready != nil {
		select {
		case <-ready:
		case <-ctx.Done():
			return snapshot.Entry{}, ctx.Err()
		}
	}
	return s.withDirs(s.entries[s.root]), nil
}

func (h *fakeHistory) Lookup(_ context.Context, num, dir int64, name string) (snapshot.Entry, error) {
	s, err := h.snap(num)
	if err != nil {
		return snapshot.Entry{}, err
	}
	for _, e := range s.children[dir] {
		if e.Name == name {
			return s.withDirs(e), nil
		}
	}
	return snapshot.Entry{}, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
}

func (h *fakeHistory) List(_ context.Context, num, dir int64, after string, limit int) ([]snapshot.Entry, error) {
	s, err := h.snap(num)
	if err != nil {
		return nil, err
	}
	list := s.children[dir]
	i := sort.Search(len(list), func(i int) bool { return list[i].Name > after })
	page := slices.Clone(list[i:min(i+limit, len(list))])
	for i := range page {
		page[i] = s.withDirs(page[i])
	}
	return page, nil
}

func (h *fakeHistory) Stat(_ context.Context, num, version int64) (snapshot.Entry, error) {
	s, err := h.snap(num)
	if err != nil {
		return snapshot.Entry{}, err
	}
	e, ok := s.entries[version]
	if !ok {
		return e, fmt.Errorf("version %d: %w", version, fs.ErrNotExist)
	}
	return e, nil
}

func (h *fakeHistory) Local(_ context.Context, num int64) (bool, error) { return num > 1, nil }

func (h *fakeHistory) Open(_ context.Context, num int64, e snapshot.Entry) (snapshot.File, error) {
	s, err := h.snap(num)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened++
	return &fakeFile{
		Reader: bytes.NewReader(s.content[e.Version]), broken: e.Name == h.broken, hung: e.Name == h.hung,
	}, nil
}

// holdBack makes the newest snapshot one that is not indexed; calling the
// result ends that.
func (h *fakeHistory) holdBack() (index func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, ready := len(h.infos)-1, make(chan struct{})
	h.infos[i].Indexed = false
	h.unindexed = map[int64]chan struct{}{h.infos[i].Num: ready}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.infos[i].Indexed = true
		close(ready)
		h.signal()
	}
}

// opens tells how often content was opened.
func (h *fakeHistory) opens() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.opened
}

type fakeFile struct {
	*bytes.Reader
	broken, hung bool
}

func (f *fakeFile) Close() error { return nil }
func (f *fakeFile) Size() int64  { return f.Reader.Size() }

func (f *fakeFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if f.hung {
		<-ctx.Done()
		return 0, fmt.Errorf("get chunk: %w", ctx.Err())
	}
	if f.broken {
		return 0, fmt.Errorf("get chunk: %w", snapshot.ErrUnreachable)
	}
	n, err := f.ReadAt(p, off)
	if errors.Is(err, io.EOF) && n == len(p) {
		err = nil
	}
	return n, err
}

// pathOf and setPath keep a directory's real path in its content, which a
// directory has no other use for.
func (s *fakeSnap) pathOf(t *testing.T, root string, e snapshot.Entry) string {
	t.Helper()
	if e.Version == s.root {
		return root
	}
	return string(s.content[e.Version])
}

func (s *fakeSnap) setPath(e snapshot.Entry, path string) {
	if e.Dir != 0 {
		s.content[e.Version] = []byte(path)
	}
}

func entryOf(t *testing.T, path, rel string) snapshot.Entry {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	e := snapshot.Entry{
		Name: filepath.Base(rel), Mode: st.Mode, UID: st.Uid, GID: st.Gid,
		Mtime: st.Mtim.Nano(), Nlink: 1, Xattrs: xattrsOf(t, path),
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		e.Size = st.Size
	case syscall.S_IFLNK:
		e.Target, _ = os.Readlink(path)
	case syscall.S_IFBLK, syscall.S_IFCHR:
		e.Rdev = st.Rdev
	}
	if st.Nlink > 1 && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		e.Nlink, e.LinkID = uint32(st.Nlink), st.Ino
	}
	return e
}

func xattrsOf(t *testing.T, path string) []snapshot.Xattr {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var list []snapshot.Xattr
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, snapshot.Xattr{Name: name, Value: value[:n]})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// Ever gives the newest entry of each name that a directory held; this fake
// knows a directory by its real path.
func (h *fakeHistory) Ever(_ context.Context, path, after string, limit int) (all []snapshot.Ever, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	newest := map[string]snapshot.Ever{}
	found := false
	for _, info := range h.infos {
		s := h.snaps[info.Num]
		dir, ok := s.at(path)
		if !ok || dir.Dir == 0 {
			continue
		}
		found = true
		for _, e := range s.children[dir.Dir] {
			newest[e.Name] = joinEver(newest[e.Name], e)
		}
	}
	for name, e := range newest {
		if name > after {
			all = append(all, e)
		}
	}
	if !found {
		return nil, fs.ErrNotExist
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all[:min(limit, len(all))], nil
}

func joinEver(old snapshot.Ever, e snapshot.Entry) snapshot.Ever {
	now := snapshot.Ever{Entry: e, Perm: e.Mode & 0o7777, OneOwner: true}
	if old.Mode != 0 {
		now.Perm &= old.Perm
		now.OneOwner = old.OneOwner && old.UID == e.UID && old.GID == e.GID
	}
	return now
}

func (h *fakeHistory) EverAt(_ context.Context, path string) (ever snapshot.Ever, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, info := range h.infos {
		if e, ok := h.snaps[info.Num].at(path); ok {
			ever = joinEver(ever, e)
		}
	}
	if ever.Mode == 0 {
		err = fs.ErrNotExist
	}
	return ever, err
}

func (h *fakeHistory) Distinct(_ context.Context, path string) (all []snapshot.Moment, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, info := range h.infos {
		e, ok := h.snaps[info.Num].at(path)
		if ok && (len(all) == 0 || all[len(all)-1].Entry.Version != e.Version) {
			all = append(all, snapshot.Moment{Info: info, Entry: e})
		}
	}
	return all, nil
}

func (h *fakeHistory) Holding(_ context.Context, path string) (all []snapshot.Info, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, info := range h.infos {
		if e, ok := h.snaps[info.Num].at(path); ok && e.Dir != 0 {
			all = append(all, info)
		}
	}
	return all, nil
}

func (h *fakeHistory) DirPath(ctx context.Context, dir int64) (string, error) {
	return h.Path(ctx, dir-1_000_000)
}

func (h *fakeHistory) Path(_ context.Context, version int64) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.snaps {
		if p, ok := s.paths[version]; ok {
			return p, nil
		}
	}
	return "", fs.ErrNotExist
}

// at finds a path below the snapshot's root.
func (s *fakeSnap) at(path string) (snapshot.Entry, bool) {
	for version, p := range s.paths {
		if p == path {
			return s.entries[version], true
		}
	}
	return snapshot.Entry{}, false
}

func (h *fakeHistory) Gone(ctx context.Context, path string) (all []snapshot.Gone, err error) {
	names, err := h.Ever(ctx, path, "", 1_000_000)
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		below := strings.TrimPrefix(path+"/"+e.Name, "/")
		g, err := h.GoneAt(ctx, below)
		if err == nil && g.Last.Num == 0 {
			if inside, _ := h.Gone(ctx, below); len(inside) == 0 {
				continue
			}
		}
		if err == nil {
			all = append(all, g)
		}
	}
	return all, nil
}

func (h *fakeHistory) GoneAt(_ context.Context, path string) (snapshot.Gone, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, info := range slices.Backward(h.infos) {
		e, ok := h.snaps[info.Num].at(path)
		switch {
		case ok && i < len(h.infos)-1:
			return snapshot.Gone{Last: info, Entry: e}, nil
		case ok && e.Dir != 0:
			return snapshot.Gone{Entry: snapshot.Entry{Name: e.Name}}, nil
		case ok:
			return snapshot.Gone{}, fs.ErrNotExist
		}
	}
	return snapshot.Gone{}, fs.ErrNotExist
}
