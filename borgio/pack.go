package borgio

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/borgio/internal/chunker"
	"github.com/s4-storage/s4/borgio/internal/keys"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// rawField is a field of a packed map with its value as it is packed.
type rawField struct {
	name  string
	value []byte
}

// rawFields takes a packed map apart; the values are parts of it.
func rawFields(packed []byte) ([]rawField, error) {
	var fields []rawField
	r := msgpack.NewReader(packed)
	err := r.Fields(func(name []byte) error {
		start := r.Pos()
		err := r.Skip()
		if err == nil {
			fields = append(fields, rawField{string(name), packed[start:r.Pos()]})
		}
		return err
	})
	return fields, err
}

func appendFields(b []byte, fields []rawField) []byte {
	b = msgpack.AppendMap(b, len(fields))
	for _, f := range fields {
		b = append(msgpack.AppendBytes(b, f.name), f.value...)
	}
	return b
}

func sortFields(fields []rawField) {
	slices.SortFunc(fields, func(a, b rawField) int { return strings.Compare(a.name, b.name) })
}

// setField puts a value in the place of the one of that name, or adds it.
func setField(fields []rawField, name string, value []byte) []rawField {
	for i := range fields {
		if fields[i].name == name {
			fields[i].value = value
			return fields
		}
	}
	return append(fields, rawField{name, value})
}

// packSigned packs metadata of a kind, "manifest" or "archive", with its
// authentication.
func packSigned(key *keys.Key, fields []rawField, kind string) ([]byte, error) {
	salt := make([]byte, keys.TAMSize)
	_, _ = rand.Read(salt) // never fails
	tam := msgpack.AppendMap(nil, 3)
	tam = msgpack.AppendBytes(msgpack.AppendBytes(tam, "hmac"), make([]byte, keys.TAMSize))
	code := len(tam) - keys.TAMSize
	tam = msgpack.AppendBytes(msgpack.AppendBytes(tam, "salt"), salt)
	tam = msgpack.AppendBytes(msgpack.AppendBytes(tam, "type"), "HKDF_HMAC_SHA512")
	fields = setField(slices.Clone(fields), "tam", tam)
	sortFields(fields)
	packed := msgpack.AppendMap(nil, len(fields))
	for _, f := range fields {
		packed = msgpack.AppendBytes(packed, f.name)
		if f.name == "tam" {
			code += len(packed)
		}
		packed = append(packed, f.value...)
	}
	return packed, key.SignTAM(packed, code, salt, kind)
}

// borgTime is how Borg writes times: UTC without a zone.
const borgTime = "2006-01-02T15:04:05.000000"

func appendTime(b []byte, t time.Time) []byte {
	return msgpack.AppendBytes(b, t.UTC().Format(borgTime))
}

// itemKeys are the names that items of Borg 1.2 may have.
var itemKeys = []string{
	"acl_access", "acl_default", "acl_extended", "acl_nfs4", "atime", "birthtime", "bsdflags", "chunks",
	"chunks_healthy", "ctime", "gid", "group", "hardlink_master", "mode", "mtime", "part", "path", "rdev",
	"size", "source", "uid", "user", "xattrs",
}

// manifestDraft is the manifest that a transaction is going to write. What it
// does not know of the one that it found, it keeps as it is.
type manifestDraft struct {
	Manifest
	fields   []rawField
	config   []rawField
	archives []rawField
}

// newDraft is the first manifest of a repository.
func newDraft() *manifestDraft {
	keys := msgpack.AppendArray(nil, len(itemKeys))
	for _, k := range itemKeys {
		keys = msgpack.AppendBytes(keys, k)
	}
	return &manifestDraft{Manifest: Manifest{Version: 1}, fields: []rawField{
		{"item_keys", keys}, {"version", msgpack.AppendInt(nil, 1)},
	}}
}

// draftOf begins with the manifest m, which was read from packed; packed is kept.
// Errors: [ErrUnsupported] where a feature is needed for writing: none is defined.
func draftOf(m *Manifest, packed []byte) (*manifestDraft, error) {
	d := &manifestDraft{Manifest: *m}
	d.Archives = slices.Clone(m.Archives)
	var err error
	if d.fields, err = rawFields(packed); err != nil {
		return nil, err
	}
	for _, f := range d.fields {
		switch f.name {
		case "archives":
			d.archives, err = rawFields(f.value)
		case "config":
			d.config, err = rawFields(f.value)
			for _, operation := range []string{"write", "check", "delete"} {
				if err == nil {
					err = mandatory(msgpack.NewReader(f.value), operation)
				}
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// add names a new archive.
func (d *manifestDraft) add(ref ArchiveRef) {
	entry := msgpack.AppendMap(nil, 2)
	entry = msgpack.AppendBytes(msgpack.AppendBytes(entry, "id"), ref.ID[:])
	entry = appendTime(msgpack.AppendBytes(entry, "time"), ref.Time)
	d.archives = append(d.archives, rawField{ref.Name, entry})
	d.Archives = append(d.Archives, ref)
	slices.SortFunc(d.Archives, compareRefs)
}

// pack gives the manifest's plaintext. Its timestamp is the present, or just
// behind the last one where the clock is: whoever met the last one must not take
// this one for an older.
func (d *manifestDraft) pack(key *keys.Key, now time.Time) ([]byte, error) {
	now = now.UTC().Truncate(time.Microsecond)
	if !now.After(d.Timestamp) {
		now = d.Timestamp.Truncate(time.Microsecond).Add(time.Microsecond)
	}
	if key.TAMRequired {
		d.config = setField(d.config, "tam_required", msgpack.AppendBool(nil, true))
	}
	sortFields(d.archives)
	sortFields(d.config)
	fields := setField(slices.Clone(d.fields), "archives", appendFields(nil, d.archives))
	fields = setField(fields, "config", appendFields(nil, d.config))
	fields = setField(fields, "timestamp", appendTime(nil, now))
	packed, err := packSigned(key, fields, "manifest")
	if err == nil && len(packed) > maxObjectSize-headroom {
		err = fmt.Errorf("the list of %d archives is too long for Borg", len(d.archives))
	}
	d.Timestamp = now
	return packed, err
}

// headroom is more than what compression and encryption add to an object.
const headroom = 1 << 10

// ArchiveInfo is what an archive says of itself. What is text is raw bytes.
type ArchiveInfo struct {
	Name     string // at most 255 bytes, unique in the repository
	Comment  string
	Hostname string
	Username string
	Cmdline  []string
	Time     time.Time // begin; the zero time is the present
	TimeEnd  time.Time // the zero time is the present, too
}

// totals are sums over items.
type totals struct {
	files  int64 // that have content of their own
	size   int64 // of their content, in bytes
	stored int64 // of their chunks' objects, in bytes, as far as recorded
}

func (s *totals) add(o totals) {
	s.files += o.files
	s.size += o.size
	s.stored += o.stored
}

func totalsOf(it *Item) (s totals) {
	if it.hasContent() {
		s.files = 1
	}
	for i := range it.Chunks {
		s.size += int64(it.Chunks[i].Size)
		s.stored += int64(it.Chunks[i].Stored)
	}
	return s
}

// pack gives the archive's plaintext.
func (a *ArchiveInfo) pack(key *keys.Key, items []ID, sum totals) ([]byte, error) {
	ids := msgpack.AppendArray(nil, len(items))
	for i := range items {
		ids = msgpack.AppendBytes(ids, items[i][:])
	}
	words := msgpack.AppendArray(nil, len(a.Cmdline))
	for _, w := range a.Cmdline {
		words = msgpack.AppendBytes(words, w)
	}
	p := chunker.Files
	params := msgpack.AppendBytes(msgpack.AppendArray(nil, 5), "buzhash")
	for _, n := range []int{p.MinExp, p.MaxExp, p.MaskBits, p.Window} {
		params = msgpack.AppendInt(params, int64(n))
	}
	number := func(v int64) []byte { return msgpack.AppendInt(nil, v) }
	text := func(s string) []byte { return msgpack.AppendBytes(nil, s) }
	packed, err := packSigned(key, []rawField{
		{"chunker_params", params}, {"cmdline", words}, {"comment", text(a.Comment)},
		{"csize", number(sum.stored)}, {"csize_parts", number(0)}, {"hostname", text(a.Hostname)},
		{"items", ids}, {"name", text(a.Name)}, {"nfiles", number(sum.files)}, {"nfiles_parts", number(0)},
		{"size", number(sum.size)}, {"size_parts", number(0)},
		{"time", appendTime(nil, a.Time)}, {"time_end", appendTime(nil, a.TimeEnd)},
		{"username", text(a.Username)}, {"version", number(1)},
	}, "archive")
	if err == nil && len(packed) > maxObjectSize-headroom {
		err = fmt.Errorf("a list of %d metadata objects is too long for Borg", len(items))
	}
	return packed, err
}
