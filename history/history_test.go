package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// fakeSource holds snapshots of one file each, "f", whose content is the
// snapshot's handle.
type fakeSource struct {
	id      string
	mu      sync.Mutex
	infos   []snapshot.Info
	down    error // answer to everything, when set
	local   bool
	damaged string        // handle of one whose items break off
	hold    chan struct{} // items wait for it, when set
	reads   atomic.Int64  // trees read
	order   []string      // handles, as their trees were asked for
}

func (s *fakeSource) ID() string { return s.id }

func (s *fakeSource) Local() bool { return s.local }

func (s *fakeSource) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeSource) Snapshots(context.Context) ([]snapshot.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.infos), s.down
}

func (s *fakeSource) Scan(ctx context.Context, info snapshot.Info, _ []snapshot.Section) snapshot.Scanner {
	return snapshot.ScanItems(func(yield func(*snapshot.Item, error) bool) {
		s.reads.Add(1)
		s.mu.Lock()
		down, damaged, hold := s.down, s.damaged, s.hold
		s.order = append(s.order, info.Handle)
		s.mu.Unlock()
		if down != nil {
			yield(nil, down)
			return
		}
		if hold != nil {
			select {
			case <-hold:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
		e := snapshot.Entry{Mode: 0o100644, Size: int64(len(info.Handle)), Mtime: info.Time.UnixNano()}
		ext := snapshot.Extent{Size: uint32(len(info.Handle))}
		copy(ext.ID[:], info.Handle)
		if !yield(&snapshot.Item{Path: "d/f", Entry: e, Content: []snapshot.Extent{ext}}, nil) {
			return
		}
		if damaged == info.Handle {
			yield(nil, fmt.Errorf("half of it: %w", snapshot.ErrDamaged))
		}
	})
}

func (s *fakeSource) Open(_ context.Context, content []snapshot.Extent) (snapshot.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	return &fakeFile{bytes.NewReader(content[0].ID[:content[0].Size])}, nil
}

type fakeFile struct{ *bytes.Reader }

func (f *fakeFile) Close() error { return nil }
func (f *fakeFile) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	return f.ReadAt(p, off)
}

func taken(handle string, sec int64) snapshot.Info {
	return snapshot.Info{ID: handle, Handle: handle, Name: "archive-" + handle, Series: "x", Time: time.Unix(sec, 0).UTC()}
}

func newHistory(t *testing.T, sources ...snapshot.Source) (*History, *index.Index) {
	t.Helper()
	return historyAt(t, filepath.Join(t.TempDir(), "index.db"), sources...)
}

func historyAt(t *testing.T, path string, sources ...snapshot.Source) (*History, *index.Index) {
	t.Helper()
	x, err := index.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{Index: x, Sources: sources})
	t.Cleanup(func() {
		if err := errors.Join(h.Close(), x.Close()); err != nil {
			t.Error(err)
		}
	})
	return h, x
}

func line(t *testing.T, h *History) []snapshot.Info {
	t.Helper()
	infos, err := h.Timeline(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

func dirs(infos []snapshot.Info) (names []string) {
	for _, i := range infos {
		names = append(names, i.Dir)
	}
	return names
}

func content(t *testing.T, h *History, num int64, path string) string {
	t.Helper()
	e, err := h.Find(t.Context(), num, path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := h.Open(t.Context(), num, e)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := f.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTimelineOfTwoSources(t *testing.T) {
	one, two := &fakeSource{id: "one"}, &fakeSource{id: "two", local: true}
	both := taken("both", 100)
	other := both
	other.Handle = "also"
	one.infos = []snapshot.Info{taken("b", 200), both}
	two.infos = []snapshot.Info{other, taken("c", 200), taken("a", 50)}
	h, _ := newHistory(t, one, two)
	if err := h.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	infos := line(t, h)
	want := []string{"1970-01-01T00-00-50Z", "1970-01-01T00-01-40Z", "1970-01-01T00-03-20Z", "1970-01-01T00-03-20Z_2"}
	if got := dirs(infos); !slices.Equal(got, want) {
		t.Fatalf("time line %q, want %q", got, want)
	}
	if infos[1].Source != "one" {
		t.Fatalf("a snapshot in both is taken from %s", infos[1].Source)
	}
	num := infos[1].Num
	if got := content(t, h, num, "d/f"); got != "both" {
		t.Fatalf("content %q", got)
	}
	for i, want := range map[int]bool{0: true, 1: true, 2: infos[2].Source == "two"} { // 1 is held by both
		if got, err := h.Local(t.Context(), infos[i].Num); err != nil || got != want {
			t.Errorf("%s is local: %t, %v; want %t", infos[i].Name, got, err, want)
		}
	}
	if held, err := h.Holding(t.Context(), "d"); err != nil || !slices.Equal(dirs(held), dirs(line(t, h))[1:2]) {
		t.Errorf("d is held by %q, %v", dirs(held), err)
	}
	one.set(func() { one.down = fmt.Errorf("gone away: %w", snapshot.ErrUnreachable) })
	if got := content(t, h, num, "d/f"); got != "also" {
		t.Fatalf("content from the other source is %q", got)
	}
}

func TestUnreachableSourceStaysBrowsable(t *testing.T) {
	dead, alive := &fakeSource{id: "dead"}, &fakeSource{id: "alive"}
	dead.infos = []snapshot.Info{taken("a", 100), taken("never-read", 90)}
	alive.infos = []snapshot.Info{taken("b", 200)}
	h, _ := newHistory(t, dead, alive)
	if err := h.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Ensure(t.Context(), line(t, h)[1].Num); err != nil {
		t.Fatal(err)
	}
	dead.set(func() { dead.down = fmt.Errorf("no route: %w", snapshot.ErrUnreachable) })
	alive.set(func() { alive.infos = append(alive.infos, taken("c", 300)) })

	if err := h.Refresh(t.Context()); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Fatalf("refresh: %v", err)
	}
	infos := line(t, h)
	if len(infos) != 4 {
		t.Fatalf("time line %q", dirs(infos))
	}
	if err := h.Fill(t.Context(), FillOptions{}); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Fatalf("fill: %v", err)
	}
	for i, indexed := range []bool{false, true, true, true} {
		if got := line(t, h)[i].Indexed; got != indexed {
			t.Errorf("%s indexed: %v", infos[i].Name, got)
		}
	}
	e, err := h.Find(t.Context(), infos[1].Num, "d/f")
	if err != nil || e.Size != 1 {
		t.Fatalf("browsing what is known: %+v, %v", e, err)
	}
	if _, err := h.Open(t.Context(), infos[1].Num, e); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Fatalf("content: %v", err)
	}
	dead.set(func() { dead.down = nil })
	if got := content(t, h, infos[1].Num, "d/f"); got != "a" {
		t.Fatalf("content once it is back: %q", got)
	}
}

func TestFillNewestFirstPastDamage(t *testing.T) {
	s := &fakeSource{id: "s", damaged: "b"}
	s.infos = []snapshot.Info{taken("a", 1), taken("b", 2), taken("c", 3)}
	h, _ := newHistory(t, s)
	if err := h.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	var last FillProgress
	err := h.Fill(t.Context(), FillOptions{Progress: func(p FillProgress) { last = p }})
	if !errors.Is(err, snapshot.ErrDamaged) {
		t.Fatalf("fill: %v", err)
	}
	if !slices.Equal(s.order, []string{"c", "b", "a"}) {
		t.Fatalf("read in order %q", s.order)
	}
	if last.Done != 3 || last.Total != 3 {
		t.Fatalf("last progress %+v", last)
	}
	infos := line(t, h)
	if !infos[0].Indexed || infos[1].Indexed || !infos[2].Indexed {
		t.Fatalf("%+v", infos)
	}
	s.set(func() { s.damaged = "" })
	if got := content(t, h, infos[1].Num, "d/f"); got != "b" {
		t.Fatalf("once repaired: %q", got)
	}
}

func TestEnsureTogetherAndCancelled(t *testing.T) {
	s := &fakeSource{id: "s", hold: make(chan struct{})}
	s.infos = []snapshot.Info{taken("a", 1)}
	h, _ := newHistory(t, s)
	if err := h.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	num := line(t, h)[0].Num
	ctx, cancel := context.WithCancel(t.Context())
	impatient := make(chan error, 1)
	go func() { impatient <- h.Ensure(ctx, num) }()
	errs := make(chan error, 5)
	for range 5 {
		go func() { errs <- h.Ensure(t.Context(), num) }()
	}
	waiting := func() int {
		h.jobMu.Lock()
		defer h.jobMu.Unlock()
		if j := h.jobs[num]; j != nil {
			return j.waiters
		}
		return 0
	}
	for waiting() < 6 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Fatalf("impatient: %v", err)
	}
	close(s.hold)
	for range 5 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n := s.reads.Load(); n != 1 {
		t.Fatalf("read %d times", n)
	}
}

func TestCloseEndsReading(t *testing.T) {
	s := &fakeSource{id: "s", hold: make(chan struct{})}
	s.infos = []snapshot.Info{taken("a", 1)}
	h, _ := newHistory(t, s)
	if err := h.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	num := line(t, h)[0].Num
	result := make(chan error, 1)
	go func() { result <- h.Ensure(t.Context(), num) }()
	for s.reads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	news := h.Watch(t.Context(), time.Hour)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("ensure: %v", err)
	}
	if _, open := <-news; open {
		t.Fatal("news after close")
	}
	if err := h.Ensure(t.Context(), num); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("after close: %v", err)
	}
}

func TestWatchSeesOtherProcesses(t *testing.T) {
	s := &fakeSource{id: "s", infos: []snapshot.Info{taken("a", 1)}}
	path := filepath.Join(t.TempDir(), "index.db")
	watcher, _ := historyAt(t, path, s)
	pusher, _ := historyAt(t, path, s) // an index of its own, as in another process
	if err := watcher.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	news := watcher.Watch(t.Context(), 5*time.Millisecond)
	before := line(t, watcher)
	s.set(func() { s.infos = append(s.infos, taken("b", 2)) })
	if err := pusher.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-news:
	case <-time.After(10 * time.Second):
		t.Fatal("no news")
	}
	if now := line(t, watcher); len(now) != len(before)+1 {
		t.Fatalf("time line %q", dirs(now))
	}
}

func TestCommentRoundTrip(t *testing.T) {
	for _, message := range []string{"", "one line", "two\nlines", "a paragraph\n\ns4-volume: quoted", "s4-snapshot: no id", "x\n\n\ny"} {
		for _, want := range []Trailers{
			{message, "v", "s", "p"}, {message, "v", "s", ""}, {message, "", "s", ""},
		} {
			c := FormatComment(want.Message, want.Volume, want.Snapshot, want.Parent)
			if got := ParseComment(c); got != want {
				t.Errorf("%q gives %+v, want %+v", c, got, want)
			}
		}
	}
	for _, plain := range []string{"", "nightly", "s4-volume:", "see\n\ns4-volume: v\nand more"} {
		if got := ParseComment(plain); got != (Trailers{Message: plain}) {
			t.Errorf("%q gives %+v", plain, got)
		}
	}
}

func TestSeries(t *testing.T) {
	for _, same := range [][2]string{
		{"host-2026-11-22T10:00:00", "host-2026-11-23T11:30:01.123456"},
		{"docs-1", "docs-22"},
		{"0f8fad5b-d9cb-469f-a165-70867728950e", "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
		{"backup_20261122", "backup_20261123"},
	} {
		a, b := seriesOf(snapshot.Info{Host: "h", Name: same[0]}), seriesOf(snapshot.Info{Host: "h", Name: same[1]})
		if a != b {
			t.Errorf("%q and %q: %q, %q", same[0], same[1], a, b)
		}
	}
	if seriesOf(snapshot.Info{Name: "docs-1"}) == seriesOf(snapshot.Info{Name: "home-1"}) {
		t.Error("different names are one series")
	}
}

var _ io.WriterTo = (*fakeFile)(nil)
