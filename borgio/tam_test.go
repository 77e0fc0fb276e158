package borgio

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// forger is a repository whose owner replaces one object.
type forger struct {
	store
	id     ID
	stored []byte
}

func (f *forger) get(ctx context.Context, id ID, hint int) (*buffer.Buffer, error) {
	if id != f.id {
		return f.store.get(ctx, id, hint)
	}
	return buffer.Of(bytes.Clone(f.stored), func() {}), nil
}

// refresh keeps the manifest from being remembered.
func (f *forger) refresh(context.Context) (uint64, error) { return 0, nil }

// TestForgedManifest: in the modes that do not encrypt, a manifest that keeps
// its shape but not its authentication is refused, and so is one that has
// none. That is all that stands between a hostile server and the archive list.
func TestForgedManifest(t *testing.T) {
	env := func(name string) (string, bool) { return "s4-test", name == "BORG_PASSPHRASE" }
	for _, name := range []string{"mode-authenticated", "mode-authenticated-blake2"} {
		r, err := Open(t.Context(), Location{Path: "testdata/" + name}, Options{Environ: env})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		good, err := r.object(t.Context(), manifestID, compress.UnknownSize, maxMetadataSize)
		if err != nil {
			t.Fatal(err)
		}
		pack := func(plain []byte) []byte { return append([]byte{r.key.Type, compress.None, 0}, plain...) }
		f := &forger{store: r.store, stored: pack(good.Data)}
		r.store = f
		if _, err := r.Manifest(t.Context()); err != nil {
			t.Errorf("%s: repacked: %v", name, err)
		}
		for what, plain := range map[string][]byte{
			"renamed archive": bytes.Replace(good.Data, []byte("second"), []byte("sec0nd"), 1),
			"renamed tam":     bytes.Replace(good.Data, []byte("\xa3tam"), []byte("\xa3tum"), 1),
		} {
			f.stored = pack(plain)
			_, err := r.Manifest(t.Context())
			if ie, ok := errors.AsType[*IntegrityError](err); !ok || ie.What != "tam" {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
}

// TestStaleArchiveAuthentication: what borg 1.2.4's rename leaves behind can
// be read, and the log says so.
func TestStaleArchiveAuthentication(t *testing.T) {
	var log bytes.Buffer
	r, err := Open(t.Context(), Location{Path: "testdata/mode-none"}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m, err := r.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good, err := r.object(t.Context(), m.Archives[0].ID, compress.UnknownSize, maxMetadataSize)
	if err != nil {
		t.Fatal(err)
	}
	renamed := bytes.Replace(good.Data, []byte("\xa4name\xa5first"), []byte("\xa4name\xa5other"), 1)
	id := r.key.ID(renamed)
	r.store = &forger{store: r.store, id: id, stored: append([]byte{keys.TypePlain, compress.None, 0}, renamed...)}
	a, err := r.Archive(t.Context(), id)
	if err != nil || a.Name != "other" || !bytes.Contains(log.Bytes(), []byte("not authenticated")) {
		t.Errorf("%+v, %v, logged %s", a, err, log.String())
	}
}
