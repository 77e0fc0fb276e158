package disk

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// Compact is a transaction of its own, which adds nothing: of each segment of which
// more than that part could be freed, it copies what is live into new segments, and
// removes it. It commits, gives the lock back, and tells by how many bytes the
// segments have become fewer. Where only appending is allowed it does nothing.
//
// What is copied is durable and committed before a segment is removed, a segment's
// worth at a time. So whenever it dies or fails, the repository holds what it held.
//
// Errors: [fault.ErrIntegrity] for a segment that is damaged, or where index and
// hints disagree; those of [Writer.Put].
func (w *Writer) Compact(ctx context.Context, threshold float64) (freed int64, err error) {
	if w.done {
		return 0, fault.ErrClosed
	}
	if w.limits.appendOnly {
		return 0, w.Rollback()
	}
	c, first := compaction{w: w}, w.first
	err = spaceError(c.run(ctx, threshold))
	if err != nil || !c.began {
		return 0, errors.Join(err, w.Rollback())
	}
	if err := w.writeIndex(w.out.number - 1); err != nil {
		w.repo.log.Warn("repository index is left stale", "error", err)
	}
	if err := w.finish(); err != nil {
		w.repo.log.Warn("the repository is compacted, but its lock is not given back in good order", "error", err)
	}
	return c.freed - w.out.total - int64(len(segmentMagic))*(w.out.number-first), nil
}

// compaction is one under way.
type compaction struct {
	w       *Writer
	deleted *shadowIndex
	stable  int64           // the last segment that the index on the disk knows
	there   map[uint32]bool // segments that were not removed
	unused  []uint32        // those from which all was copied, ascending
	freed   int64           // their bytes
	began   bool
	data    []byte
}

func (c *compaction) run(ctx context.Context, threshold float64) error {
	w := c.w
	if err := w.checkSpace(); err != nil {
		return err
	}
	present, err := segmentsAbove(ctx, w.out.dir, w.out.perDir, noSegment, w.view.committed)
	if err != nil {
		return err
	}
	c.there = make(map[uint32]bool, len(present))
	for _, n := range present {
		c.there[uint32(n)] = true
	}
	// Of a DELETE that the index on the disk knows it is certain that it has settled.
	if w.view.committed != noSegment && (w.view.index == nil || w.view.transaction.index < w.view.committed) {
		if err := w.writeIndex(w.view.committed); err != nil {
			return err
		}
	}
	c.stable = w.view.committed
	if c.deleted, err = w.ledger.shadows(); err != nil {
		return err
	}
	for _, n := range slices.Sorted(maps.Keys(w.ledger.compact)) {
		size, err := segmentSize(segmentPath(w.out.dir, w.out.perDir, int64(n)))
		switch {
		case err != nil:
			return err
		case size == 0: // compacted by who could not write it down
			delete(w.ledger.compact, n)
			delete(w.ledger.segments, n)
		case float64(w.ledger.compact[n]) > threshold*float64(size):
			if err := c.empty(ctx, n, size); err != nil {
				return err
			}
		}
	}
	if !c.began {
		return nil
	}
	return c.transfer(true)
}

// segmentSize is how long a segment is, 0 where there is none.
func segmentSize(path string) (int64, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// empty copies what a segment holds and is still needed.
func (c *compaction) empty(ctx context.Context, n uint32, size int64) error {
	c.began = true
	f, _, err := openRegular(segmentPath(c.w.out.dir, c.w.out.perDir, int64(n)))
	if err != nil {
		return err
	}
	defer f.Close()
	var failed error
	err = walkSegment(f, size, func(off int64, e entry) error {
		if failed = ctx.Err(); failed == nil && e.tag == tagPut {
			failed = c.movePut(f, place{n, uint32(off)}, e)
		} else if failed == nil && e.tag == tagDelete {
			failed = c.moveDelete(n, e.id)
		}
		return failed
	})
	if failed != nil {
		return failed
	}
	if live := c.w.ledger.segments[n]; err == nil && live != 0 {
		err = fmt.Errorf("index and hints disagree about %d objects", live)
	}
	if err != nil {
		return &ObjectError{"segment", fmt.Errorf("segment %d: %w: borg check has to repair it", n, err)}
	}
	c.unused = append(c.unused, n)
	c.freed += size
	return nil
}

// movePut copies an object, unless it is not live.
func (c *compaction) movePut(f *os.File, from place, e entry) error {
	w := c.w
	at, live, err := w.find(e.id)
	if err != nil {
		return err
	}
	if !live || at != from {
		w.ledger.quotaUse -= int64(e.size)
		return c.deleted.drop(e.id, from.segment)
	}
	if cap(c.data) < int(e.size) {
		c.data = make([]byte, e.size)
	}
	c.data = c.data[:e.size]
	if _, err := f.ReadAt(c.data, int64(from.offset)); err != nil {
		return err
	}
	if crc32.ChecksumIEEE(c.data[4:]) != e.crc { // a copy would look sound
		return &ObjectError{"segment entry", fmt.Errorf("segment %d at %d: checksum is wrong: borg check has to repair it", from.segment, from.offset)}
	}
	p, err := c.write(tagPut, e.id, c.data[putHeaderSize:])
	if err == nil {
		err = w.added.grow()
	}
	if err != nil {
		return err
	}
	w.ledger.segments[p.segment]++
	w.ledger.segments[from.segment]--
	w.added.set(e.id, p)
	return nil
}

// moveDelete copies the DELETE of an object, unless nothing is left that it could be
// needed against: without it a PUT before it would bring the object back when the
// segments are replayed. One that has not settled stays, too, as do those of which
// it is not known where their objects were.
func (c *compaction) moveDelete(n uint32, id [32]byte) error {
	if _, live, err := c.w.find(id); live || err != nil {
		return err
	}
	segments, known := c.deleted.of(id)
	needed, left := !known || int64(n) > c.stable, false
	for _, s := range segments {
		left = left || c.there[s]
		needed = needed || s < n && c.there[s]
	}
	if needed {
		p, err := c.write(tagDelete, id, nil)
		if err == nil {
			c.w.ledger.compact[p.segment] += putHeaderSize
		}
		return err
	}
	if left {
		return nil
	}
	return c.deleted.forget(id)
}

// write appends an entry to the new segments. Where it would begin another one, what
// is in those before is committed first, and what was copied into them removed.
func (c *compaction) write(tag byte, id [32]byte, data []byte) (place, error) {
	out := &c.w.out
	if out.file != nil && out.offset+int64(putHeaderSize+len(data)) > out.limit {
		if err := c.transfer(false); err != nil {
			return place{}, err
		}
	}
	return c.w.write(tag, &id, data, false)
}

// transfer commits what was copied, then removes what it was copied from. The last
// COMMIT has a segment for itself, as always; the others end the segment of the data
// that they commit, which is on the disk before.
func (c *compaction) transfer(last bool) error {
	w := c.w
	if last {
		if err := w.out.close(); err != nil {
			return err
		}
	} else if err := errors.Join(w.out.flush(), w.out.file.Sync()); err != nil {
		return err
	}
	p, err := w.write(tagCommit, nil, nil, last)
	if err != nil {
		return err
	}
	w.ledger.compact[p.segment] += entryHeaderSize
	if err := w.out.close(); err != nil {
		return err
	}
	w.first = w.out.number // from here on it cannot be taken back
	for _, n := range c.unused {
		if !w.lock.Held() {
			return fault.ErrLockLost
		}
		path := segmentPath(w.out.dir, w.out.perDir, int64(n))
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// One after the other: a DELETE must not go before what it deletes.
		if err := syncDir(filepath.Dir(path)); err != nil {
			return err
		}
		delete(w.ledger.segments, n)
		delete(w.ledger.compact, n)
		delete(c.there, n)
	}
	c.unused = c.unused[:0]
	return nil
}
