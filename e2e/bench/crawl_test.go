package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shelfMount looks like a mount by s4 whose snapshots hold what a tree does
// over time, and is none.
func shelfMount(t *testing.T, s *session, tr *tree, snapshots int) *mount {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	m := &mount{tool: &tool{name: nameS4, shelf: "history", folder: s4Time}, dir: t.TempDir(), cmd: &exec.Cmd{Process: self}}
	s.tool = m.tool
	for n := range snapshots {
		if n > 0 {
			tr.advance(n - 1)
		}
		if err := tr.write(filepath.Join(m.dir, "history", s4Time(when(n)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(s4Time(when(snapshots-1)), filepath.Join(m.dir, "history", "latest")); err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *session) wantSamples(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if s.samples[key] <= 0 {
			t.Errorf("%s: %v", key, s.samples[key])
		}
	}
}

func TestCrawl(t *testing.T) {
	s := testSession(t, nameS4)
	m := shelfMount(t, s, newTree(s.params), s.Snapshots)
	if err := s.crawlIn(m); err != nil {
		t.Fatal(err)
	}
	s.wantSamples(t, "crawl", "crawlEntries", "crawlRate", "crawlStat", "crawlStatRate", "crawlRss", "crawlPeak")
	if err := os.Remove(filepath.Join(m.dir, "history", s4Time(when(3)), newTree(s.params).files[0].path)); err != nil {
		t.Fatal(err)
	}
	if err := s.crawlIn(m); err == nil || !strings.Contains(err.Error(), "lines instead of") {
		t.Errorf("a missing file goes unnoticed: %v", err)
	}
}

func TestCrawlPlan(t *testing.T) {
	for _, c := range []struct{ snapshots, want int }{{30, 20}, {5, 5}} {
		plan := crawlPlan(params{Files: 2000, Snapshots: c.snapshots, Big: 1, Seed: 7})
		if len(plan) != c.want {
			t.Errorf("of %d snapshots, %d are crawled instead of %d", c.snapshots, len(plan), c.want)
		}
		for n, entries := range plan {
			if entries < 2000 || entries > 2200 {
				t.Errorf("snapshot %d: %d entries", n, entries)
			}
		}
	}
}

func TestMany(t *testing.T) {
	s := testSession(t, nameS4)
	s.Many = 4
	v := newManyView(s.params, s.Many)
	m := shelfMount(t, s, newTiny(s.params, manyFiles), s.Many)
	versions := filepath.Join(m.dir, "versions", v.story.path)
	if err := os.MkdirAll(versions, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := range v.story.versions {
		if err := os.WriteFile(filepath.Join(versions, s4Time(when(n))), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.manyIn(m, v); err != nil {
		t.Fatal(err)
	}
	s.wantSamples(t, "manyList", "manyLs", "manyShelf", "manyFirst", "manyFind", "manySmall", "manyVersions", "manyRss", "manyPeak")
	if err := os.Remove(filepath.Join(versions, s4Time(when(0)))); err != nil {
		t.Fatal(err)
	}
	if err := s.manyIn(m, v); err == nil || !strings.Contains(err.Error(), "versions of") {
		t.Errorf("a missing version goes unnoticed: %v", err)
	}
}
