package borgio

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/heap"
	"github.com/s4-storage/s4/borgio/internal/keys"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Every parser of what a repository or server says must refuse nonsense
// without panic and without memory beyond its stated bound. The seeds are what
// borg itself wrote into the frozen repositories.

// plaintexts is what a repository's objects hold.
type plaintexts struct {
	manifest        []byte
	archives, items [][]byte
}

func frozenPlaintexts(tb testing.TB, name string) (p plaintexts) {
	tb.Helper()
	r, err := Open(tb.Context(), Location{Path: "testdata/" + name}, Options{
		Environ: func(name string) (string, bool) { return "s4-test", name == "BORG_PASSPHRASE" },
	})
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	plain := func(id ID) []byte {
		b, err := r.object(tb.Context(), id, compress.UnknownSize, maxMetadataSize)
		if err != nil {
			tb.Fatal(err)
		}
		defer b.Release()
		return bytes.Clone(b.Data)
	}
	m, err := r.Manifest(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	p.manifest = plain(manifestID)
	for _, ref := range m.Archives {
		a, err := r.Archive(tb.Context(), ref.ID)
		if err != nil {
			tb.Fatal(err)
		}
		p.archives = append(p.archives, plain(a.ID))
		for _, id := range a.Items {
			p.items = append(p.items, plain(id))
		}
	}
	return p
}

func plainKey(tb testing.TB) *keys.Key {
	tb.Helper()
	k, err := keys.New(keys.TypePlain, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// Bounds of the parsers, for n bytes; see their comments.
func manifestBound(n int) int { return 16*n + 1<<20 }
func archiveBound(n int) int  { return 4*n + 4<<20 }
func itemBound(n int) int     { return 4*n + 16<<20 }

func packTime(t time.Time) string { return t.Format("2006-01-02T15:04:05.999999999") }

// packManifest and packArchive are the parsers' opposites.
func packManifest(m *Manifest) []byte {
	b := msgpack.AppendMap(nil, 3)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "version"), int64(m.Version))
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "timestamp"), packTime(m.Timestamp))
	b = msgpack.AppendMap(msgpack.AppendBytes(b, "archives"), len(m.Archives))
	for _, a := range m.Archives {
		b = msgpack.AppendMap(msgpack.AppendBytes(b, a.Name), 2)
		b = msgpack.AppendBytes(msgpack.AppendBytes(b, "id"), a.ID[:])
		b = msgpack.AppendBytes(msgpack.AppendBytes(b, "time"), packTime(a.Time))
	}
	return b
}

func packArchive(a *Archive) []byte {
	b := msgpack.AppendMap(nil, 11)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "version"), 1)
	for _, f := range [][2]string{
		{"name", a.Name}, {"comment", a.Comment}, {"hostname", a.Hostname}, {"username", a.Username},
		{"time", packTime(a.Time)}, {"time_end", packTime(a.TimeEnd)},
	} {
		b = msgpack.AppendBytes(msgpack.AppendBytes(b, f[0]), f[1])
	}
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "nfiles"), a.NFiles)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "size"), a.Size)
	b = msgpack.AppendArray(msgpack.AppendBytes(b, "cmdline"), len(a.Cmdline))
	for _, word := range a.Cmdline {
		b = msgpack.AppendBytes(b, word)
	}
	b = msgpack.AppendArray(msgpack.AppendBytes(b, "items"), len(a.Items))
	for _, id := range a.Items {
		b = msgpack.AppendBytes(b, id[:])
	}
	return b
}

// FuzzManifest: what is read of a manifest is read of it written again.
func FuzzManifest(f *testing.F) {
	for _, name := range []string{"mode-none", "mode-repokey", "mode-authenticated-blake2"} {
		f.Add(frozenPlaintexts(f, name).manifest)
	}
	f.Add([]byte("\x82\xa7version\x01\xa6config\x81\xadfeature_flags\x81\xa4read\x81\xa9mandatory\x91\xa3new"))
	k := plainKey(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var m *Manifest
		var auth tam
		var err error
		if over := heap.Over(manifestBound(len(in)), func() { m, auth, err = parseManifest(in) }); over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(in))
		}
		if err != nil {
			return
		}
		if auth.known {
			_ = k.CheckTAM(in, auth.at, auth.salt, "manifest")
		}
		for i, a := range m.Archives {
			if i > 0 && a.Time.Before(m.Archives[i-1].Time) {
				t.Fatal("archives are not by time")
			}
			if IsCheckpoint(a.Name) != IsCheckpoint(a.Name+".1") && !IsCheckpoint(a.Name+".1") {
				t.Fatalf("%q is a checkpoint, its second part is not", a.Name)
			}
		}
		again, _, err := parseManifest(packManifest(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v comes back as %+v, %v", m, again, err)
		}
	})
}

// FuzzArchive: what is read of an archive is read of it written again.
func FuzzArchive(f *testing.F) {
	for _, name := range []string{"mode-none", "mode-repokey", "mode-authenticated-blake2"} {
		for _, b := range frozenPlaintexts(f, name).archives {
			f.Add(b)
		}
	}
	k := plainKey(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var a *Archive
		var auth tam
		var err error
		if over := heap.Over(archiveBound(len(in)), func() { a, auth, err = parseArchive(ID{1}, in) }); over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(in))
		}
		if err != nil {
			return
		}
		if auth.known {
			_ = k.CheckTAM(in, auth.at, auth.salt, "archive")
		}
		if a.Cmdline == nil {
			a.Cmdline = []string{} // which is written
		}
		again, _, err := parseArchive(ID{1}, packArchive(a))
		if err != nil || !reflect.DeepEqual(again, a) {
			t.Fatalf("%+v comes back as %+v, %v", a, again, err)
		}
	})
}

// packWholeItem is the opposite of itemParser.
func packWholeItem(it *Item) []byte {
	var b []byte
	n := 0
	field := func(is bool, name string, value func([]byte) []byte) {
		if is {
			n++
			b = value(msgpack.AppendBytes(b, name))
		}
	}
	number := func(v int64) func([]byte) []byte {
		return func(b []byte) []byte { return msgpack.AppendInt(b, v) }
	}
	text := func(s string) func([]byte) []byte {
		return func(b []byte) []byte { return msgpack.AppendBytes(b, s) }
	}
	field(true, "path", text(it.Path))
	field(true, "mode", number(int64(it.Mode)))
	field(true, "uid", number(int64(it.UID)))
	field(true, "gid", number(int64(it.GID)))
	field(it.User != "", "user", text(it.User))
	field(it.Group != "", "group", text(it.Group))
	field(true, "size", number(it.Size))
	field(it.Rdev != 0, "rdev", number(int64(it.Rdev)))
	field(true, "mtime", number(it.Mtime))
	field(it.HasAtime, "atime", number(it.Atime))
	field(it.HasCtime, "ctime", number(it.Ctime))
	field(it.HasBirthtime, "birthtime", number(it.Birthtime))
	field(it.Source != "", "source", text(it.Source))
	field(it.HardlinkMaster, "hardlink_master", func(b []byte) []byte { return msgpack.AppendBool(b, true) })
	field(len(it.Chunks) > 0, "chunks", func(b []byte) []byte {
		b = msgpack.AppendArray(b, len(it.Chunks))
		for _, c := range it.Chunks {
			b = msgpack.AppendInt(msgpack.AppendBytes(msgpack.AppendArray(b, 3), c.ID[:]), int64(c.Size))
			b = msgpack.AppendInt(b, int64(c.Stored))
		}
		return b
	})
	field(len(it.Xattrs) > 0, "xattrs", func(b []byte) []byte {
		b = msgpack.AppendMap(b, len(it.Xattrs))
		for _, x := range it.Xattrs {
			b = msgpack.AppendBytes(b, x.Name)
			if x.Value == nil {
				b = msgpack.AppendNil(b)
			} else {
				b = msgpack.AppendBytes(b, x.Value)
			}
		}
		return b
	})
	field(it.ACLAccess != nil, "acl_access", text(string(it.ACLAccess)))
	field(it.ACLDefault != nil, "acl_default", text(string(it.ACLDefault)))
	field(it.BSDFlags != 0, "bsdflags", number(int64(it.BSDFlags)))
	field(it.Damaged, "chunks_healthy", func(b []byte) []byte { return msgpack.AppendArray(b, 0) })
	return append(msgpack.AppendMap(nil, n), b...)
}

// keep makes an item the caller's own.
func keep(it *Item) Item {
	own := *it
	own.Chunks, own.Xattrs = slices.Clone(it.Chunks), slices.Clone(it.Xattrs)
	if len(own.Chunks) == 0 {
		own.Chunks = nil
	}
	if len(own.Xattrs) == 0 {
		own.Xattrs = nil
	}
	return own
}

// FuzzItem: what is read of an item is read of it written again, and of the
// same memory after another one.
func FuzzItem(f *testing.F) {
	for _, b := range frozenPlaintexts(f, "mode-none").items {
		for r := msgpack.NewReader(b); r.Len() > 0; {
			start := r.Pos()
			if err := r.Skip(); err != nil {
				f.Fatal(err)
			}
			f.Add(b[start:r.Pos()])
		}
	}
	f.Add(packWholeItem(&Item{
		Path: "a/b", Mode: 0o100644, UID: 1, GID: 2, User: "ann", Group: "staff", Size: 3, Rdev: 5, Mtime: -1, HasAtime: true, Atime: 1,
		HasCtime: true, HasBirthtime: true, Source: "x", HardlinkMaster: true, Chunks: []Chunk{{ID{1}, 3, 7}, {ID{2}, 4, 0}},
		Xattrs: []Xattr{{"user.a", []byte("1")}, {"user.b", nil}}, ACLAccess: []byte("user::rwx"), ACLDefault: []byte{}, BSDFlags: 7, Damaged: true,
	}))
	f.Add([]byte("\x82\xa4path\xa1a\xa5mtime\xc4\x09\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	another := packItem("another", 1, 3)
	f.Fuzz(func(t *testing.T, in []byte) {
		var it Item
		var end int
		var err error
		over := heap.Over(itemBound(len(in)), func() {
			var p itemParser
			r := msgpack.NewReader(in)
			err = p.parse(r)
			it, end = p.item, r.Pos()
		})
		if over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(in))
		}
		if err != nil {
			return
		}
		it = keep(&it)
		skipped := msgpack.NewReader(in)
		if err := skipped.Skip(); err != nil || skipped.Pos() != end {
			t.Fatalf("an item of %d bytes is skipped to %d, %v", end, skipped.Pos(), err)
		}
		if it.Size < 0 || !slices.IsSortedFunc(it.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("%+v", it)
		}
		var p itemParser
		packed := packWholeItem(&it)
		for i, b := range [][]byte{packed, another, in, packed} {
			if err := p.parse(msgpack.NewReader(b)); err != nil {
				t.Fatalf("%+v is packed as %x: %v", it, b, err)
			}
			if got := keep(&p.item); i != 1 && !reflect.DeepEqual(sorted(got), sorted(it)) {
				t.Fatalf("%+v comes back as %+v", it, got)
			}
		}
	})
}

// sorted orders xattrs of equal names too, which nothing else does.
func sorted(it Item) Item {
	slices.SortFunc(it.Xattrs, func(a, b Xattr) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return bytes.Compare(a.Value, b.Value)
	})
	return it
}

// FuzzItems: however the stream is cut into pieces, the same items come out,
// and no path leads out of a directory.
func FuzzItems(f *testing.F) {
	for _, b := range frozenPlaintexts(f, "mode-none").items {
		f.Add(b, []byte{100, 1, 0, 2})
	}
	f.Add(bytes.Join([][]byte{packItem("a", 1, 3), packItem("../b", 1, 0), packItem("c", 1, 1)}, nil), []byte{1})
	pool := &buffer.Pool{}
	f.Cleanup(pool.Close)
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		read := func(pieces ...[]byte) (items []Item, err error) {
			s := newTestScanner(pool, nil, pieces...)
			defer s.Close()
			for s.Next() {
				for s.NextItem() {
					if it := s.Item(); it != nil {
						items = append(items, sorted(keep(it)))
					}
				}
			}
			return items, s.Err()
		}
		whole, err := read(in)
		for _, it := range whole {
			if !safePath(it.Path) || strings.Contains("/"+it.Path+"/", "/../") || strings.HasPrefix(it.Path, "/") {
				t.Fatalf("path %q", it.Path)
			}
		}
		var pieces [][]byte
		rest := in
		for _, n := range cuts {
			n := min(int(n), len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		inPieces, err2 := read(append(pieces, rest)...)
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(whole, inPieces) {
			t.Fatalf("%d items, %v in one piece; %d, %v in %d", len(whole), err, len(inPieces), err2, len(pieces)+1)
		}
	})
}

// FuzzLocation: a place that is written is read back, and nothing in it can be
// taken for an option of ssh.
func FuzzLocation(f *testing.F) {
	for _, s := range []string{
		"user@host:path/to/repo", "host:~/repo::archive", "ssh://user@host:2222/./repo", "ssh://[::1]:22/repo", "[fe80::1]:repo",
		"file:///repo::a", "/repo", "repo::x", "a:b/c", "ssh://-oProxyCommand=x/y", "ssh://h/~u/r", "u@-h:x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var l Location
		var err error
		if over := heap.Over(16*len(s)+64<<10, func() { l, err = ParseLocation(s) }); over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(s))
		}
		if err != nil {
			return
		}
		if strings.HasPrefix(l.Host, "-") || strings.HasPrefix(l.User, "-") || l.Path == "" || l.Port < 0 || l.Port > 65535 ||
			strings.ContainsAny(l.Host+l.User+l.Path, "\n\x00") || !l.IsRemote() && l.Path[0] != '/' {
			t.Fatalf("%q is %+v", s, l)
		}
		want := l
		want.Archive = ""
		if again, err := ParseLocation(l.String()); err != nil || again != want {
			t.Fatalf("%q is %+v, written %q, which is %+v (%v)", s, l, l.String(), again, err)
		}
	})
}
