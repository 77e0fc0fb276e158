package disk

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
	"github.com/s4-storage/s4/borgio/internal/fault"
)

// Repository gives the objects of the repository in a directory. It is safe for
// concurrent use.
type Repository struct {
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

// manifest is the id of the one object that is replaced under its id.
var manifest [32]byte

// maxOpenSegments bounds the segment files kept open.
const maxOpenSegments = 32

// Open opens the repository in dir. What it gives lies in the pool's buffers, or
// is mapped from files.
//
// Errors: [fault.ErrNotRepository] and its kind, [fault.ErrUnsupported].
func Open(ctx context.Context, dir string, pool *buffer.Pool, log *slog.Logger) (*Repository, error) {
	conf, err := readConfig(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fault.ErrNotRepository):
		if l, err := leftIn(dir, false); err == nil && l.begun() {
			return nil, fault.ErrUnfinished
		}
		return nil, fmt.Errorf("%w: %s", fault.ErrNotRepository, dir)
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%w: %s is not a directory", fault.ErrNotRepository, dir)
	case err != nil:
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err != nil {
		return nil, fmt.Errorf("%w: %s has no data directory", fault.ErrNotRepository, dir)
	}
	s := &Repository{dir: dir, conf: conf, log: log, pool: pool, newest: noSegment, files: map[uint32]*os.File{}}
	if err := s.renew(ctx, false); err != nil {
		return nil, err
	}
	return s, nil
}

// ID is the repository's id.
func (s *Repository) ID() [32]byte { return s.conf.id }

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

// Refresh makes later reads see at least what is committed now. While the state
// that it gives stays the same, nothing has changed; it is never zero.
func (s *Repository) Refresh(ctx context.Context) (state uint64, err error) {
	err = s.renew(ctx, false)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.states, err
}

// renew opens a new view if the repository changed. With check, an index that
// was opened without comparing its digest is compared now.
func (s *Repository) renew(ctx context.Context, check bool) error {
	s.refreshing.Lock()
	defer s.refreshing.Unlock()
	for attempt := 0; ; attempt++ {
		err := s.tryRenew(ctx, check)
		if err == nil || attempt+1 == attempts || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, fault.ErrNotRepository) {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

func (s *Repository) tryRenew(ctx context.Context, check bool) error {
	sig, settled := sign(s.dir, s.conf.segmentsPerDir, s.newest)
	s.mu.RLock()
	old, closed := s.view, s.closed
	s.mu.RUnlock()
	switch {
	case closed:
		return fault.ErrClosed
	case settled && sig == s.seen && (old.checked || !check):
		return nil
	}
	s.seen = signature{}
	conf, err := readConfig(s.dir)
	if err != nil {
		return err
	}
	if conf.id != s.conf.id {
		return fmt.Errorf("%w: %s was replaced by another repository", fault.ErrNotRepository, s.dir)
	}
	tx, newest, err := currentTransaction(ctx, s.dir, s.conf.segmentsPerDir)
	if err != nil {
		return err
	}
	if old == nil || old.transaction != tx || check && !old.checked {
		v, err := openView(ctx, s.dir, s.conf.segmentsPerDir, tx, check, old, nil, s.log)
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

// show replaces the present view. Segments that compaction has deleted are
// closed, so that their room on the disk is free.
func (s *Repository) show(v *view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != nil {
		s.view.close()
	}
	for n, f := range s.files {
		if _, err := os.Stat(f.Name()); errors.Is(err, fs.ErrNotExist) {
			f.Close()
			delete(s.files, n)
		}
	}
	s.view, s.lost = v, map[uint32]bool{}
	s.states++
}

// find looks an object up in the present view.
func (s *Repository) find(id [32]byte) (p place, ok, lost bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.view == nil {
		return p, false, false, fault.ErrClosed
	}
	if p, ok, err = s.view.lookup(id); err != nil {
		return p, false, false, &ObjectError{"lookup", err}
	}
	if ok && id == manifest && int64(p.segment) < s.view.damaged {
		// A newer manifest may be in what is lost; an old one must not pass for it.
		return p, false, false, &ObjectError{"segment entry", fmt.Errorf("segment %d is damaged and may hold a newer one", s.view.damaged)}
	}
	return p, ok, s.lost[p.segment], nil
}

// Get gives an object as it is stored; the buffer's reference is the caller's.
// sizeHint is about how long it is, in bytes. A large one may be mapped, and must
// be used within [OnFault]. What is wrong with an object is an [*ObjectError].
func (s *Repository) Get(ctx context.Context, id [32]byte, sizeHint int) (*buffer.Buffer, error) {
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
			return nil, &ObjectError{"lookup", fmt.Errorf("no such object: %w", fs.ErrNotExist)}
		case ok && (lost || attempt > 0 && p == last && errors.Is(failure, fault.ErrIntegrity)):
			if failure == nil {
				failure = fs.ErrNotExist
			}
			return nil, missingSegment(p, failure)
		case ok:
			var b *buffer.Buffer
			if b, failure = s.read(p, id, sizeHint); failure == nil {
				return b, nil
			}
			if errors.Is(failure, unix.EIO) && !errors.Is(failure, fault.ErrIntegrity) { // bad sectors
				return nil, &ObjectError{"segment", fmt.Errorf("read segment %d: %w", p.segment, failure)}
			}
			if !errors.Is(failure, fs.ErrNotExist) && !errors.Is(failure, fault.ErrIntegrity) {
				return nil, fmt.Errorf("read segment %d: %w", p.segment, failure)
			}
			if errors.Is(failure, fs.ErrNotExist) && attempt > 0 {
				if err := pause(ctx, attempt); err != nil {
					return nil, err
				}
			}
		}
		last = p
		misled := !ok || errors.Is(failure, fault.ErrIntegrity) // perhaps by the index
		if err := s.renew(ctx, misled); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	if s.lost != nil {
		s.lost[last.segment] = true // until the next transaction: wait only once for it
	}
	s.mu.Unlock()
	return nil, missingSegment(last, failure)
}

func missingSegment(p place, err error) error {
	if errors.Is(err, fault.ErrIntegrity) {
		return err
	}
	return &ObjectError{"segment", fmt.Errorf("segment %d is missing: %w", p.segment, fs.ErrNotExist)}
}

func (s *Repository) read(p place, id [32]byte, sizeHint int) (*buffer.Buffer, error) {
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
func (s *Repository) segment(n uint32) (*os.File, error) {
	s.mu.RLock()
	f, open := s.files[n], s.view != nil
	s.mu.RUnlock()
	if !open {
		return nil, fault.ErrClosed
	}
	if f != nil {
		return f, nil
	}
	f, _, err := openRegular(segmentPath(s.dir, s.conf.segmentsPerDir, int64(n)))
	if errors.Is(err, errNotRegular) {
		return nil, &ObjectError{"segment", err}
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		f.Close()
		return nil, fault.ErrClosed
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

// forget closes the segments from the given one on: they are not committed, and
// others may come to have their numbers.
func (s *Repository) forget(first int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, f := range s.files {
		if int64(n) >= first {
			f.Close()
			delete(s.files, n)
		}
	}
}

// LoadKey gives the base64 text of the key kept in the repository, "" if none.
func (s *Repository) LoadKey() (string, error) {
	conf, err := readConfig(s.dir)
	return conf.key, err
}

// Close gives all files back. Buffers that are in use stay valid.
func (s *Repository) Close() error {
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
