package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// Options says what a History is made of.
type Options struct {
	Index    *index.Index      // stays the caller's
	Sources  []snapshot.Source // stay the caller's; of one snapshot in several see [History.Timeline]
	Logger   *slog.Logger      // nil discards
	Location *time.Location    // of what a person types; default time.Local
	Now      func() time.Time  // default time.Now
}

// History is one time line over several sources. All methods are safe for
// concurrent use.
type History struct {
	x   *index.Index
	log *slog.Logger
	loc *time.Location
	now func() time.Time

	ctx    context.Context // ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	lineMu  sync.Mutex
	sources []snapshot.Source // replaced by a longer one, never changed
	line    *timeline         // nil before the first use
	version int64             // of the index's data when line was made

	jobMu  sync.Mutex
	jobs   map[int64]*job // trees being read, by snapshot number
	closed bool

	indexed sync.Map // numbers of snapshots whose trees are known to be there, to their source's id
}

// recaller is a source that need not look again at what it was told.
type recaller interface {
	Recall(known func(handle string) (snapshot.Info, bool))
}

// New makes a History. It asks no source yet.
func New(o Options) *History {
	h := &History{
		x: o.Index, sources: o.Sources,
		log:  o.Logger,
		loc:  o.Location,
		now:  o.Now,
		jobs: map[int64]*job{},
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.loc == nil {
		h.loc = time.Local
	}
	if h.now == nil {
		h.now = time.Now
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Join adds a source that was met since; one that is there already changes
// nothing. It stays the caller's.
func (h *History) Join(s snapshot.Source) {
	if h.source(s.ID()) != nil {
		return
	}
	h.lineMu.Lock()
	defer h.lineMu.Unlock()
	h.sources = append(slices.Clip(h.sources), s)
	h.line = nil
}

// joined gives the sources.
func (h *History) joined() []snapshot.Source {
	h.lineMu.Lock()
	defer h.lineMu.Unlock()
	return h.sources
}

// Close ends what still runs and waits for it. Sources and index stay open.
func (h *History) Close() error {
	h.jobMu.Lock()
	h.closed = true
	h.jobMu.Unlock()
	h.cancel()
	h.wg.Wait()
	return nil
}

// Refresh asks every source what it holds and tells the index. The error joins
// those of the sources that could not answer; what is known of them stays.
func (h *History) Refresh(ctx context.Context) error {
	sources := h.joined()
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, s := range sources {
		wg.Go(func() {
			if err := h.refresh(ctx, s); err != nil {
				errs[i] = fmt.Errorf("source %s: %w", s.ID(), err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// RefreshSource is [History.Refresh] for one source alone. One that is not
// among the sources has nothing to tell.
func (h *History) RefreshSource(ctx context.Context, id string) error {
	s := h.source(id)
	if s == nil {
		return nil
	}
	if err := h.refresh(ctx, s); err != nil {
		return fmt.Errorf("source %s: %w", id, err)
	}
	return nil
}

// Added tells the index of a snapshot that was just put into its source, as the
// source will describe it when it is asked, and spares asking.
func (h *History) Added(ctx context.Context, info snapshot.Info) error {
	info.Series = seriesOf(info)
	held, err := h.x.Snapshots(ctx, info.Source)
	if err != nil {
		return err
	}
	return h.x.Announce(ctx, info.Source, append(held, info))
}

func (h *History) refresh(ctx context.Context, s snapshot.Source) error {
	if r, ok := s.(recaller); ok {
		infos, err := h.x.Snapshots(ctx, s.ID())
		if err != nil {
			return err
		}
		known := make(map[string]snapshot.Info, len(infos))
		for _, i := range infos {
			known[i.Handle] = i
		}
		r.Recall(func(handle string) (snapshot.Info, bool) {
			i, ok := known[handle]
			return i, ok
		})
	}
	infos, err := s.Snapshots(ctx)
	if err != nil {
		return err
	}
	return h.x.Announce(ctx, s.ID(), infos)
}

// timeline is the merged snapshots with what else is known of each.
type timeline struct {
	infos []snapshot.Info   // oldest first, Dir set
	held  [][]snapshot.Info // for each of infos, it and its equals in other sources
	place map[int64]int     // in these, by the number of any of the equals
}

// group gives the snapshot with that number and its equals; nil where it is not
// on the line.
func (l *timeline) group(num int64) []snapshot.Info {
	if i, ok := l.place[num]; ok {
		return l.held[i]
	}
	return nil
}

// Timeline gives the snapshots of all sources, oldest first, with their
// directory names. One that several sources hold is told as the source tells it
// of which the index has the tree; of several or none such as one that opens
// files by path, then as the first. It is cheap while nothing changes. The slice
// is shared: don't change it.
func (h *History) Timeline(ctx context.Context) ([]snapshot.Info, error) {
	l, err := h.timeline(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Clip(l.infos), nil
}

func (h *History) timeline(ctx context.Context) (*timeline, error) {
	version, err := h.x.DataVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("time line: %w", err)
	}
	h.lineMu.Lock()
	line := h.line
	fresh := line != nil && h.version == version
	sources := h.sources
	h.lineMu.Unlock()
	if fresh {
		return line, nil
	}
	all, err := h.x.Snapshots(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("time line: %w", err)
	}
	line = merge(all, sources)
	h.lineMu.Lock()
	if len(h.sources) == len(sources) {
		h.line, h.version = line, version
	}
	h.lineMu.Unlock()
	return line, nil
}

// merge makes one line of what the sources hold.
func merge(all []snapshot.Info, sources []snapshot.Source) *timeline {
	rank := make(map[string]int, len(sources))
	for i, s := range sources {
		rank[s.ID()] = i
		if opensByPath(s) {
			rank[s.ID()] -= len(sources)
		}
	}
	groups := map[string][][]snapshot.Info{} // by ID; a source that has one twice has two
	var ids []string
	for _, s := range all {
		if _, ok := rank[s.Source]; !ok {
			continue
		}
		if groups[s.ID] == nil {
			ids = append(ids, s.ID)
		}
		placed := false
		for i, g := range groups[s.ID] {
			if !slices.ContainsFunc(g, func(o snapshot.Info) bool { return o.Source == s.Source }) {
				groups[s.ID][i] = append(g, s)
				placed = true
				break
			}
		}
		if !placed {
			groups[s.ID] = append(groups[s.ID], []snapshot.Info{s})
		}
	}
	l := &timeline{place: make(map[int64]int, len(all))}
	for _, id := range ids {
		for _, g := range groups[id] {
			slices.SortFunc(g, func(a, b snapshot.Info) int {
				return cmp.Or(compareBool(b.Indexed, a.Indexed), cmp.Compare(rank[a.Source], rank[b.Source]))
			})
			l.held = append(l.held, g)
		}
	}
	slices.SortFunc(l.held, func(a, b []snapshot.Info) int {
		// By ID and not by number, which is another's when a source loses it.
		return cmp.Or(a[0].Time.Compare(b[0].Time), cmp.Compare(a[0].ID, b[0].ID), cmp.Compare(a[0].Num, b[0].Num))
	})
	second, count := "", 0
	for i, g := range l.held {
		s := g[0]
		for _, o := range g {
			l.place[o.Num] = i
			s.Message, s.Parent = cmp.Or(s.Message, o.Message), cmp.Or(s.Parent, o.Parent)
			s.Host, s.User = cmp.Or(s.Host, o.Host), cmp.Or(s.User, o.User)
		}
		name := s.Time.UTC().Format(snapshot.DirFormat)
		if name != second {
			second, count = name, 0
		}
		if count++; count > 1 {
			name += "_" + strconv.Itoa(count)
		}
		s.Dir = name
		// What an archive is called says more than where a btrfs snapshot lies.
		if i := slices.IndexFunc(g, func(o snapshot.Info) bool { return o.Name != o.Handle }); i >= 0 {
			s.Name = g[i].Name
		}
		l.infos = append(l.infos, s)
	}
	return l
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// source gives the source with that id, nil when it is not among ours.
func (h *History) source(id string) snapshot.Source {
	for _, s := range h.joined() {
		if s.ID() == id {
			return s
		}
	}
	return nil
}

// Watch sends a value whenever the time line has changed, whichever process
// changed it, looking every poll. Values don't pile up. The channel is closed
// when ctx or the History ends.
func (h *History) Watch(ctx context.Context, poll time.Duration) <-chan struct{} {
	news := make(chan struct{}, 1)
	last, err := h.Timeline(ctx) // now: what changes after the return is news
	h.jobMu.Lock()
	defer h.jobMu.Unlock()
	if h.closed {
		close(news)
		return news
	}
	h.wg.Go(func() {
		defer close(news)
		tick := time.NewTicker(poll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.ctx.Done():
				return
			case <-tick.C:
			}
			now, failed := h.Timeline(ctx)
			if failed != nil {
				if err == nil && ctx.Err() == nil {
					h.log.Warn("cannot look for news", "error", failed)
				}
				err = failed
				continue
			}
			err = nil
			if slices.Equal(now, last) {
				continue
			}
			last = now
			select {
			case news <- struct{}{}:
			default:
			}
		}
	})
	return news
}
