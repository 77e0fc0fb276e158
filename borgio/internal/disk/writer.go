package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/lock"
)

// Writer is a transaction on the repository in a directory, under its exclusive
// lock. It is used by one goroutine at a time.
type Writer struct {
	repo   *Repository
	limits limits
	lock   *lock.Lock
	view   *view // of what was committed before
	ledger *ledger

	out   segmentWriter
	first int64  // the first segment that is this transaction's
	added *table // by this transaction
	err   error  // why nothing can be put or committed any more
	done  bool   // the lock is given back
}

// Begin takes the exclusive lock, removes what a writer that died left behind,
// and begins a transaction. Wait and Environ are for the lock.
//
// Errors: [fault.LockedError], [fault.ErrIntegrity] when the repository has to
// be repaired first.
func (s *Repository) Begin(ctx context.Context, wait time.Duration, environ func(string) (string, bool)) (*Writer, error) {
	l, err := lock.Exclusive(ctx, s.dir, lock.Options{Wait: wait, Environ: environ, Logger: s.log})
	if err != nil {
		return nil, err
	}
	return s.begin(ctx, l)
}

// begin does all of Begin under a lock, which it gives back if it fails.
func (s *Repository) begin(ctx context.Context, l *lock.Lock) (*Writer, error) {
	w := &Writer{repo: s, lock: l, ledger: newLedger()}
	if err := w.open(ctx); err != nil {
		return nil, errors.Join(err, w.finish())
	}
	return w, nil
}

func (w *Writer) open(ctx context.Context) error {
	s := w.repo
	conf, err := readConfig(s.dir)
	if err != nil {
		return err
	}
	if conf.id != s.conf.id {
		return fmt.Errorf("%w: %s was replaced by another repository", fault.ErrNotRepository, s.dir)
	}
	if w.limits, err = conf.limits(); err != nil {
		return err
	}
	st, err := os.Stat(filepath.Join(s.dir, "data"))
	if err != nil {
		return err
	}
	tx, _, err := currentTransaction(ctx, s.dir, conf.segmentsPerDir)
	if err != nil {
		return err
	}
	if tx.index > tx.committed {
		return &ObjectError{"transaction", fmt.Errorf("the index knows transaction %d, the segments end with %d: borg check has to repair it", tx.index, tx.committed)}
	}
	s.mu.RLock()
	shown := s.view
	s.mu.RUnlock()
	if w.view, err = openView(ctx, s.dir, conf.segmentsPerDir, tx, true, shown, w.ledger, s.log); err != nil {
		return err
	}
	if w.view.damaged != noSegment {
		return &ObjectError{"segment", fmt.Errorf("segment %d is damaged: borg check has to repair it", w.view.damaged)}
	}
	if w.added, err = newTable(bucketsFor(0)); err != nil {
		return err
	}
	w.added.clear()
	w.first = tx.committed + 1
	w.out = segmentWriter{
		dir: s.dir, perDir: conf.segmentsPerDir, limit: w.limits.segment, mode: st.Mode().Perm(),
		held: w.lock.Held, number: w.first,
	}
	return w.removeSegments(ctx)
}

// removeSegments removes what follows the last commit, the newest first: so a
// COMMIT goes before what it commits.
func (w *Writer) removeSegments(ctx context.Context) error {
	left, err := segmentsAbove(ctx, w.out.dir, w.out.perDir, w.first-1, math.MaxInt64)
	if err != nil {
		return err
	}
	slices.Reverse(left)
	for _, n := range left {
		path := segmentPath(w.out.dir, w.out.perDir, n)
		err := os.Remove(path)
		if errors.Is(err, unix.ENOSPC) { // some file systems need room to remove what is long
			err = errors.Join(os.Truncate(path, 0), os.Remove(path))
		}
		if err == nil {
			err = syncDir(filepath.Dir(path))
		}
		if err != nil {
			return fmt.Errorf("remove uncommitted segment: %w", err)
		}
	}
	return nil
}

// find looks an object up in this transaction and in what was before.
func (w *Writer) find(id [32]byte) (p place, ok bool, err error) {
	if w.done {
		return p, false, fault.ErrClosed
	}
	if p, ok := w.added.lookup(id); ok {
		return p, p.segment != bucketDeleted, nil
	}
	return w.view.lookup(id)
}

// Has reports whether an object is there, or was put in this transaction.
func (w *Writer) Has(id [32]byte) bool {
	_, ok, err := w.find(id)
	return ok && err == nil // what cannot be told is put once more
}

// StoredSize is the length in bytes of what is stored of an object, 0 if that
// cannot be read.
func (w *Writer) StoredSize(id [32]byte) uint32 {
	p, ok, err := w.find(id)
	if !ok || err != nil {
		return 0
	}
	size, err := w.putSize(p, id)
	if err != nil {
		return 0
	}
	return size - putHeaderSize
}

// putSize is the size of the whole PUT at p.
func (w *Writer) putSize(p place, id [32]byte) (uint32, error) {
	if int64(p.segment) == w.out.number && w.out.file != nil {
		if w.out.holds(int64(p.offset) + putHeaderSize) {
			if err := w.out.flush(); err != nil {
				return 0, err
			}
		}
		return readPutSize(w.out.file, p, id)
	}
	for {
		f, err := w.repo.segment(p.segment)
		if err != nil {
			return 0, err
		}
		size, err := readPutSize(f, p, id)
		if !errors.Is(err, os.ErrClosed) { // pushed out by a reader's segment
			return size, err
		}
	}
}

// Get gives an object as it was stored before the transaction; see
// [Repository.Get].
func (w *Writer) Get(ctx context.Context, id [32]byte, sizeHint int) (*buffer.Buffer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.done {
		return nil, fault.ErrClosed
	}
	p, ok, err := w.view.lookup(id)
	if err != nil {
		return nil, &ObjectError{"lookup", err}
	}
	if !ok {
		return nil, &ObjectError{"lookup", fmt.Errorf("no such object: %w", fs.ErrNotExist)}
	}
	b, err := w.repo.read(p, id, sizeHint)
	if errors.Is(err, fs.ErrNotExist) {
		err = missingSegment(p, err)
	}
	return b, err
}

// Put stores an object; data is the caller's again when it returns. The manifest
// begins a segment of its own. After an error the transaction is lost.
//
// Errors: [fault.ErrQuota], [fault.ErrNoSpace], [fault.ErrLockLost].
func (w *Writer) Put(ctx context.Context, id [32]byte, data []byte) error {
	if w.err == nil {
		w.err = ctx.Err()
	}
	if w.err == nil {
		w.err = spaceError(w.put(id, data))
	}
	return w.err
}

func (w *Writer) put(id [32]byte, data []byte) error {
	if len(data) > MaxObjectSize {
		return fmt.Errorf("object of %d bytes is too long", len(data))
	}
	size := int64(len(data) + putHeaderSize)
	if use := w.ledger.quotaUse + size; w.limits.quota > 0 && use > w.limits.quota {
		return fmt.Errorf("%w: %d bytes of %d", fault.ErrQuota, use, w.limits.quota)
	}
	old, exists, err := w.find(id)
	if err == nil && exists {
		err = w.supersede(old, id)
	}
	if err == nil {
		err = w.added.grow()
	}
	if err != nil {
		return err
	}
	p, err := w.write(tagPut, &id, data, id == manifest)
	if err != nil {
		return err
	}
	w.ledger.put(p.segment, size)
	w.added.set(id, p)
	return nil
}

// supersede makes room for another object of the same id. The manifest needs no
// DELETE: what is later wins, and nothing is ever looked for in its place.
func (w *Writer) supersede(old place, id [32]byte) error {
	size, err := w.putSize(old, id)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fault.ErrIntegrity) { // the more reason to put it anew
		size, err = putHeaderSize, nil
	}
	if err != nil {
		return err
	}
	w.ledger.supersede(old.segment, int64(size))
	if id == manifest {
		return nil
	}
	return w.writeDelete(id)
}

func (w *Writer) writeDelete(id [32]byte) error {
	p, err := w.write(tagDelete, &id, nil, false)
	if err == nil {
		w.ledger.compact[p.segment] += putHeaderSize
	}
	return err
}

// Delete removes an object, and tells how many bytes its PUT takes; they are free
// after a compaction. After an error but the first the transaction is lost.
//
// Errors: [fs.ErrNotExist] when there is no such object, and those of [Writer.Put].
func (w *Writer) Delete(ctx context.Context, id [32]byte) (size int64, err error) {
	if w.err == nil {
		w.err = ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	old, ok, err := w.find(id)
	if err == nil && !ok {
		return 0, fmt.Errorf("delete: no such object: %w", fs.ErrNotExist)
	}
	if err == nil {
		size, err = w.delete(id, old)
	}
	w.err = spaceError(err)
	return size, w.err
}

func (w *Writer) delete(id [32]byte, old place) (int64, error) {
	size, err := w.putSize(old, id)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fault.ErrIntegrity) { // no loss any more
		size, err = putHeaderSize, nil
	}
	if err != nil {
		return 0, err
	}
	if err := errors.Join(w.ledger.noteDeleted(id, old.segment), w.added.grow()); err != nil {
		return 0, err
	}
	w.ledger.supersede(old.segment, int64(size))
	w.added.set(id, place{segment: bucketDeleted})
	return int64(size), w.writeDelete(id)
}

// write appends an entry to the segments, and makes them known to the ledger.
func (w *Writer) write(tag byte, id *[32]byte, data []byte, fresh bool) (place, error) {
	p, err := w.out.write(tag, id, data, fresh)
	if _, known := w.ledger.segments[p.segment]; !known && err == nil {
		w.ledger.segments[p.segment] = 0
	}
	return p, err
}

// Flush hands all that was put to the kernel.
func (w *Writer) Flush() error {
	if w.err == nil {
		w.err = spaceError(w.out.flush())
	}
	return w.err
}

// Commit makes all that was put durable and visible, and gives the lock back.
// Where it fails nothing was committed, unless the error is [fault.ErrUnknown].
//
// Errors: those of [Writer.Put].
func (w *Writer) Commit(ctx context.Context) error {
	if w.err == nil {
		w.err = ctx.Err()
	}
	if w.err == nil && w.out.number == w.first && w.out.file == nil { // nothing was put
		return w.Rollback()
	}
	if w.err == nil {
		w.err = spaceError(w.commit())
	}
	if err := w.err; err != nil {
		return errors.Join(err, w.Rollback())
	}
	w.settle()
	if err := w.finish(); err != nil {
		w.repo.log.Warn("the transaction is committed, but its lock is not given back in good order", "error", err)
	}
	return nil
}

// commit ends in a durable COMMIT.
func (w *Writer) commit() error {
	if err := w.checkSpace(); err != nil {
		return err
	}
	if err := w.out.close(); err != nil {
		return err
	}
	p, err := w.write(tagCommit, nil, nil, true)
	if err != nil {
		return err
	}
	w.ledger.compact[p.segment] += entryHeaderSize
	return w.out.close()
}

// checkSpace makes sure that the file system has the room that Borg too wants to
// be left: for an index four times as long, so that objects can be deleted and
// added, and for compaction to work in.
func (w *Writer) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Statfs(w.out.dir, &st); err != nil {
		w.repo.log.Warn("free space is not known", "error", err)
		return nil
	}
	need := w.limits.keepFree + 4*int64(w.indexSize()) +
		int64(10*len(w.ledger.segments)+10*len(w.ledger.compact)+4096)
	if !w.limits.appendOnly {
		work, most := int64(0), w.limits.segment+maxEntrySize
		if len(w.ledger.compact) >= 10 {
			work = most
		}
		for n, free := range w.ledger.compact {
			if work >= most {
				break
			}
			if st, err := os.Stat(segmentPath(w.out.dir, w.out.perDir, int64(n))); err == nil {
				work += st.Size() - free
			}
		}
		need += min(work, most)
	}
	if free := int64(min(st.Bavail, math.MaxInt64/uint64(st.Frsize))) * st.Frsize; free < need {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", fault.ErrNoSpace, need, free)
	}
	return nil
}

// Rollback removes what the transaction wrote, and gives the lock back. After
// Commit it does nothing.
func (w *Writer) Rollback() error {
	if w.done {
		return nil
	}
	w.out.discard()
	w.repo.forget(w.first)
	var err error
	if w.lock.Held() { // else the segments are another's
		err = w.removeSegments(context.Background())
	}
	if last := w.out.number - 1; err != nil && last >= w.first {
		if ok, cerr := segmentCommitted(context.Background(), segmentPath(w.out.dir, w.out.perDir, last)); ok || cerr != nil {
			err = fmt.Errorf("%w: %w", fault.ErrUnknown, err)
		}
	}
	return errors.Join(err, w.finish())
}

// finish gives all back.
func (w *Writer) finish() error {
	if w.done {
		return nil
	}
	w.done = true
	w.err = fault.ErrClosed
	if w.view != nil {
		w.view.close()
	}
	w.added.free()
	w.ledger.close()
	return w.lock.Release()
}
