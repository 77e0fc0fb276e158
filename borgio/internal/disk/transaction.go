package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// transaction identifies a state of a local repository: the newest index file
// and the last committed segment. noSegment stands for none.
type transaction struct {
	index     int64
	committed int64
}

const noSegment = -1

// view finds the objects of a repository as one transaction left them.
type view struct {
	transaction
	file    *os.File    // the index file, nil when everything was replayed
	stat    fs.FileInfo // of it as it was opened; nil likewise
	mapped  []byte      // its content; nil likewise
	index   *diskIndex  // over mapped; nil likewise
	lookups atomic.Int64
	checked bool // the index matched its digests, or has none, or is not used
	overlay map[[32]byte]place
	// damaged is the last segment whose replay broke off, or noSegment. What
	// it held may hide newer objects of the same id.
	damaged int64
	ledger  *ledger // nil: nobody asked for one
	tail    int64   // bytes of the segments that were replayed
	tails   int     // how many these were
}

// letGoAfter is the number of look-ups in the index file after which its pages
// are let go. The kernel maps 64 KiB around each, so that an index of 100 MB
// would soon count as memory as a whole.
const letGoAfter = 32

// lookup finds an object's PUT.
func (v *view) lookup(id [32]byte) (p place, ok bool, err error) {
	if p, ok := v.overlay[id]; ok {
		return p, p.segment != bucketTombstone, nil
	}
	if v.index == nil {
		return place{}, false, nil
	}
	if fault := OnFault(func() { p, ok = v.index.lookup(id) }); fault != nil {
		return place{}, false, fault
	}
	if v.lookups.Add(1)%letGoAfter == 0 && v.mapped != nil {
		letGo(v.mapped)
	}
	return p, ok, nil
}

func (v *view) close() {
	if v.mapped != nil {
		_ = unix.Munmap(v.mapped)
		v.file.Close()
		v.file, v.mapped, v.index = nil, nil, nil
	}
}

// currentTransaction looks at the repository's file names only, and at the
// last segments' ends. newest is the last segment, committed or not.
func currentTransaction(ctx context.Context, dir string, perDir int) (tx transaction, newest int64, err error) {
	tx, newest = transaction{noSegment, noSegment}, noSegment
	indexes, err := numbered(ctx, dir, "index.")
	if err != nil {
		return tx, newest, err
	}
	for _, n := range indexes {
		if st, err := os.Stat(filepath.Join(dir, fmt.Sprint("index.", n))); err == nil && st.Size() > 0 {
			tx.index = n
			break
		}
	}
	dirs, err := numbered(ctx, filepath.Join(dir, "data"), "")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tx, newest, err
	}
	for _, d := range dirs {
		nums, err := segmentsIn(ctx, dir, perDir, d)
		if err != nil {
			return tx, newest, err
		}
		for _, n := range nums {
			newest = max(newest, n)
			ok, err := segmentCommitted(ctx, segmentPath(dir, perDir, n))
			if err != nil {
				return tx, newest, err
			}
			if ok {
				tx.committed = n
				return tx, newest, nil
			}
		}
	}
	return tx, newest, nil
}

func segmentCommitted(ctx context.Context, path string) (bool, error) {
	f, size, err := openRegular(path)
	if errors.Is(err, errNotRegular) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return isCommitted(ctx, f, size)
}

// fullCheckLimit is the size in bytes up to which an index file's digest is
// checked when it is opened. A larger one is checked when it misled a read:
// every object is verified anyhow.
const fullCheckLimit = 64 << 20

// openView opens the view of a transaction. Nothing is written; what the
// index file lacks, or all when there is no good one, is replayed in memory.
//
// An index file that an earlier view has checked is not checked again; there may
// be none.
//
// A writer keeps a ledger, which is to be empty, and reads all where it lacks
// what the ledger needs.
func openView(ctx context.Context, dir string, perDir int, tx transaction, check bool, earlier *view, l *ledger, log *slog.Logger) (*view, error) {
	v := &view{transaction: tx, damaged: noSegment, ledger: l}
	from := int64(noSegment)
	if tx.index != noSegment && tx.index <= tx.committed {
		err := v.openIndex(dir, check, earlier)
		if err == nil && l != nil {
			if err = l.load(dir, tx.index); err != nil {
				v.close()
			}
		}
		if err == nil {
			from = tx.index
		} else if errors.Is(err, fs.ErrNotExist) && l == nil {
			return nil, err // a commit came in between
		} else {
			log.Warn("repository index is not usable, reading the segments instead", "index", tx.index, "error", err)
		}
	} else if tx.index > tx.committed {
		log.Warn("repository index is newer than the last commit that can be read; what was committed since is missing", "index", tx.index, "commit", tx.committed)
	}
	if v.index == nil {
		v.checked = true
	}
	if err := v.replay(ctx, dir, perDir, from, log); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *view) openIndex(dir string, check bool, earlier *view) error {
	name := fmt.Sprint("index.", v.transaction.index)
	f, data, err := mapFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	var x *diskIndex
	st, err := f.Stat()
	if err == nil {
		fault := OnFault(func() {
			if v.checked = earlier.vouchesFor(st); v.checked {
				x, err = parseIndex(data)
			} else {
				x, err = v.checkIndex(dir, name, data, check)
			}
		})
		err = errors.Join(err, fault)
	}
	if err != nil {
		_ = unix.Munmap(data)
		f.Close()
		return err
	}
	v.file, v.stat, v.mapped, v.index = f, st, data, x
	return nil
}

// vouchesFor tells whether an index file is the one that v has checked. v may be
// nil.
func (v *view) vouchesFor(st fs.FileInfo) bool {
	return v != nil && v.checked && v.stat != nil && os.SameFile(v.stat, st) &&
		v.stat.Size() == st.Size() && v.stat.ModTime().Equal(st.ModTime())
}

// checkIndex checks an index file, with its digests if there are any.
func (v *view) checkIndex(dir, name string, data []byte, check bool) (*diskIndex, error) {
	x, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	digests, err := readIntegrity(filepath.Join(dir, fmt.Sprint("integrity.", v.transaction.index)), "index")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // borg 1.0 wrote none
		return nil, err
	}
	if !check && len(data) > fullCheckLimit {
		delete(digests, "final")
	} else {
		v.checked = true
	}
	if len(digests) > 0 {
		err = checkIndex(name, data, digests, letGo)
	} else {
		err = nil
	}
	return x, err
}

// replay applies the entries of the committed segments after the given one.
func (v *view) replay(ctx context.Context, dir string, perDir int, after int64, log *slog.Logger) error {
	if after >= v.committed {
		return nil
	}
	segments, err := segmentsAbove(ctx, dir, perDir, after, v.committed)
	if err != nil {
		return err
	}
	log.Info("replaying segments", "after", after, "count", len(segments))
	v.overlay = map[[32]byte]place{}
	for _, n := range segments {
		if err := v.replaySegment(ctx, dir, perDir, uint32(n)); err != nil {
			if ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fault.ErrUnsupported) {
				return err
			}
			// One bad segment must not cost the others.
			log.Warn("segment is damaged, the rest of it is lost", "segment", n, "error", err)
			v.damaged = n
		}
	}
	return nil
}

func (v *view) replaySegment(ctx context.Context, dir string, perDir int, n uint32) error {
	f, size, err := openRegular(segmentPath(dir, perDir, int64(n)))
	if err != nil {
		return err
	}
	defer f.Close()
	if size == 0 { // an emptied segment is a deleted one
		return nil
	}
	v.tail += size
	v.tails++
	if v.ledger != nil {
		v.ledger.segments[n] = 0
	}
	err = walkSegment(f, size, func(off int64, e entry) error {
		if v.ledger != nil {
			if err := v.account(dir, perDir, n, e); err != nil {
				return err
			}
		}
		switch e.tag {
		case tagPut:
			v.overlay[e.id] = place{n, uint32(off)}
		case tagDelete:
			if v.index == nil {
				delete(v.overlay, e.id)
			} else {
				v.overlay[e.id] = place{segment: bucketTombstone}
			}
		}
		return ctx.Err()
	})
	if v.ledger != nil && v.ledger.segments[n] == 0 {
		v.ledger.compact[n] = size
	}
	return err
}

// account notes an entry of segment n, before it shows, as Borg does when it
// replays.
func (v *view) account(dir string, perDir int, n uint32, e entry) error {
	if e.tag == tagCommit {
		return nil
	}
	old, ok, err := v.lookup(e.id)
	if err != nil {
		return err
	}
	if ok {
		size := e.size // of a PUT that takes another's place, the new one's serves
		if e.tag == tagDelete {
			size, err = putSize(segmentPath(dir, perDir, int64(old.segment)), old, e.id)
			if errors.Is(err, fs.ErrNotExist) { // compacted since
				return nil
			}
			if err != nil {
				return err
			}
			if err := v.ledger.noteDeleted(e.id, old.segment); err != nil {
				return err
			}
		}
		v.ledger.supersede(old.segment, int64(size))
	}
	if e.tag == tagPut {
		v.ledger.put(n, int64(e.size))
	}
	return nil
}

// putSize reads the size of a whole PUT from its segment.
func putSize(path string, p place, id [32]byte) (uint32, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return readPutSize(f, p, id)
}
