package borgio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// memoryStore holds objects as they are stored.
type memoryStore map[ID][]byte

func (s memoryStore) get(_ context.Context, id ID, _ int) (*buffer.Buffer, error) {
	return buffer.Of(s[id], func() {}), nil
}
func (memoryStore) refresh(context.Context) (uint64, error) { return 1, nil }
func (memoryStore) loadKey(context.Context) (string, error) { return "", nil }
func (memoryStore) close() error                            { return nil }

// put stores a plaintext as lz4.
func (s memoryStore) put(t *testing.T, r *Repository, plain []byte) ID {
	t.Helper()
	packed := make([]byte, lz4.CompressBlockBound(len(plain)))
	n, err := lz4.CompressBlock(plain, packed, nil)
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	id := ID(r.key.ID(plain))
	s[id] = append([]byte{r.key.Type, 1, 0}, packed[:n]...)
	return id
}

// bombed is a repository whose objects the test puts there.
func bombed(t *testing.T) (*Repository, memoryStore) {
	t.Helper()
	r, err := Open(t.Context(), Location{Path: "testdata/mode-none"}, Options{Environ: func(string) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.close(); err != nil {
		t.Fatal(err)
	}
	s := memoryStore{}
	r.store = s
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, s
}

// peak runs fn and tells by how many bytes the process grew at most.
func peak(t *testing.T, fn func()) int {
	t.Helper()
	status := func(what string) int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), what)
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return n << 10
	}
	runtime.GC() // what others have left is not to be counted for fn
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Skip(err) // the peak cannot be set back
	}
	before := status("VmRSS:")
	fn()
	return status("VmHWM:") - before
}

// TestManyLargeObjects: objects of metadata may be long, but not all of those
// read ahead at once.
func TestManyLargeObjects(t *testing.T) {
	r, s := bombed(t)
	const objects, size = 20, 16 << 20
	a := &Archive{Name: "bombs"}
	for i := range objects {
		item := msgpack.AppendMap(nil, 2)
		item = msgpack.AppendBytes(msgpack.AppendBytes(item, "path"), strconv.Itoa(i))
		item = append(msgpack.AppendBytes(item, "x"), 0xdb, 0, 0, 0, 0)
		binary.BigEndian.PutUint32(item[len(item)-4:], size)
		a.Items = append(a.Items, s.put(t, r, append(item, make([]byte, size)...)))
	}
	n := 0
	grown := peak(t, func() {
		for it, err := range r.Items(t.Context(), a) {
			if err != nil {
				t.Fatal(err)
			}
			if it.Path != strconv.Itoa(n) {
				t.Fatalf("item %d is %q", n, it.Path)
			}
			n++
		}
	})
	if n != objects {
		t.Errorf("%d items of %d", n, objects)
	}
	// The one in use, the one being opened, the one that waits, what is ahead,
	// and what the pool keeps.
	if most := 3*size + aheadBytes + 16<<20; grown > most {
		t.Errorf("the process grew by %d bytes", grown)
	}
}

// TestBombs: an object that unpacks to more than it may is damage, whoever asks.
func TestBombs(t *testing.T) {
	r, s := bombed(t)
	bomb := append([]byte{r.key.Type, 1, 0, 0x1f, 'a', 1, 0}, bytes.Repeat([]byte{255}, 16<<20)...) // of 4 GB
	id := ID{1}
	s[id] = append(bomb, 0, 0x10, 'z')
	for name, ask := range map[string]func() error{
		"archive":  func() error { _, err := r.Archive(t.Context(), id); return err },
		"manifest": func() error { s[manifestID] = s[id]; _, err := r.readManifest(t.Context()); return err },
		"items": func() error {
			for _, err := range r.Items(t.Context(), &Archive{Items: []ID{id}}) {
				return err
			}
			return nil
		},
		"chunk": func() error { _, err := r.chunk(t.Context(), Chunk{ID: id, Size: 1000}); return err },
		"chunk of too much": func() error {
			_, err := r.chunk(t.Context(), Chunk{ID: id, Size: 1 << 31})
			return err
		},
	} {
		var err error
		grown := peak(t, func() { err = ask() })
		if !errors.Is(err, ErrIntegrity) || grown > 32<<20 {
			t.Errorf("%s: %v, and the process grew by %d bytes", name, err, grown)
		}
	}
}
