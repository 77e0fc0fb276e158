package main

import (
	"os"
	"path/filepath"
	"testing"
)

// testSession is the turn of a tool of that name, with a small corpus.
func testSession(t *testing.T, name string) *session {
	t.Helper()
	b := testBench(t)
	b.params = params{Files: 300, Snapshots: 4, Big: 3*block + 1, Seed: 7}
	return &session{bench: b, ctx: t.Context(), tool: &tool{name: name}, samples: map[string]float64{}}
}

// All that is made in the live tree is gone at the end, and what an
// interrupted run has left, too.
func TestLive(t *testing.T) {
	s := testSession(t, nameDisk)
	if err := newTree(s.params).write(filepath.Join(s.dir, "corpus")); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(s.dir, "live", liveMade+"before")
	for range 2 {
		if err := s.live(); err != nil {
			t.Fatal(err)
		}
		s.wantSamples(t, "liveFind", "liveAgain", "liveStat", "liveStatFirst",
			"liveMake", "liveRemove", "liveRemoveFirst", "liveWrite", "liveRead")
		got, err := countLive(filepath.Join(s.dir, "live"))
		if want := newTree(s.params).entries(); err != nil || got != want {
			t.Fatalf("%d entries instead of %d are left: %v", got, want, err)
		}
		if err := os.Mkdir(left, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Of all the directories that are tried, one is left, and nothing in it.
func TestSpreadDirectory(t *testing.T) {
	dir := t.TempDir()
	spreadDirectories(dir)
	made, err := spreadDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := countLive(dir); err != nil || n != 2 || filepath.Dir(made) != dir {
		t.Errorf("%s is made, %d entries are there instead of 2: %v", made, n, err)
	}
}
