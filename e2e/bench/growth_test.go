package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/s4-storage/s4/borgio"
)

// treeOf reads all files below dir.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestManySmallFiles(t *testing.T) {
	const files = 1003
	a := &manySmallFiles{dir: t.TempDir(), seed: 7, files: files}
	b := &manySmallFiles{dir: t.TempDir(), seed: 7, files: files}
	for _, x := range []*manySmallFiles{a, b} {
		if err := errors.Join(x.write(t.Context()), x.read(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	first := treeOf(t, a.dir)
	contents := map[string]bool{}
	for path, text := range first {
		if len(text) < 100 || len(text) > 400 {
			t.Errorf("%s has %d bytes", path, len(text))
		}
		contents[text] = true
	}
	if len(first) != files || len(contents) != files {
		t.Errorf("%d files with %d contents instead of %d", len(first), len(contents), files)
	}
	if got := treeOf(t, b.dir); fmt.Sprint(got) != fmt.Sprint(first) {
		t.Error("the same seed makes two trees")
	}
	// Ten files are others after each time, and the first ones at the end.
	for range 2 {
		before := treeOf(t, a.dir)
		if err := a.rewrite(pushTen); err != nil {
			t.Fatal(err)
		}
		changed := 0
		for path, text := range treeOf(t, a.dir) {
			if before[path] != text {
				changed++
			}
		}
		if changed != pushTen {
			t.Errorf("%d files are changed instead of %d", changed, pushTen)
		}
	}
	s := &session{bench: testBench(t)}
	if err := os.WriteFile(a.dir+".complete", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.growPlain(a), os.Remove(a.dir+".complete")); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(treeOf(t, a.dir)) != fmt.Sprint(first) {
		t.Error("a tree that is there is not what it was at first")
	}
}

// A snapshot that does not have what is in the tree is no figure, and the counter
// of replicate is the one in the archive.
func TestPushIsChecked(t *testing.T) {
	b := testBench(t)
	tools, _, err := findTools(os.Args[0], []string{nameBorg})
	if err != nil {
		t.Fatal(err)
	}
	s := &session{bench: b, ctx: t.Context(), tool: tools[0], samples: map[string]float64{}}
	p := &pushing{session: s, tree: t.TempDir(), repo: filepath.Join(b.dir, "repo")}
	counter := filepath.Join(p.tree, counterName)
	if err := errors.Join(os.WriteFile(counter, []byte("000000041\n"), 0o600), p.begin(pushPlain), p.storeOften("key", func() error { return nil })); err != nil {
		t.Fatal(err)
	}
	if s.samples["key"] <= 0 || s.samples["keyCPU"] <= 0 || s.samples["keyPeak"] <= 0 {
		t.Errorf("recorded %v", s.samples)
	}
	if err := p.check(counterName); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(counter, []byte("000000042\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.check(counterName); err == nil {
		t.Error("a snapshot with another content is taken")
	}
	loc, err := borgio.ParseLocation(p.repo)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := borgio.Open(t.Context(), loc, borgio.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	m, err := repo.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := counted(t.Context(), repo, m.Archives[len(m.Archives)-1].ID)
	if err != nil || n != 41 {
		t.Errorf("the archive counts %d: %v", n, err)
	}
}
