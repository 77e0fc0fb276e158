package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
)

func tryCreate(t testing.TB, dir string, o CreateOptions) (*Making, error) {
	t.Helper()
	pool := &buffer.Pool{}
	t.Cleanup(pool.Close)
	o.Environ, o.Logger = os.LookupEnv, quiet
	w, err := Create(context.Background(), dir, o, pool)
	if err == nil {
		t.Cleanup(func() {
			if err := w.Rollback(); err != nil {
				t.Error(err)
			}
		})
	}
	return w, err
}

func mustCreate(t testing.TB, dir string) *Making {
	t.Helper()
	w, err := tryCreate(t, dir, CreateOptions{ID: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// borgsManifest is the first manifest of a repository without encryption.
func borgsManifest(t testing.TB) []byte {
	t.Helper()
	b, err := mustOpen(t, newRepository(t), quiet).Get(context.Background(), manifest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	return bytes.Clone(b.Data)
}

// makeUntilKilled as its first argument makes the test binary make a repository in
// the directory in its second, step by step: it says each one, and goes on when it
// is answered. The third is the manifest's file.
const makeUntilKilled = "make-until-killed"

func runMaker(dir, manifestFile string) error {
	said := bufio.NewReader(os.Stdin)
	step := func(name string) {
		fmt.Println(name)
		if _, err := said.ReadString('\n'); err != nil {
			os.Exit(1)
		}
	}
	data, err := os.ReadFile(manifestFile)
	if err != nil {
		return err
	}
	ctx, pool := context.Background(), &buffer.Pool{}
	o := CreateOptions{ID: [32]byte{9}, Environ: os.LookupEnv, Logger: slog.New(slog.DiscardHandler)}
	w, err := Create(ctx, dir, o, pool)
	if err != nil {
		return err
	}
	step("created")
	if err := w.SaveKey("a key"); err != nil {
		return err
	}
	step("key")
	if err := w.ReserveNonces(100, 0); err != nil {
		return err
	}
	step("nonce")
	if err := w.Put(ctx, manifest, data); err != nil {
		return err
	}
	step("put")
	if err := w.Flush(); err != nil {
		return err
	}
	step("flushed")
	if err := w.Writer.Commit(ctx); err != nil {
		return err
	}
	step("committed")
	if err := w.move(); err != nil {
		return err
	}
	step("moved")
	return nil
}

// TestMakingKilled kills who makes a repository at each step: until the commit there
// is none, what is left is in nobody's way, and the next one cleans up.
func TestMakingKilled(t *testing.T) {
	data := borgsManifest(t)
	file := filepath.Join(t.TempDir(), "manifest")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{"new", "empty"} {
		for _, last := range []string{"created", "key", "nonce", "put", "flushed", "committed", "moved"} {
			if place == "empty" && last == "moved" {
				continue // it is there already
			}
			t.Run(place+"/"+last, func(t *testing.T) {
				parent := t.TempDir()
				dir := filepath.Join(parent, "repo")
				if place == "empty" {
					if err := os.Mkdir(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				cmd := exec.Command(os.Args[0], makeUntilKilled, dir, file)
				cmd.Stderr = os.Stderr
				in, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != last; {
					if _, err := io.WriteString(in, "\n"); err != nil {
						t.Fatal(err)
					}
				}
				committed := last == "moved" || place == "empty" && last == "committed"
				if !committed {
					// Somebody is at work: nothing of his is taken away.
					other, err := tryCreate(t, dir, CreateOptions{ID: [32]byte{2}})
					if place == "empty" && !errors.Is(err, fault.ErrLocked) || place == "new" && err != nil {
						t.Errorf("beside a living one: %v", err)
					}
					if err == nil {
						if err := other.Rollback(); err != nil {
							t.Error(err)
						}
					}
				}
				left := hiddenIn(t, parent)
				if (len(left) == 1) != (place == "new" && last != "moved") {
					t.Errorf("hidden: %s", left)
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err == nil {
					t.Fatal("it ended by itself")
				}
				if place == "empty" || committed {
					if begun, err := mustOpen(t, dir, quiet).Unfinished(); err != nil || begun == committed {
						t.Errorf("unfinished: %v, %v", begun, err)
					}
				} else if _, err := Open(t.Context(), dir, &buffer.Pool{}, quiet); !errors.Is(err, fault.ErrNotRepository) {
					t.Errorf("got %v", err)
				}
				w, err := tryCreate(t, dir, CreateOptions{ID: [32]byte{2}})
				if committed {
					if !errors.Is(err, fault.ErrExists) {
						t.Errorf("where one was made: %v", err)
					}
				} else if err != nil {
					t.Fatal(err)
				} else if err := errors.Join(w.Put(t.Context(), manifest, data), w.Commit(t.Context())); err != nil {
					t.Fatal(err)
				}
				if left := hiddenIn(t, parent); len(left) > 0 {
					t.Errorf("left behind: %s", left)
				}
				r := mustOpen(t, dir, quiet)
				if key, err := r.LoadKey(); err != nil || key != map[bool]string{true: "a key"}[committed] {
					t.Errorf("key %q, %v", key, err)
				}
				if last == "flushed" || committed {
					borg(t, "check", dir)
				}
			})
		}
	}
}

func hiddenIn(t *testing.T, parent string) []string {
	t.Helper()
	left, err := filepath.Glob(parent + "/.*.tmp")
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestUnfinished: what was begun is told from what was damaged, by all that may be in
// a directory.
func TestUnfinished(t *testing.T) {
	t.Setenv("BORG_HOST_ID", "h")
	gone := fmt.Sprintf("lock.exclusive/h.%d-0", os.Getpid()) // who had this number before
	const readmeText = "This is a Borg Backup repository.\n"
	config := fmt.Sprintf(configFormat, 0, 0, [32]byte{5})
	data := borgsManifest(t)
	segment := func(entries ...[]byte) string { return segmentMagic + string(bytes.Join(entries, nil)) }
	put := func(id [32]byte, data []byte) []byte { return packed(t, tagPut, &id, data) }
	first, object := put(manifest, data), put([32]byte{7}, []byte("data"))
	type files map[string]string
	base := files{"README": readmeText, "config": config, "data/": ""}
	for _, c := range []struct {
		name  string
		more  files // besides base; "-": not there
		begun bool
	}{
		{"config", nil, true},
		{"temporary files", files{"config-a_c.tmp": "x", "config.s4.tmp": "", "nonce.s4.tmp": "", "nonce-0.tmp": ""}, true},
		{"key and nonce", files{"config": config + "key = x\n", "nonce": "0000000000000001", "config.old": "x"}, true},
		{"a lock", files{gone: "", "lock.roster": "{}", "lock.exclusive.x_.tmp/h.1-0": ""}, true},
		{"no segment yet", files{"data/0/": ""}, true},
		{"an empty segment", files{"data/0/0": ""}, true},
		{"a magic", files{"data/0/0": segmentMagic}, true},
		{"the manifest", files{"data/0/0": segment(first)}, true},
		{"half a manifest", files{"data/0/0": segment(first[:len(first)/2])}, true},
		{"half a header", files{"data/0/0": segment(first, first[:20])}, true},
		{"half a commit", files{"data/0/0": segment(first), "data/0/1": segment(commitEntry[:5])}, true},
		{"no config", files{"config": "-"}, true},
		{"a readme only", files{"config": "-", "data/": "-"}, true},
		{"a lock only", files{"config": "-", "README": "-", "data/": "-", gone: ""}, true},

		{"committed", files{"data/0/0": segment(first), "data/0/1": segment(commitEntry[:])}, false},
		{"a lost manifest", files{"data/0/1": segment(commitEntry[:])}, false},
		{"an object", files{"data/0/0": segment(object)}, false},
		{"an object behind the manifest", files{"data/0/0": segment(first, object)}, false},
		{"half an object", files{"data/0/0": segment(first, object[:len(object)-1])}, false},
		{"a deletion", files{"data/0/0": segment(packed(t, tagDelete, &[32]byte{7}, nil))}, false},
		{"a damaged segment", files{"data/0/0": strings.Repeat("\x00", 500)}, false},
		{"a later segment", files{"data/0/2": segment(first)}, false},
		{"a later directory", files{"data/1/1000": segment(first)}, false},
		{"a segment that was repaired", files{"data/0/0.beforerecover": ""}, false},
		{"an index", files{"index.1": "x"}, false},
		{"an empty index", files{"index.1": ""}, false},
		{"hints", files{"hints.1": "x"}, false},
		{"integrity", files{"integrity.1": "x"}, false},
		{"a log of transactions", files{"transactions": ""}, false},
		{"another's file", files{"letter.txt": ""}, false},
		{"a copy", files{"config-old": "", "data-old/x": ""}, false},
		{"another's readme", files{"README": "my photos", "config": "-"}, false},
		{"just data", files{"README": "-", "config": "-"}, false},
		{"a directory of that name", files{"nonce/": ""}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "repo")
			all := maps.Clone(base)
			maps.Copy(all, c.more)
			for _, name := range slices.Sorted(maps.Keys(all)) {
				path, text := filepath.Join(dir, name), all[name]
				var err error
				switch {
				case text == "-":
				case strings.HasSuffix(name, "/"):
					err = os.MkdirAll(path, 0o700)
				default:
					err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, dir)
			r, err := Open(t.Context(), dir, &buffer.Pool{}, quiet)
			begun := errors.Is(err, fault.ErrUnfinished)
			if err == nil {
				if begun, err = r.Unfinished(); err != nil {
					t.Error(err)
				}
				r.Close()
			}
			if begun != c.begun {
				t.Errorf("begun: %v, %v", begun, err)
			}
			w, err := tryCreate(t, dir, CreateOptions{ID: [32]byte{1}})
			if !c.begun {
				if !errors.Is(err, fault.ErrExists) {
					t.Errorf("create: %v", err)
				}
				if after := contents(t, dir); !maps.Equal(before, after) {
					t.Errorf("%v became %v", before, after)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Put(t.Context(), manifest, data), w.Commit(t.Context())); err != nil {
				t.Fatal(err)
			}
			r = mustOpen(t, dir, quiet)
			got, err := r.Get(t.Context(), manifest, 0)
			if err != nil {
				t.Fatal(err)
			}
			got.Release()
			if r.ID() != [32]byte{1} {
				t.Errorf("id %x", r.ID())
			}
			for name := range contents(t, dir) {
				if strings.HasSuffix(name, ".tmp") || name == "config.old" {
					t.Errorf("left behind: %s", name)
				}
			}
		})
	}
}

// packed is an entry of a segment.
func packed(t *testing.T, tag byte, id *[32]byte, data []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/data", 0o700); err != nil {
		t.Fatal(err)
	}
	s := segmentWriter{dir: dir, perDir: 1000, limit: 1 << 20, mode: 0o700, held: func() bool { return true }}
	if _, err := s.write(tag, id, data, true); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dir + "/data/0/0")
	if err != nil {
		t.Fatal(err)
	}
	return b[len(segmentMagic):]
}

// contents are the files in a directory, and what is in them.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path[len(dir)+1:]] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRolledBack: of what is not committed nothing is left, and an empty directory
// stays and is empty.
func TestRolledBack(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "repo")
	for range 2 {
		w := mustCreate(t, dir)
		if _, err := os.Stat(dir); len(hiddenIn(t, parent)) == 1 && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is there already: %v", err)
		}
		if err := errors.Join(w.SaveKey("x"), w.Put(t.Context(), manifest, []byte("x")), w.Rollback()); err != nil {
			t.Fatal(err)
		}
		names, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range names {
			if inside, err := os.ReadDir(filepath.Join(parent, e.Name())); e.Name() != "repo" || err != nil || len(inside) > 0 {
				t.Errorf("left behind: %s, %v, %v", e.Name(), inside, err)
			}
		}
		if err := os.MkdirAll(dir, 0o750); err != nil { // and again in an empty one
			t.Fatal(err)
		}
	}
}

// TestMadeMeanwhile: what another made in the place stays, and so do hidden
// directories that are none of a making.
func TestMadeMeanwhile(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "repo")
	for _, name := range []string{".repo.12.tmp/mine", ".repo.x.tmp/", ".repo.tmp/", ".other.1.tmp/", ".repo.3.tmp/README", ".repo.4.tmp/data/0/2"} {
		path := parent + "/" + name
		err := os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o700)
		if !strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.WriteFile(path, []byte("x"), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkdir(filepath.Join(parent, ".repo.5.tmp"), 0o700); err != nil { // of one that was killed
		t.Fatal(err)
	}
	w := mustCreate(t, dir)
	if err := w.Put(t.Context(), manifest, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); !errors.Is(err, fault.ErrExists) || errors.Is(err, fault.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if left := hiddenIn(t, parent); len(left) != 6 || slices.Contains(left, parent+"/.repo.5.tmp") {
		t.Errorf("hidden: %s", left)
	}
	if inside, err := os.ReadDir(dir); err != nil || len(inside) > 0 {
		t.Error(inside, err)
	}
}
