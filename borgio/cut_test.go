package borgio

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/disk"
)

// cutter gives the next objects in mapped files that are cut short at once.
type cutter struct {
	store
	t    *testing.T
	cuts int
}

func (c *cutter) get(ctx context.Context, id ID, hint int) (*buffer.Buffer, error) {
	b, err := c.store.get(ctx, id, hint)
	if err != nil || c.cuts == 0 {
		return b, err
	}
	defer b.Release()
	c.cuts--
	f, err := os.Create(c.t.TempDir() + "/cut")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(b.Data); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, len(b.Data), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return buffer.Of(m, func() { _ = unix.Munmap(m) }), f.Truncate(0)
}

// TestCutWhileDecoded: an object whose segment is cut short while it is decoded,
// as borg 1.1 does when it compacts, is fetched again. When that is of no use
// either, the error says so.
func TestCutWhileDecoded(t *testing.T) {
	r, err := Open(t.Context(), Location{Path: "testdata/mode-none"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &cutter{store: r.store, t: t, cuts: 1}
	r.store = c
	if m, err := r.Manifest(t.Context()); err != nil || len(m.Archives) != 2 || c.cuts != 0 {
		t.Errorf("cut once: %+v, %v", m, err)
	}
	r.manifest, r.state = nil, 0
	c.cuts = 100
	if _, err := r.Manifest(t.Context()); !errors.Is(err, disk.ErrFault) || c.cuts != 98 {
		t.Errorf("cut again and again: %v, %d times", err, 100-c.cuts)
	}
}
