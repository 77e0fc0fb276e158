package borgio

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// diskTarget writes to a local repository in the plainest way that borg
// understands, without a lock: what the content of objects is tested with.
type diskTarget struct {
	dir    string
	repo   *Repository // that reads; nil: there is nothing to read yet
	ids    map[ID]uint32
	own    map[ID]bool // put in this transaction
	next   int         // segment
	file   *os.File
	size   int
	files  []string // of this transaction
	puts   int
	gets   int
	loads  int
	shy    bool  // does not know other ids until it has loaded them, like a remote
	broken error // of put
	drop   bool  // objects are lost: for benchmarks
}

// segmentMost is where a new segment is begun.
const segmentMost = 64 << 20

// newDiskTarget reads which objects there are.
func newDiskTarget(dir string, repo *Repository) (*diskTarget, error) {
	t := &diskTarget{dir: dir, repo: repo, ids: map[ID]uint32{}, own: map[ID]bool{}}
	for n := range 100_000 {
		b, err := os.ReadFile(t.path(n))
		if errors.Is(err, fs.ErrNotExist) {
			if n > t.next+1000 {
				break
			}
			continue
		} else if err != nil {
			return nil, err
		}
		t.next = n + 1
		for b = b[8:]; len(b) > 0; {
			size := binary.LittleEndian.Uint32(b[4:])
			switch b[8] {
			case 0:
				t.ids[ID(b[9:41])] = size - 41
			case 1:
				delete(t.ids, ID(b[9:41]))
			}
			b = b[size:]
		}
	}
	return t, nil
}

func (t *diskTarget) path(n int) string {
	return filepath.Join(t.dir, "data", strconv.Itoa(n/1000), strconv.Itoa(n))
}

// append adds an entry to the segment.
func (t *diskTarget) append(tag byte, id, data []byte) error {
	if t.file == nil {
		if err := os.MkdirAll(filepath.Dir(t.path(t.next)), 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(t.path(t.next), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		t.file, t.size, t.files = f, 8, append(t.files, f.Name())
		t.next++
		if _, err := f.WriteString("BORG_SEG"); err != nil {
			return err
		}
	}
	e := binary.LittleEndian.AppendUint32(make([]byte, 4, 41+len(data)), uint32(9+len(id)+len(data)))
	e = append(append(append(e, tag), id...), data...)
	binary.LittleEndian.PutUint32(e, crc32.ChecksumIEEE(e[4:]))
	t.size += len(e)
	_, err := t.file.Write(e)
	return err
}

func (t *diskTarget) cut() error {
	if t.file == nil {
		return nil
	}
	f := t.file
	t.file = nil
	return f.Close()
}

func (t *diskTarget) has(id ID) (there, known bool) {
	_, there = t.ids[id]
	known = t.own[id] || !t.shy
	return there && known, known
}

func (t *diskTarget) loadIDs(context.Context) error {
	t.shy = false
	t.loads++
	return nil
}

func (t *diskTarget) storedSize(id ID) uint32 { return t.ids[id] }

func (t *diskTarget) get(ctx context.Context, id ID, hint int) (*buffer.Buffer, error) {
	t.gets++
	return t.repo.store.get(ctx, id, hint)
}

func (t *diskTarget) put(_ context.Context, id ID, stored []byte) error {
	if t.broken != nil {
		return t.broken
	}
	t.puts++
	if t.drop {
		return nil
	}
	if t.size > segmentMost || id == manifestID {
		if err := t.cut(); err != nil {
			return err
		}
	}
	t.ids[id], t.own[id] = uint32(len(stored)), true
	return t.append(0, id[:], stored)
}

func (t *diskTarget) delete(_ context.Context, id ID) (int64, error) {
	size, ok := t.ids[id]
	if !ok {
		return 0, nil
	}
	delete(t.ids, id)
	return int64(size), t.append(1, id[:], nil)
}

func (t *diskTarget) compact(context.Context, float64) (int64, error) {
	return 0, errors.ErrUnsupported
}

func (t *diskTarget) freeNonce(context.Context) (uint64, bool, error) {
	b, err := os.ReadFile(filepath.Join(t.dir, "nonce"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	n, err := keys.ParseNonce(string(b))
	return n, true, err
}

func (t *diskTarget) reserveNonces(ctx context.Context, next, start uint64) error {
	if noted, _, err := t.freeNonce(ctx); err != nil || noted != start {
		return fmt.Errorf("%d is noted, not %d: %w", noted, start, err)
	}
	return os.WriteFile(filepath.Join(t.dir, "nonce"), []byte(keys.FormatNonce(next)), 0o600)
}

func (t *diskTarget) saveKey(_ context.Context, text string) error {
	f, err := os.OpenFile(filepath.Join(t.dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("key = " + strings.ReplaceAll(text, "\n", "\n\t") + "\n")
	return err
}

func (t *diskTarget) flush(context.Context) error { return nil }

func (t *diskTarget) commit(context.Context) error {
	if err := t.cut(); err != nil {
		return err
	}
	if err := t.append(2, nil, nil); err != nil {
		return err
	}
	t.files = nil
	return t.cut()
}

func (t *diskTarget) rollback() error {
	err := t.cut()
	for _, f := range t.files {
		err = errors.Join(err, os.Remove(f))
	}
	t.files = nil
	return err
}

// BeginOnDisk is Begin for a repository on this machine that nobody else uses.
func (r *Repository) BeginOnDisk(ctx context.Context, o WriteOptions) (*Transaction, error) {
	t, _, err := r.beginOnDisk(ctx, o)
	return t, err
}

func (r *Repository) beginOnDisk(ctx context.Context, o WriteOptions) (*Transaction, *diskTarget, error) {
	if _, err := r.store.refresh(ctx); err != nil {
		return nil, nil, err
	}
	comp, err := newCompressor(o.Compression)
	if err != nil {
		return nil, nil, err
	}
	target, err := newDiskTarget(r.loc.Path, r)
	if err != nil {
		return nil, nil, err
	}
	t, err := r.begin(ctx, target, comp)
	return t, target, err
}

// ObjectsOnDisk lists the objects of a local repository.
func ObjectsOnDisk(dir string) (map[ID]bool, error) {
	t, err := newDiskTarget(dir, nil)
	if err != nil {
		return nil, err
	}
	all := map[ID]bool{}
	for id := range t.ids {
		all[id] = true
	}
	return all, nil
}

// CreateOnDisk is Create on this machine.
func CreateOnDisk(ctx context.Context, dir, mode string, opts CreateOptions) (ID, error) {
	return create(ctx, Location{Path: dir}, mode, opts, func(context.Context, Location, CreateOptions) (target, ID, error) {
		var id ID
		_, _ = rand.Read(id[:])
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			return nil, id, err
		}
		config := "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 0\n" +
			"storage_quota = 0\nadditional_free_space = 0\nid = " + id.String() + "\n"
		err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "README"), []byte("This is a Borg Backup repository.\n"), 0o600)
		}
		if err != nil {
			return nil, id, err
		}
		t, err := newDiskTarget(dir, nil)
		return t, id, err
	})
}

var _ target = (*diskTarget)(nil)

// stored gives what a repository holds of an object.
func (t *diskTarget) stored(ctx context.Context, id ID) ([]byte, error) {
	b, err := t.repo.store.get(ctx, id, 0)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	return bytes.Clone(b.Data), nil
}
