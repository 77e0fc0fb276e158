package borgio

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/disk"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// Every parser of what a repository or server says must refuse nonsense
// without panic and without memory beyond its stated bound. The seeds are real.

// frozenObjects gives the plaintexts of what a frozen repository stores.
func frozenObjects(f *testing.F) (manifest, archive []byte, items [][]byte, stored [][]byte) {
	r, err := Open(f.Context(), Location{Path: "testdata/mode-none"}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	plain := func(id ID) []byte {
		raw, err := r.store.get(f.Context(), id, 0)
		if err != nil {
			f.Fatal(err)
		}
		stored = append(stored, bytes.Clone(raw.Data))
		b, err := r.object(f.Context(), id, compress.UnknownSize, maxMetadataSize)
		if err != nil {
			f.Fatal(err)
		}
		return b.Data
	}
	m, err := r.Manifest(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	a, err := r.Archive(f.Context(), m.Archives[0].ID)
	if err != nil {
		f.Fatal(err)
	}
	manifest, archive = plain(manifestID), plain(a.ID)
	for _, id := range a.Items {
		items = append(items, plain(id))
	}
	return manifest, archive, items, stored
}

func FuzzManifest(f *testing.F) {
	manifest, archive, _, _ := frozenObjects(f)
	f.Add(manifest)
	f.Add(archive)
	k, err := keys.New(keys.TypePlain, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, auth, err := parseManifest(in); err == nil && auth.known {
			_ = k.CheckTAM(in, auth.at, auth.salt, "manifest")
		}
		if a, auth, err := parseArchive(ID{}, in); err == nil {
			if 32*len(a.Items) > len(in) {
				t.Fatal("more items than bytes")
			}
			if auth.known {
				_ = k.CheckTAM(in, auth.at, auth.salt, "archive")
			}
		}
	})
}

func FuzzItems(f *testing.F) {
	_, _, items, _ := frozenObjects(f)
	for _, b := range items {
		f.Add(b, 100)
	}
	pool := &buffer.Pool{}
	f.Cleanup(pool.Close)
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		// However the stream is cut into pieces, the same items come out.
		read := func(pieces ...[]byte) (paths []string, err error) {
			s := newTestScanner(pool, nil, pieces...)
			defer s.Close()
			for s.Next() {
				for s.NextItem() {
					if it := s.Item(); it != nil {
						if !safePath(it.Path) || strings.Contains("/"+it.Path+"/", "/../") {
							t.Fatalf("path %q", it.Path)
						}
						paths = append(paths, it.Path)
					}
				}
			}
			return paths, s.Err()
		}
		if cut < 0 || cut > len(in) {
			cut = len(in) / 2
		}
		whole, err := read(in)
		pieces, err2 := read(in[:cut], in[cut:])
		if strings.Join(whole, "\n") != strings.Join(pieces, "\n") || (err == nil) != (err2 == nil) {
			t.Fatalf("%q, %v in one piece; %q, %v in two", whole, err, pieces, err2)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	pool := &buffer.Pool{}
	f.Cleanup(pool.Close)
	for _, c := range []string{"none", "lz4", "zstd-3", "zlib-6", "lzma-6", "obfuscate-110-lz4"} {
		s, err := disk.Open(f.Context(), "testdata/comp-"+c, pool, slog.New(slog.DiscardHandler))
		if err != nil {
			f.Fatal(err)
		}
		b, err := s.Get(f.Context(), manifestID, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(b.Data[1:]), 100)
		b.Release()
		s.Close()
	}
	d, err := compress.New(pool)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(d.Close)
	const limit = 1 << 20
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		if b, err := d.Decompress(in, compress.UnknownSize, limit); err == nil {
			if len(b.Data) > limit {
				t.Fatalf("%d bytes", len(b.Data))
			}
			again, err := d.Decompress(in, len(b.Data), limit)
			if err != nil || !bytes.Equal(again.Data, b.Data) {
				t.Fatalf("with its size known: %v", err)
			}
			again.Release()
			b.Release()
		}
		if size = max(size, 0); size <= limit {
			if b, err := d.Decompress(in, size, limit); err == nil {
				if len(b.Data) != size {
					t.Fatalf("%d bytes where %d are due", len(b.Data), size)
				}
				b.Release()
			}
		}
	})
}
