package volume

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
)

// TestUnreadIsTriedAgain: what the disk does not give is told of by each push until
// it is pushed; meanwhile nothing else of it is made up, and nothing is pushed for
// its sake.
func TestUnreadIsTriedAgain(t *testing.T) {
	for name, create := range map[string]func(string) error{
		"subvolume": btrfsvol.Create,
		"directory": func(dir string) error { return os.Mkdir(dir, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("BORG_BASE_DIR", t.TempDir())
			t.Setenv("HOME", t.TempDir())
			disk := btrfstest.New(t)
			root := filepath.Join(disk, "v")
			must(t, create(root))
			v, _, err := Init(root, InitOptions{}, testVolume(t).access)
			must(t, err)
			t.Cleanup(func() { v.Close() })
			_, err = v.AddRemote("origin", t.TempDir(), "none")
			must(t, err)

			r := rand.NewChaCha8([32]byte{1})
			random := func(n int) []byte {
				b := make([]byte, n)
				_, _ = r.Read(b) // never fails
				return b
			}
			at := func(name string) string { return filepath.Join(root, name) }
			write := func(name string, data []byte) {
				t.Helper()
				must(t, os.WriteFile(at(name), data, 0o644))
			}
			var last *PushResult
			push := func(unread int, news bool) {
				t.Helper()
				good := func() time.Time {
					ready, err := v.Readiness("origin")
					must(t, err)
					return ready[0].LastGood
				}
				before := good()
				got, err := v.Push(t.Context(), PushOptions{})
				if whole := good().After(before); whole != (unread == 0) {
					t.Errorf("with %d unread it is ready: %t", unread, whole)
				}
				told := 0
				if e, ok := errors.AsType[*UnreadError](err); ok {
					told, err = e.Count, nil
				}
				must(t, err)
				if told != unread || len(got.Unread) != unread || got.UpToDate == news {
					t.Fatalf("pushed %+v, %d unread", got, told)
				}
				if !got.UpToDate {
					last = got
				}
			}
			holds := func(name string, want []byte) {
				t.Helper()
				past, err := v.Past(t.Context())
				must(t, err)
				item, err := past.sources[0].FindItem(t.Context(), last.Snapshot, name)
				if want == nil && errors.Is(err, fs.ErrNotExist) {
					return
				}
				must(t, err)
				file, err := past.sources[0].Open(t.Context(), item.Content)
				must(t, err)
				var got bytes.Buffer
				_, err = file.WriteTo(&got)
				must(t, errors.Join(err, file.Close()))
				if !bytes.Equal(got.Bytes(), want) {
					t.Fatalf("%s has %d bytes, and not the %d it should", name, got.Len(), len(want))
				}
			}

			// From the beginning, and a newer version.
			lost, old, dark := random(20_000), random(20_000), random(3<<20)
			write("lost", lost)
			write("old", old)
			write("dark", []byte("once"))
			heal := btrfstest.Spoil(t, disk, at("lost"))
			push(1, true)
			holds("lost", nil)
			push(1, false)
			heal()
			push(0, true)
			holds("lost", lost)
			push(0, false)

			first, second := random(20_000), random(20_000)
			write("old", first)
			write("dark", dark)
			healOld, healDark := btrfstest.Spoil(t, disk, at("old")), btrfstest.Spoil(t, disk, at("dark"))
			push(2, true)
			holds("old", old)
			push(2, false)
			write("other", second)
			must(t, os.Chmod(at("old"), 0o600))
			f, err := os.OpenFile(at("dark"), os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = f.Write(second)
			must(t, errors.Join(err, f.Close()))
			push(2, true)
			holds("old", old)
			holds("dark", []byte("once"))
			holds("other", second)
			must(t, os.Rename(at("old"), at("new")))
			push(2, true)
			holds("new", nil)
			healOld()
			push(1, true)
			holds("new", first)
			holds("dark", []byte("once"))
			healDark()
			push(0, true)
			holds("dark", append(dark, second...))
			push(0, false)
			if left, _ := filepath.Glob(v.path(LocalDir, "outlines", "*.unread")); left != nil {
				t.Errorf("still noted: %q", left)
			}

			// What is gone is not missed.
			write("goes", random(20_000))
			btrfstest.Spoil(t, disk, at("goes"))
			push(1, true)
			must(t, os.Remove(at("goes")))
			push(0, name == "subvolume") // which has another root
		})
	}
}
