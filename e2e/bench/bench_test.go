package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launchWord {
		main()
		return
	}
	os.Exit(m.Run())
}

func testBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), log: io.Discard, failed: map[string]string{}}
	b.Limit = time.Minute
	b.env = b.environment()
	return b
}

// What a command takes must not hold what its starter had in memory.
func TestTimed(t *testing.T) {
	b := testBench(t)
	ballast := make([]byte, 256<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	out, took, err := b.output(t.Context(), command{name: "sh", argv: []string{"sh", "-c", "echo $X; exec sleep 0.05"}, env: []string{"X=said"}})
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != "said\n" {
		t.Errorf("output %q", out)
	}
	if took.Wall < 0.05 || took.Wall > 30 {
		t.Errorf("took %v s", took.Wall)
	}
	if took.Peak <= 0 || took.Peak > 200 {
		t.Errorf("peak of %v MiB", took.Peak)
	}
	if ballast[0] != 1 {
		t.Error("ballast is gone")
	}
}

func TestTimedFails(t *testing.T) {
	b := testBench(t)
	_, _, err := b.output(t.Context(), command{name: "sh", argv: []string{"sh", "-c", "echo why >&2; exit 3"}})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v", err)
	}
	wrong := errors.New("wrong content")
	_, err = b.timed(t.Context(), command{name: "cat", argv: []string{"cat", "/dev/zero"}}, func(io.Reader) error { return wrong })
	if !errors.Is(err, wrong) {
		t.Errorf("error %v instead of what the reader found", err)
	}
}

// paths of files with their versions.
func paths(t *tree) map[string]file {
	all := map[string]file{}
	for _, f := range t.files {
		all[f.path] = f
	}
	return all
}

func TestStory(t *testing.T) {
	p := params{Files: 3000, Snapshots: 30, Big: 1, Seed: 7}
	played := newTree(p)
	s := tell(played, p.Snapshots, played.advance)
	stay := map[string]bool{}
	for _, path := range s.stay {
		stay[path] = true
	}
	versions := map[file]bool{}
	for n := range p.Snapshots {
		now := paths(treeAt(p, n))
		for path := range stay {
			if _, ok := now[path]; !ok {
				t.Fatalf("%s is not in snapshot %d", path, n)
			}
		}
		versions[now[s.path]] = true
		if _, ok := now[s.gone]; ok != (n <= s.goneLast) {
			t.Fatalf("%s, last seen in snapshot %d: there in %d: %v", s.gone, s.goneLast, n, ok)
		}
		if n == 0 {
			continue
		}
		before := paths(treeAt(p, n-1))
		var changed []string
		for path, f := range now {
			if before[path] != f {
				changed = append(changed, path)
			}
		}
		for path := range before {
			if _, ok := now[path]; !ok {
				changed = append(changed, path)
			}
		}
		slices.Sort(changed)
		told := slices.Sorted(slices.Values(s.changed[n-1]))
		if !slices.Equal(changed, told) {
			t.Fatalf("snapshot %d: %d changes instead of %d", n, len(told), len(changed))
		}
	}
	if len(versions) != s.versions || s.versions < 2 {
		t.Errorf("%s has %d versions instead of %d", s.path, len(versions), s.versions)
	}
}

func TestClustered(t *testing.T) {
	tr := newClustered(params{Files: 20_000, Snapshots: 2, Big: 1, Seed: 7})
	wide := 0
	for _, f := range tr.files {
		if filepath.Dir(f.path) == wideDir {
			wide++
		}
	}
	if wide != wideEntries {
		t.Errorf("%d entries in %s", wide, wideDir)
	}
	for n := range clusteredSnapshots - 1 {
		changes := tr.advanceClustered(n)
		dirs := map[string]bool{}
		for _, c := range changes {
			dirs[filepath.Dir(c.to.path)] = true
			if c.from.version == c.to.version {
				t.Errorf("%s is not changed", c.to.path)
			}
		}
		if len(changes) != 100 || len(dirs) > 4 {
			t.Errorf("%d changes in %d directories", len(changes), len(dirs))
		}
	}
}

func TestWanted(t *testing.T) {
	for _, c := range []struct {
		only    string
		list    bool
		million bool
		many    bool
	}{
		{"", true, false, false}, {"list", true, false, false}, {"all", true, false, false},
		{"million", false, true, false}, {"all,million", true, true, false}, {"many", false, false, true},
	} {
		o, err := parse([]string{"-only", c.only}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{options: o}
		if got := b.wanted("list"); got != c.list {
			t.Errorf("-only %q: list is wanted: %v", c.only, got)
		}
		if got := b.wanted(groupMillion); got != c.million {
			t.Errorf("-only %q: million is wanted: %v", c.only, got)
		}
		if got := b.wanted(groupMany); got != c.many {
			t.Errorf("-only %q: many is wanted: %v", c.only, got)
		}
	}
	if _, err := parse([]string{"-only", "nothing"}, io.Discard); err == nil {
		t.Error("an unknown group is taken")
	}
}

// What makes its own data does not wait for a history to be made.
func TestNeedsHistory(t *testing.T) {
	for only, want := range map[string]bool{
		"": true, "all": true, "push": false, "growth,replicate": false, "push,list": true, "live": true, "index-growth": false,
	} {
		o, err := parse([]string{"-only", only}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&bench{options: o}).needsHistory(); got != want {
			t.Errorf("-only %q: the history is needed: %v", only, got)
		}
	}
}

func TestGrowthSizes(t *testing.T) {
	o, err := parse([]string{"-growth", "1000, 20000"}, io.Discard)
	if err != nil || !slices.Equal(o.Growth, []int{1000, 20000}) {
		t.Errorf("%v, %v", o.Growth, err)
	}
	for _, wrong := range []string{"", "1000,", "many", "0", "-1000"} {
		if _, err := parse([]string{"-growth", wrong}, io.Discard); err == nil {
			t.Errorf("-growth %q is taken", wrong)
		}
	}
}

// A peer that is not there is told of, and s4 has to be there.
func TestFindTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s4 := filepath.Join(t.TempDir(), "s4")
	if err := os.WriteFile(s4, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	found, missing, err := findTools(s4, nil)
	if err != nil {
		t.Fatal(err)
	}
	has := func(all []*tool, name string) bool {
		return slices.ContainsFunc(all, func(t *tool) bool { return t.name == name })
	}
	if !has(found, nameS4) || !has(found, namePlain) || !has(missing, nameKopia) || has(found, nameKopia) {
		t.Errorf("found %d, missing %d", len(found), len(missing))
	}
	if _, _, err := findTools(s4+"x", nil); err == nil {
		t.Error("no error without s4")
	}
}

// Each of a group's tools is first as often as the others.
func TestOrder(t *testing.T) {
	var tools []*tool
	for _, name := range []string{nameS4, nameBorg, nameRestic, nameCat, nameLoopback, nameDisk} {
		tools = append(tools, &tool{name: name})
	}
	g := group{tools: []string{nameS4, nameLoopback, nameDisk}}
	for n, want := range []string{"s4 loopback disk", "loopback disk s4", "disk s4 loopback", "s4 loopback disk"} {
		var names []string
		for _, t := range g.order(tools, n) {
			names = append(names, t.name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("run %d: %s instead of %s", n, got, want)
		}
	}
	if got := g.order(tools[1:3], 1); len(got) > 0 {
		t.Errorf("%s is measured", got[0].name)
	}
}
