package borgio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// localStore reads a repository's files in place, without a lock. A writer
// may commit or compact at any time: segments are never changed once written,
// but compaction removes them, so a read that misses looks at the repository
// anew and tries again.
type localStore struct {
	dir  string
	conf config
	log  *slog.Logger
	pool *buffer.Pool

	refreshing sync.Mutex // one refresh at a time; held during I/O; guards what follows
	newest     int64      // the last segment when it was last looked for
	seen       signature  // of what view is a view of; zero: look again

	mu     sync.RWMutex // guards what follows; lookups hold it for reading
	view   *view        // nil before the first renew and once closed
	states uint64       // views so far
	closed bool
	lost   map[uint32]bool
	files  map[uint32]*os.File
}

// maxOpenSegments bounds the segment files kept open.
const maxOpenSegments = 32

// openLocal opens the repository in dir.
func openLocal(ctx context.Context, dir string, pool *buffer.Pool, log *slog.Logger) (*localStore, error) {
	conf, err := readConfig(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotRepository):
		return nil, fmt.Errorf("%w: %s", ErrNotRepository, dir)
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%w: %s is not a directory", ErrNotRepository, dir)
	case err != nil:
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err != nil {
		return nil, fmt.Errorf("%w: %s has no data directory", ErrNotRepository, dir)
	}
	s := &localStore{dir: dir, conf: conf, log: log, pool: pool, newest: noSegment, files: map[uint32]*os.File{}}
	if err := s.renew(ctx, false); err != nil {
		return nil, err
	}
	return s, nil
}

// attempts and the delay after the first of them, which doubles each time,
// span the moments in which a commit replaces one file by another: 1.2 s.
const (
	attempts   = 6
	firstDelay = 20 * time.Millisecond
)

func pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(firstDelay << attempt)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (s *localStore) refresh(ctx context.Context) (state uint64, err error) {
	err = s.renew(ctx, false)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.states, err
}

// renew opens a new view if the repository changed. With check, an index that
// was opened without comparing its digest is compared now.
func (s *localStore) renew(ctx context.Context, check bool) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	for attempt := 0; ; attempt++ {
		err := s.tryRenew(ctx, check)
		if err == nil || attempt+1 == attempts || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotRepository) {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

func (s *localStore) tryRenew(ctx context.Context, check bool) error {
	sig, settled := sign(s.dir, s.conf.segmentsPerDir, s.newest)
	s.mu.RLock()
	old, closed := s.view, s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return ErrClosed
	case settled && sig == s.seen && (old.checked || !check):
		return nil
	}
	s.seen = signature{}
	conf, err := readConfig(s.dir)
	if err != nil {
		return err
	}
	if conf.id != s.conf.id {
		return fmt.Errorf("%w: %s was replaced by another repository", ErrNotRepository, s.dir)
	}
	tx, newest, err := currentTransaction(ctx, s.dir, s.conf.segmentsPerDir)
	if err != nil {
		return err
	}
	if old == nil || old.transaction != tx || check && !old.checked {
		v, err := openView(ctx, s.dir, s.conf.segmentsPerDir, tx, check, s.log)
		if err != nil {
			return err
		}
		s.show(v)
	}
	if settled && newest == s.newest {
		s.seen = sig
	}
	s.newest = newest
	return nil
}

// show replaces the present view.
func (s *localStore) show(v *view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != nil {
		s.view.close()
	}
	s.view, s.lost = v, map[uint32]bool{}
	s.states++
}

// find looks an object up in the present view.
func (s *localStore) find(id ID) (p place, ok, lost bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return p, false, false, ErrClosed
	}
	p, ok = s.view.lookup(id)
	if ok && id == manifestID && int64(p.segment) < s.view.damaged {
		// A newer manifest may be in what is lost; an old one must not pass for it.
		return p, false, false, damaged(id, "segment entry", "segment %d is damaged and may hold a newer one", s.view.damaged)
	}
	return p, ok, s.lost[p.segment], nil
}

func (s *localStore) get(ctx context.Context, id ID, sizeHint int) (*buffer.Buffer, error) {
	var failure error
	var last place
	for attempt := range attempts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, ok, lost, err := s.find(id)
		switch {
		case err != nil:
			return nil, err
		case !ok && attempt > 0:
			return nil, damaged(id, "lookup", "no such object: %w", fs.ErrNotExist)
		case ok && (lost || attempt > 0 && p == last && errors.Is(failure, ErrIntegrity)):
			if failure == nil {
				failure = fs.ErrNotExist
			}
			return nil, missingSegment(id, p, failure)
		case ok:
			var b *buffer.Buffer
			if b, failure = s.read(p, id, sizeHint); failure == nil {
				return b, nil
			}
			if !errors.Is(failure, fs.ErrNotExist) && !errors.Is(failure, ErrIntegrity) {
				return nil, fmt.Errorf("read segment %d: %w", p.segment, failure)
			}
			if errors.Is(failure, fs.ErrNotExist) && attempt > 0 {
				if err := pause(ctx, attempt); err != nil {
					return nil, err
				}
			}
		}
		last = p
		if err := s.renew(ctx, errors.Is(failure, ErrIntegrity)); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	if s.lost != nil {
		s.lost[last.segment] = true // until the next transaction: wait only once for it
	}
	s.mu.Unlock()
	return nil, missingSegment(id, last, failure)
}

func missingSegment(id ID, p place, err error) error {
	if errors.Is(err, ErrIntegrity) {
		return err
	}
	return damaged(id, "segment", "segment %d is missing: %w", p.segment, fs.ErrNotExist)
}

func (s *localStore) read(p place, id ID, sizeHint int) (*buffer.Buffer, error) {
	for {
		f, err := s.segment(p.segment)
		if err != nil {
			return nil, err
		}
		b, err := readPut(f, int64(p.offset), id, sizeHint, s.pool)
		if errors.Is(err, os.ErrClosed) { // pushed out by another reader's segment
			continue
		}
		return b, err
	}
}

// segment gives an open segment file.
func (s *localStore) segment(n uint32) (*os.File, error) {
	s.mu.RLock()
	f, open := s.files[n], s.view != nil
	s.mu.RUnlock()
	if !open {
		return nil, ErrClosed
	}
	if f != nil {
		return f, nil
	}
	f, err := os.Open(segmentPath(s.dir, s.conf.segmentsPerDir, int64(n)))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		f.Close()
		return nil, ErrClosed
	}
	if other := s.files[n]; other != nil {
		f.Close()
		return other, nil
	}
	for k, old := range s.files {
		if len(s.files) < maxOpenSegments {
			break
		}
		old.Close()
		delete(s.files, k)
	}
	s.files[n] = f
	return f, nil
}

func (s *localStore) loadKey(context.Context) (string, error) {
	conf, err := readConfig(s.dir)
	return conf.key, err
}

func (s *localStore) close() error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return nil
	}
	s.view.close()
	s.view, s.closed = nil, true
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
