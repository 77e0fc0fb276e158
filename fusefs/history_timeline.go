package fusefs

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// moments is the time line as it was when it was read; it never changes.
type moments struct {
	infos []snapshot.Info // those that can be shown, oldest first
	byDir map[string]int  // index into infos
	byNum map[int64]int
	read  time.Time
}

func newMoments(all []snapshot.Info) *moments {
	m := &moments{byDir: make(map[string]int), byNum: make(map[int64]int), read: time.Now()}
	for _, info := range all {
		if info.Num == 0 || info.Dir == "" {
			continue
		}
		m.byDir[info.Dir] = len(m.infos)
		m.byNum[info.Num] = len(m.infos)
		m.infos = append(m.infos, info)
	}
	return m
}

// newest gives the newest snapshot, if there is any.
func (m *moments) newest() (snapshot.Info, bool) {
	if len(m.infos) == 0 {
		return snapshot.Info{}, false
	}
	return m.infos[len(m.infos)-1], true
}

// newestIndexed gives the newest snapshot that can be entered at once, or else
// the newest.
func (m *moments) newestIndexed() (snapshot.Info, bool) {
	for _, info := range slices.Backward(m.infos) {
		if info.Indexed {
			return info, true
		}
	}
	return m.newest()
}

func (m *moments) dir(name string) (snapshot.Info, bool) {
	i, ok := m.byDir[name]
	if !ok {
		return snapshot.Info{}, false
	}
	return m.infos[i], true
}

func (m *moments) num(num int64) (snapshot.Info, bool) {
	i, ok := m.byNum[num]
	if !ok {
		return snapshot.Info{}, false
	}
	return m.infos[i], true
}

// lineAge is how long the time line is believed without looking again.
const lineAge = time.Second

// line remembers the time line for a moment, so that looking at each of a
// thousand snapshots does not read it a thousand times.
type line struct {
	src     Timeline
	log     *slog.Logger
	current atomic.Pointer[moments]
	reading chan struct{} // holds a token while the time line is read
}

func newLine(src Timeline, log *slog.Logger) *line {
	return &line{src: src, log: log, reading: make(chan struct{}, 1)}
}

// get gives the time line, at most lineAge old.
func (l *line) get(ctx context.Context) (*moments, error) {
	if m := l.current.Load(); m != nil && time.Since(m.read) < lineAge {
		return m, nil
	}
	return l.refresh(ctx, time.Now().Add(-lineAge))
}

// refresh reads the time line unless somebody else has since the given time.
// While it cannot be read, the last one known stays.
func (l *line) refresh(ctx context.Context, since time.Time) (*moments, error) {
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	known := l.current.Load()
	if known != nil && known.read.After(since) {
		return known, nil
	}
	began := time.Now()
	infos, err := l.src.Timeline(ctx)
	if err != nil {
		if known == nil || ctx.Err() != nil {
			return nil, fmt.Errorf("read time line: %w", err)
		}
		l.log.Warn("time line cannot be read; the last one known is shown", "err", err)
		stale := *known
		stale.read = began
		l.current.Store(&stale)
		return &stale, nil
	}
	m := newMoments(infos)
	m.read = began
	l.current.Store(m)
	return m, nil
}

// resolve finds the snapshot that a TIME means.
func (l *line) resolve(ctx context.Context, when string) (snapshot.Info, error) {
	info, err := l.src.Resolve(ctx, when)
	if err != nil {
		return snapshot.Info{}, err
	}
	m, err := l.get(ctx)
	if err != nil {
		return snapshot.Info{}, err
	}
	shown, ok := m.num(info.Num)
	if !ok {
		return snapshot.Info{}, fmt.Errorf("snapshot %s: %w", when, fs.ErrNotExist)
	}
	return shown, nil
}
