package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// ledger is what the file hints.N says, for compaction and the quota: how many
// live objects each segment holds, how many bytes of it could be freed, and how
// many bytes all PUTs take.
type ledger struct {
	segments map[uint32]int64
	compact  map[uint32]int64
	quotaUse int64
	// shadow is the packed map from deleted ids to segments that hold them, a part
	// of mapped; deleted is it unpacked, once that was needed.
	shadow  []byte
	deleted *shadowIndex
	mapped  []byte
}

func newLedger() *ledger {
	return &ledger{segments: map[uint32]int64{}, compact: map[uint32]int64{}, shadow: emptyMap[:]}
}

// emptyMap is an empty map, packed.
var emptyMap = [1]byte{0x80}

// put notes a PUT of size bytes, header and all.
func (l *ledger) put(segment uint32, size int64) {
	l.segments[segment]++
	l.quotaUse += size
}

// supersede notes that a PUT of size bytes is not live any more.
func (l *ledger) supersede(segment uint32, size int64) {
	l.segments[segment]--
	l.compact[segment] += size
}

// shadows is the shadow index, to be looked into and changed.
func (l *ledger) shadows() (*shadowIndex, error) {
	if l.deleted != nil {
		return l.deleted, nil
	}
	s, err := newShadowIndex()
	if err != nil {
		return nil, err
	}
	if fault := OnFault(func() { err = s.unpack(l.shadow) }); fault != nil {
		err = fault
	}
	if err != nil {
		s.free()
		return nil, err
	}
	l.deleted = s
	return s, nil
}

// noteDeleted notes an object whose PUT in a segment a DELETE was written for.
func (l *ledger) noteDeleted(id [32]byte, segment uint32) error {
	s, err := l.shadows()
	if err != nil {
		return err
	}
	return s.add(id, segment)
}

// load reads the file of transaction n, which must match its digest.
func (l *ledger) load(dir string, n int64) error {
	name := fmt.Sprint("hints.", n)
	f, data, err := mapFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	f.Close() // the map stays
	if fault := OnFault(func() { err = l.parse(dir, name, n, data) }); fault != nil {
		err = fault
	}
	if err != nil {
		_ = unix.Munmap(data)
		*l = *newLedger()
		return err
	}
	l.mapped = data
	return nil
}

func (l *ledger) close() {
	l.deleted.free()
	l.deleted = nil
	if l.mapped != nil {
		_ = unix.Munmap(l.mapped)
		l.mapped, l.shadow = nil, nil
	}
}

func (l *ledger) parse(dir, name string, n int64, data []byte) error {
	digests, err := readIntegrity(filepath.Join(dir, fmt.Sprint("integrity.", n)), "hints")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // borg 1.0 wrote none
		return err
	}
	if want, ok := digests["final"]; ok {
		h := newDigest(name)
		h.write(data)
		if h.part("final") != want {
			return fmt.Errorf("digest of %s is wrong", name)
		}
	}
	return l.unpack(data)
}

// unpack reads the content of a file of version 2. It takes at most 64 bytes for
// each of data.
func (l *ledger) unpack(data []byte) error {
	r := msgpack.NewReader(data)
	version := int64(0)
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "version":
			version, err = r.Int()
		case "segments":
			err = readCounts(r, l.segments)
		case "compact":
			err = readCounts(r, l.compact)
		case "storage_quota_use":
			l.quotaUse, err = r.Int()
		case "shadow_index":
			start := r.Pos()
			if r.Peek() != msgpack.Map {
				return errors.New("shadow_index is no map")
			}
			err = r.Skip()
			l.shadow = data[start:r.Pos()]
		default:
			err = r.Skip()
		}
		return err
	})
	if err == nil && version != 2 {
		err = fmt.Errorf("hints of version %d", version)
	}
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes after the hints", r.Len())
	}
	return err
}

// readCounts reads a map from segments to numbers.
func readCounts(r *msgpack.Reader, into map[uint32]int64) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	for range n {
		segment, err := r.Int()
		if err != nil {
			return err
		}
		if segment < 0 || segment >= bucketTombstone {
			return fmt.Errorf("segment %d", segment)
		}
		if into[uint32(segment)], err = r.Int(); err != nil {
			return err
		}
	}
	return nil
}

// packed is the reverse of unpack, in two pieces.
func (l *ledger) packed() [2][]byte {
	shadow := l.shadow
	if l.deleted != nil {
		shadow = l.deleted.pack()
	}
	return [2][]byte{l.pack(), shadow}
}

// pack gives all but the shadow index, which is to follow.
func (l *ledger) pack() []byte {
	b := msgpack.AppendMap(nil, 5)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "version"), 2)
	b = appendCounts(msgpack.AppendBytes(b, "segments"), l.segments)
	b = appendCounts(msgpack.AppendBytes(b, "compact"), l.compact)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "storage_quota_use"), l.quotaUse)
	return msgpack.AppendBytes(b, "shadow_index")
}

func appendCounts(b []byte, counts map[uint32]int64) []byte {
	b = msgpack.AppendMap(b, len(counts))
	for _, segment := range slices.Sorted(maps.Keys(counts)) {
		b = msgpack.AppendInt(msgpack.AppendInt(b, int64(segment)), counts[segment])
	}
	return b
}
