package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/snapshot"
)

// FillOptions says how to fill.
type FillOptions struct {
	Progress func(FillProgress) // called now and then, by one goroutine at a time; may be nil
}

// FillProgress tells how far filling is.
type FillProgress struct {
	Snapshot    snapshot.Info // the one being read
	Done, Total int           // snapshots
	Items       int64         // of this snapshot, so far
}

// progressStep is the number of items between two reports.
const progressStep = 1000

// Fill reads into the index what the time line has and the index has not,
// newest first. A snapshot that cannot be read does not stop the others; the
// error joins what went wrong. A source that cannot be reached is left alone
// for the rest.
func (h *History) Fill(ctx context.Context, o FillOptions) error {
	defer h.x.Relax(ctx)
	line, err := h.timeline(ctx)
	if err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	var todo [][]snapshot.Info
	for i, s := range slices.Backward(line.infos) {
		if !s.Indexed {
			todo = append(todo, h.cheapestFirst(line.held[i]))
		}
	}
	var errs []error
	gone := map[string]bool{} // sources
	for i, equals := range todo {
		var failed []error
		for _, s := range equals { // one of them is enough
			if gone[s.Source] {
				continue
			}
			if err := h.letUrgentPass(ctx); err != nil {
				return errors.Join(append(errs, err)...)
			}
			var report func(items int64)
			if o.Progress != nil {
				report = func(items int64) { o.Progress(FillProgress{s, i, len(todo), items}) }
				report(0)
			}
			err := h.index(ctx, s.Num, report)
			if err == nil {
				failed = nil
				break
			}
			if ctx.Err() != nil {
				return errors.Join(append(errs, ctx.Err())...)
			}
			gone[s.Source] = errors.Is(err, snapshot.ErrUnreachable)
			if !errors.Is(err, errVanished) { // deleted since
				failed = append(failed, err)
			}
		}
		errs = append(errs, failed...)
	}
	if o.Progress != nil && len(todo) > 0 {
		o.Progress(FillProgress{todo[len(todo)-1][0], len(todo), len(todo), 0})
	}
	return errors.Join(errs...)
}

// cheapestFirst puts archives before btrfs snapshots: of an archive only the
// sections are read that its neighbour has not, of a snapshot every file is looked
// at; and what is kept of the archive stays good when the snapshot goes.
func (h *History) cheapestFirst(equals []snapshot.Info) []snapshot.Info {
	equals = slices.Clone(equals)
	slices.SortStableFunc(equals, func(a, b snapshot.Info) int {
		return compareBool(opensByPath(h.source(a.Source)), opensByPath(h.source(b.Source)))
	})
	return equals
}

// errVanished says that a snapshot is not known any more.
var errVanished = fmt.Errorf("snapshot is gone: %w", fs.ErrNotExist)

// Ensure returns when the snapshot's tree is in the index. It goes before what
// Fill has not begun; several callers wait together.
func (h *History) Ensure(ctx context.Context, num int64) error {
	if _, ok := h.indexed.Load(num); ok {
		return nil
	}
	info, err := h.x.Snapshot(ctx, num)
	if err != nil {
		return err
	}
	if info.Indexed {
		h.indexed.Store(num, info.Source)
		return nil
	}
	return h.index(ctx, num, nil)
}

// job is one tree on its way into the index. It ends when nobody waits for it.
type job struct {
	done    chan struct{} // closed at the end; then err is set
	err     error
	cancel  context.CancelFunc
	waiters int // under jobMu
	urgent  bool
}

// index joins the job for that snapshot, or starts it. With a report, which
// only the one that starts the job hears, it is not urgent.
func (h *History) index(ctx context.Context, num int64, report func(int64)) error {
	h.jobMu.Lock()
	if h.closed {
		h.jobMu.Unlock()
		return fmt.Errorf("history: %w", fs.ErrClosed)
	}
	j := h.jobs[num]
	if j == nil {
		jobCtx, cancel := context.WithCancel(h.ctx)
		j = &job{done: make(chan struct{}), cancel: cancel}
		h.jobs[num] = j
		h.wg.Go(func() {
			err := h.readTree(jobCtx, num, report)
			cancel()
			h.jobMu.Lock()
			delete(h.jobs, num)
			j.err = err
			h.jobMu.Unlock()
			close(j.done)
		})
	}
	j.waiters++
	j.urgent = j.urgent || report == nil
	h.jobMu.Unlock()

	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
	}
	h.jobMu.Lock()
	j.waiters--
	last := j.waiters == 0
	if last && h.jobs[num] == j {
		delete(h.jobs, num) // who comes now starts anew
	}
	h.jobMu.Unlock()
	if last {
		j.cancel()
		<-j.done // so that a report is not made after the return
	}
	return ctx.Err()
}

// letUrgentPass waits until nobody waits for one certain snapshot.
func (h *History) letUrgentPass(ctx context.Context) error {
	for {
		var wait chan struct{}
		h.jobMu.Lock()
		for _, j := range h.jobs {
			if j.urgent {
				wait = j.done
			}
		}
		h.jobMu.Unlock()
		if wait == nil {
			return ctx.Err()
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readTree brings one snapshot into the index.
func (h *History) readTree(ctx context.Context, num int64, report func(int64)) error {
	info, err := h.x.Snapshot(ctx, num)
	if errors.Is(err, fs.ErrNotExist) {
		return errVanished
	}
	if err != nil {
		return err
	}
	src := h.source(info.Source)
	if src == nil {
		return fmt.Errorf("index %s: its source %s is not at hand: %w", info.Name, info.Source, snapshot.ErrUnreachable)
	}
	added, err := h.x.AddScan(ctx, num, func(known []snapshot.Section) snapshot.Scanner {
		return counted(src.Scan(ctx, info, known), report)
	})
	if err != nil {
		if _, gone := h.x.Snapshot(ctx, num); errors.Is(gone, fs.ErrNotExist) {
			return errVanished
		}
		return fmt.Errorf("index %s: %w", info.Name, err)
	}
	h.indexed.Store(num, info.Source)
	h.log.Info("indexed", "snapshot", info.Name, "source", info.Source, "items", added.Items, "new", added.NewVersions)
	if added.SkippedAll > 0 {
		h.logSkipped(info, added)
	}
	return nil
}

func (h *History) logSkipped(info snapshot.Info, added index.Added) {
	for _, line := range added.Skipped {
		h.log.Warn("left out of the snapshot", "snapshot", info.Name, "item", line)
	}
	if more := added.SkippedAll - int64(len(added.Skipped)); more > 0 {
		h.log.Warn("left out of the snapshot", "snapshot", info.Name, "more items", more)
	}
}

// counted reports the items that pass.
func counted(s snapshot.Scanner, report func(int64)) snapshot.Scanner {
	if report == nil {
		return s
	}
	return &countingScanner{Scanner: s, report: report}
}

type countingScanner struct {
	snapshot.Scanner
	report func(int64)
	items  int64
}

func (s *countingScanner) NextItem() bool {
	if s.items++; s.items%progressStep == 0 {
		s.report(s.items)
	}
	return s.Scanner.NextItem()
}
