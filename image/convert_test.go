package image

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/btrfsvol/loop"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// folder is one to be converted.
type folder struct {
	*testing.T
	dir  string
	size int64 // of its image; 0 for none
}

// inBothWays does something with a folder on btrfs, and with one that gets an image.
func inBothWays(t *testing.T, do func(f folder)) {
	for name, size := range map[string]int64{"in place": 0, "on an image": loop.MinSize} {
		t.Run(name, func(t *testing.T) {
			disk := btrfstest.New(t)
			if size > 0 {
				disk = t.TempDir()
			}
			place := t.TempDir()
			t.Setenv("S4_LOOP_DEV_PATH", place)
			t.Cleanup(func() {
				all, err := Records()
				for _, r := range all {
					err = errors.Join(err, r.remove())
				}
				must(t, err)
				left, err := os.ReadDir(place)
				must(t, err)
				if len(left) > 0 {
					t.Errorf("left in the place of images: %v", left)
				}
			})
			f := folder{t, filepath.Join(disk, "folder"), size}
			must(t, os.MkdirAll(f.at("sub"), 0o750))
			f.write("sub/file", "old")
			f.write("big", strings.Repeat("big ", 100_000))
			must(t, os.Link(f.at("big"), f.at("sub/linked")))
			do(f)
		})
	}
}

func (f folder) at(name string) string { return filepath.Join(f.dir, name) }

func (f folder) write(name, text string) {
	f.Helper()
	must(f.T, os.WriteFile(f.at(name), []byte(text), 0o644))
}

// convert calls back at a step; step "" is none.
func (f folder) convert(steps map[string]func()) (*Converted, error) {
	return Convert(f.Context(), f.dir, Options{Size: f.size, Log: slog.New(slog.DiscardHandler), passed: func(step string) {
		if do := steps[step]; do != nil {
			do()
		}
	}})
}

// beside lists what lies beside the folder.
func (f folder) beside() []string {
	f.Helper()
	var names []string
	all, err := os.ReadDir(filepath.Dir(f.dir))
	must(f.T, err)
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// has fails unless the files have these texts; "" is for those that are not there.
func has(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for name, text := range want {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if text == "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || string(b) != text {
			t.Errorf("%s in %s: %.20q, %v; want %q", name, dir, b, err, text)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestConvert: a folder becomes a subvolume and is as it was; so it is to the last
// byte, and what is written from the first moment stays.
func TestConvert(t *testing.T) {
	inBothWays(t, func(f folder) {
		c, err := f.convert(map[string]func(){"swapped": func() { f.write("sub/file", "newer"); f.write("new", "new") }})
		must(f.T, err)
		if _, err := btrfsvol.Info(f.dir); err != nil {
			f.Error(err)
		}
		has(f.T, f.dir, map[string]string{"sub/file": "newer", "new": "new", "sub/linked": strings.Repeat("big ", 100_000)})
		has(f.T, c.Original, map[string]string{"sub/file": "old", "new": ""})
		var a, b unix.Stat_t
		must(f.T, errors.Join(unix.Stat(f.at("big"), &a), unix.Stat(f.at("sub/linked"), &b)))
		if a.Ino != b.Ino {
			f.Error("hard links became files of their own")
		}
		if got := f.beside(); !slices.Equal(got, []string{"folder", "folder.s4-original"}) {
			f.Errorf("beside it: %q", got)
		}
		must(f.T, c.DropOriginal())
		if got := f.beside(); !slices.Equal(got, []string{"folder"}) {
			f.Errorf("beside it: %q", got)
		}
		if (c.Record != nil) != (f.size > 0) {
			f.Errorf("record %+v", c.Record)
		}
		if c.Record == nil {
			return
		}
		if r, err := Of(f.dir); err != nil || r.UUID != c.Record.UUID {
			f.Errorf("its record: %+v, %v", r, err)
		}
		if at, err := loop.Find(c.Record.Image); err != nil || len(at.Mounts) != 1 {
			f.Errorf("mounted at %+v, %v", at.Mounts, err)
		}
	})
}

// TestConvertGoesBack: a folder that was changed at the last moment is where it was,
// and nothing else is there.
func TestConvertGoesBack(t *testing.T) {
	inBothWays(t, func(f folder) {
		_, err := f.convert(map[string]func(){"compared": func() { f.write("sub/file", "late") }})
		if !errors.Is(err, snapshot.ErrRefused) || hint.Of(err) == "" {
			f.Fatalf("%v, hint %q", err, hint.Of(err))
		}
		has(f.T, f.dir, map[string]string{"sub/file": "late"})
		if got := f.beside(); !slices.Equal(got, []string{"folder"}) {
			f.Errorf("beside it: %q", got)
		}
		if all, err := Records(); err != nil || len(all) > 0 {
			f.Errorf("records %+v, %v", all, err)
		}
	})
}

// TestConvertKeepsWhatWasWritten: where it has to go back, what was written to the
// copy is beside the folder, also by who has it open still.
func TestConvertKeepsWhatWasWritten(t *testing.T) {
	late := map[string]string{"sub/file": "late", "big": strings.Repeat("big ", 100_000), "new": ""}
	for name, c := range map[string]struct {
		swapped func(f folder) (later func())
		want    map[string]string
	}{
		"a new file": {func(f folder) func() { f.write("new", "new"); return func() {} }, map[string]string{"new": "new", "sub/file": "old"}},
		"a file that is open": {func(f folder) func() {
			w, err := os.OpenFile(f.at("sub/file"), os.O_WRONLY|os.O_APPEND, 0)
			must(f.T, err)
			return func() {
				_, err := w.WriteString("er")
				must(f.T, errors.Join(err, w.Close()))
			}
		}, map[string]string{"sub/file": "older", "new": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			inBothWays(t, func(f folder) {
				var later func()
				_, err := f.convert(map[string]func(){
					"compared": func() { f.write("sub/file", "late") },
					"swapped":  func() { later = c.swapped(f) },
				})
				if !errors.Is(err, snapshot.ErrRefused) || !strings.Contains(err.Error(), f.dir+".s4-copy") || !strings.Contains(hint.Of(err), "bring over") {
					f.Fatalf("%v, hint %q", err, hint.Of(err))
				}
				later()
				has(f.T, f.dir, late)
				has(f.T, f.dir+".s4-copy", c.want)
				if got := f.beside(); !slices.Equal(got, []string{"folder", "folder.s4-copy"}) {
					f.Errorf("beside it: %q", got)
				}
			})
		})
	}
}

// TestConvertKeepsWhatIsBelowTheMount: what is made in the empty folder before the
// image is mounted on it would be hidden.
func TestConvertKeepsWhatIsBelowTheMount(t *testing.T) {
	inBothWays(t, func(f folder) {
		if f.size == 0 {
			return
		}
		_, err := f.convert(map[string]func(){"mounting": func() { f.write("early", "early") }})
		if !errors.Is(err, snapshot.ErrRefused) {
			f.Fatal(err)
		}
		has(f.T, f.dir, map[string]string{"sub/file": "old", "early": ""})
		has(f.T, f.dir+".s4-copy", map[string]string{"early": "early", "sub/file": ""})
	})
}

// TestConvertRefuses: what it could not put back, or would have to guess about.
func TestConvertRefuses(t *testing.T) {
	inBothWays(t, func(f folder) {
		must(f.T, os.Mkdir(f.dir+".s4-original", 0o755))
		if _, err := f.convert(nil); !errors.Is(err, snapshot.ErrRefused) {
			f.Errorf("the original's name is taken: %v", err)
		}
		must(f.T, os.Remove(f.dir+".s4-original"))
		must(f.T, unix.Mount("none", f.at("sub"), "tmpfs", 0, ""))
		_, err := f.convert(nil)
		must(f.T, unix.Unmount(f.at("sub"), 0))
		if !errors.Is(err, snapshot.ErrRefused) {
			f.Errorf("something is mounted in it: %v", err)
		}
		if got := f.beside(); !slices.Equal(got, []string{"folder"}) {
			f.Errorf("beside it: %q", got)
		}
	})
}
