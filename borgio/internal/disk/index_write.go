package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// After a commit the index may be left stale: every reader then replays the
// segments since, and Borg reads all of them, under a lock that keeps others out,
// and writes the index itself. Writing it costs as much as the index is long,
// however small the commit: 0.5 s for a million objects, where the rest takes 20 ms.
// So a small one is always written, and a large one once there is enough to replay.
const (
	smallIndex   = 4 << 20 // bytes
	indexPerTail = 8       // bytes of index for one to replay
	maxTail      = 64      // segments to replay; a small commit makes three
)

// settle does what is to be done after the commit. That it fails harms nobody.
func (w *Writer) settle() {
	n := w.out.number - 1
	if w.limits.appendOnly {
		if err := w.logTransaction(n); err != nil {
			w.repo.log.Warn("transaction is not logged", "error", err)
		}
	}
	// What was deleted, and from where, only the hints tell.
	if w.ledger.deleted == nil && !worthIndex(int64(w.indexSize()), w.view.tail+w.out.total, int64(w.view.tails)+w.out.number-w.first) {
		return
	}
	if err := w.writeIndex(n); err != nil {
		w.repo.log.Warn("repository index is left stale", "error", err)
	}
}

// worthIndex decides whether to write an index of so many bytes, where the one
// there lacks so many bytes of segments.
func worthIndex(size, tail, tails int64) bool {
	return size <= smallIndex || tail >= size/indexPerTail || tails > maxTail
}

// logTransaction adds the line by which the commit can be found, in a repository
// that is to be rolled back by hand.
func (w *Writer) logTransaction(n int64) error {
	f, err := os.OpenFile(filepath.Join(w.out.dir, "transactions"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, w.out.mode&0o666)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "transaction %d, UTC time %s\n", n, time.Now().UTC().Format("2006-01-02T15:04:05.000000"))
	return errors.Join(err, f.Close())
}

// indexSize is how long the index is in bytes, or would be.
func (w *Writer) indexSize() int {
	entries := len(w.view.overlay) + w.added.live
	if w.view.index == nil {
		return tableSize(bucketsFor(entries))
	}
	entries += w.view.index.entries()
	return max(tableSize(bucketsFor(entries)), len(w.view.mapped))
}

// writeIndex writes index.N, hints.N, and integrity.N, in the order in which a
// crash leaves a good set of them, and removes the ones before.
func (w *Writer) writeIndex(n int64) (err error) {
	dir, current := w.out.dir, fmt.Sprint(".", n)
	names := [3]string{"integrity" + current, "hints" + current, "index" + current}
	defer func() {
		if err != nil {
			for _, name := range names {
				_ = os.Remove(filepath.Join(dir, name+".tmp"))
			}
		}
	}()
	packed := w.ledger.packed()
	hints, err := w.writeDigested(names[1], 0, packed[:]...)
	if err != nil {
		return err
	}
	table, err := w.buildTable()
	if err != nil {
		return err
	}
	index, err := w.writeDigested(names[2], indexHeaderSize, table.data)
	table.free()
	if err != nil {
		return err
	}
	both := msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendMap(nil, 3), "version"), 2)
	both = msgpack.AppendBytes(msgpack.AppendBytes(both, "hints"), hints)
	both = msgpack.AppendBytes(msgpack.AppendBytes(both, "index"), index)
	if err := writeFile(filepath.Join(dir, names[0]+".tmp"), both, w.out.mode&0o666); err != nil {
		return err
	}
	for i, name := range names {
		if err := os.Rename(filepath.Join(dir, name+".tmp"), filepath.Join(dir, name)); err != nil {
			return err
		}
		if i != 1 {
			if err := syncDir(dir); err != nil {
				return err
			}
		}
	}
	return removeOld(dir, current)
}

// removeOld removes indexes other than the current one, and what belongs to them.
func removeOld(dir, current string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		for _, prefix := range []string{"index.", "hints.", "integrity."} {
			if strings.HasPrefix(e.Name(), prefix) && !strings.HasSuffix(e.Name(), current) {
				err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	return err
}

// writeDigested writes pieces to a temporary file durably, and gives the packed
// digests of the whole and of its header, if it has one.
func (w *Writer) writeDigested(name string, header int, pieces ...[]byte) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(w.out.dir, name+".tmp"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, w.out.mode&0o666)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, digests := newDigest(name), map[string]string{}
	fault := OnFault(func() { // a piece may be mapped
		for _, p := range pieces {
			if header > 0 {
				d.write(p[:header])
				digests["HashHeader"] = d.part("HashHeader")
				d.write(p[header:])
			} else {
				d.write(p)
			}
		}
	})
	if fault != nil {
		return nil, fault
	}
	digests["final"] = d.part("final")
	for _, p := range pieces {
		if _, err := f.Write(p); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	return packDigests(digests)
}

// buildTable makes the index as of this transaction. Its caller frees it.
func (w *Writer) buildTable() (t *table, err error) {
	old, more := w.view.index, len(w.view.overlay)+w.added.live
	fault := OnFault(func() {
		live, used := 0, 0
		if old != nil {
			live, used = old.count()
		}
		if old != nil && float64(used+more) < maxLoad*float64(old.buckets) && int(old.buckets) < minLoad*bucketsFor(live+more) {
			if t, err = newTable(int(old.buckets)); err == nil {
				copy(t.data, old.data)
				t.live = live
			}
		} else if t, err = newTable(bucketsFor(live + more)); err == nil {
			t.clear()
			if old != nil {
				old.each(t.set)
			}
		}
	})
	if err = errors.Join(err, fault); err != nil {
		t.free()
		return nil, err
	}
	for id, p := range w.view.overlay {
		if p.segment == bucketTombstone {
			t.remove(id)
		} else {
			t.set(id, p)
		}
	}
	w.added.each(func(id [32]byte, p place) {
		if p.segment == bucketDeleted {
			t.remove(id)
		} else {
			t.set(id, p)
		}
	})
	t.finish()
	return t, nil
}
