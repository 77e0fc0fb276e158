package report

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/e2e/bench/probe"
)

func sampleReport() *Report {
	r := &Report{
		Started: time.Date(2026, 11, 26, 1, 2, 3, 0, time.UTC), Sizes: []int{100_000, 1_000_000},
		Versions: map[string]string{S4: "s4 version 1", Borg: "borg 1.2.4"}, Missing: map[string][]string{"growth": {Kopia}},
		Failed: map[string]string{"diff with restic": "exit status 1"}, Skipped: map[string]string{},
		samples: map[string]map[string][]float64{},
		Index: &probe.GrowthAnswer{
			Files:     []probe.Point{{X: 1000, Ingest: 0.01, CPU: 0.01, Bytes: 1 << 17, Find: 1e-5}},
			Snapshots: []probe.Point{{X: 1, Ingest: 0.01, CPU: 0.01, Bytes: 1 << 17, Find: 1e-5}},
		},
	}
	r.Archives = []probe.Took{{Wall: 0.02, CPU: 0.01}}
	for _, v := range []float64{0.05, 0.01, 0.02} {
		r.Add("file", S4, v)
	}
	r.Add("file", Borg, 1)
	r.Add("find", S4, 0.5)
	r.Add("find", Kopia, 2)
	r.Add("bigMount", S4, 700)
	r.Add("stream", S4, 1000)
	r.Add("crawlEntries", S4, 2034001)
	r.Add("crawlRate", S4, 812345.6)
	r.Add("crawlRss", S4, 150.5)
	for i, n := range []string{"100000", "1000000"} {
		for k, tool := range []string{S4, Plain, Borg, Restic} {
			for j, suffix := range []string{"", "CPU", "Peak"} {
				r.Add(growFirst+n+suffix, tool, float64(1+i+k*(1+j)))
				r.Add(growTen+n+suffix, tool, float64(1+i+k*(1+j)))
			}
		}
	}
	r.Add("ssh", S4, 150)
	r.Add("ssh", Borg, 140)
	r.Add("ssh", Cat, 160)
	r.Finish()
	return r
}

func TestJudge(t *testing.T) {
	holds := map[string]bool{}
	for _, g := range sampleReport().Targets {
		holds[g.Title] = g.Holds
	}
	for title, want := range map[string]bool{
		"4 KB file, with index":                      true,  // 50 times
		"big file through ssh, none/lz4":             false, // 1.07 times
		"  of what ssh cat gives":                    true,  // 0.94
		"  to kopia":                                 true,  // 4 times
		"  of s4's own stream":                       false, // 0.7 times
		"memory after a crawl of the history":        false,
		"10 changed files: of 1,000,000, to 100,000": false, // twice
		"memory: first push of 1,000,000 files":      true,
	} {
		if got, found := holds[title]; !found || got != want {
			t.Errorf("%s: holds %v, found %v", title, got, found)
		}
	}
	for _, title := range []string{"all items parsed", "find over a snapshot, first", "big file through the mount"} {
		if _, found := holds[title]; found {
			t.Errorf("%s: what was not measured is judged", title)
		}
	}
}

// Every figure that a target looks at is in a table.
func TestGoalsAreMeasured(t *testing.T) {
	known := map[string]bool{"": true}
	for _, b := range blocks([]int{100_000, 1_000_000}) {
		for _, m := range b.rows {
			if known[m.Key] {
				t.Errorf("%s stands twice", m.Key)
			}
			known[m.Key] = true
		}
	}
	for _, g := range goals() {
		for _, f := range []figure{g.of, g.by} {
			if !known[f.key] {
				t.Errorf("%s: no measure %s", g.title, f.key)
			}
		}
	}
}

// emptyDocument has a place for the results of each of these groups.
func emptyDocument(t *testing.T, groups ...string) string {
	t.Helper()
	document := filepath.Join(t.TempDir(), "bench.md")
	text := "before\n"
	for _, group := range groups {
		text += generatedBegin(group) + "stale " + group + "\n" + generatedEnd(group)
	}
	if err := os.WriteFile(document, []byte(text+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return document
}

func allGroups() (all []string) {
	for _, b := range blocks(nil) {
		all = append(all, b.group)
	}
	return all
}

func TestWrite(t *testing.T) {
	out, document := t.TempDir(), emptyDocument(t, allGroups()...)
	docs := filepath.Dir(document)
	var printed bytes.Buffer
	for range 2 { // the second time over its own results
		if err := sampleReport().Write(out, docs, &printed); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n", "\nafter\n", "20.0 ms", "50.00 ×", "160 MB/s", "2,034,001", "812,345/s", "MISSED",
		"2026-11-26 01:02 UTC", "borg 1.2.4; kopia is not installed.", "first push of 1,000,000 files", timePicture, filesPicture,
	} {
		if strings.Count(string(text), want) < 1 {
			t.Errorf("%q is not in the document:\n%s", want, text)
		}
		if want != "before\n" && want != "\nafter\n" && !strings.Contains(printed.String(), want) {
			t.Errorf("%q is not printed", want)
		}
	}
	_, file, _ := strings.Cut(string(text), generatedBegin("file"))
	_, file, _ = strings.Cut(file, "measure")
	head, _, _ := strings.Cut(file, "\n")
	if got := strings.Fields(head); !slices.Equal(got, []string{S4, Borg, "borg/s4"}) {
		t.Errorf("columns of file: %q", got)
	}
	// What gave nothing leaves the document alone, but is told.
	if !strings.Contains(string(text), "stale diff\n") || !strings.Contains(printed.String(), "Failed: diff with restic: exit status 1") {
		t.Errorf("a group that failed has replaced an earlier one's results, or is not told of:\n%s", text)
	}
	if strings.Contains(string(text), "stale ssh\n") || strings.Count(string(text), generatedBegin("ssh")) != 1 {
		t.Errorf("the old results are still there:\n%s", text)
	}
	for _, name := range []string{filesPicture, snapshotsPicture, timePicture, cpuPicture, memoryPicture} {
		for _, dir := range []string{out, filepath.Join(docs, "bench")} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if info, err := os.Stat(filepath.Join(out, "results.json")); err != nil || info.Size() == 0 {
		t.Errorf("results.json: %v", err)
	}
}

// A run of one group leaves in the document what an earlier one has measured, and
// when.
func TestGroupsAreMerged(t *testing.T) {
	document := emptyDocument(t, allGroups()...)
	if err := sampleReport().Write(t.TempDir(), filepath.Dir(document), &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	alone := &Report{
		Started: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC), Versions: map[string]string{S4: "s4 version 2"},
		Once:    []string{"file with borg"},
		Skipped: map[string]string{}, Failed: map[string]string{"file with restic": "exit status 3"},
		samples: map[string]map[string][]float64{},
	}
	alone.Add("file", S4, 0.123)
	alone.Finish()
	if err := alone.Write(t.TempDir(), filepath.Dir(document), &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	of := func(text []byte, group string) string {
		_, rest, _ := strings.Cut(string(text), generatedBegin(group))
		block, _, _ := strings.Cut(rest, generatedEnd(group))
		return block
	}
	for _, group := range allGroups() {
		if group != "file" && of(before, group) != of(after, group) {
			t.Errorf("a run of file alone changes %s:\n%s", group, of(after, group))
		}
	}
	fresh := of(after, "file")
	for _, want := range []string{"2026-12-24 18:00 UTC", "s4 version 2.", "0.12 s", "Measured once only: borg.", "Failed: file with restic: exit status 3"} {
		if !strings.Contains(fresh, want) {
			t.Errorf("%q is not in the results of file:\n%s", want, fresh)
		}
	}
	if strings.Contains(fresh, "50.00 ×") || strings.Contains(fresh, "borg 1.2.4") {
		t.Errorf("results of file are from two runs:\n%s", fresh)
	}
}

// The project's own document has a place for every group.
func TestDocumentHasPlaces(t *testing.T) {
	text, err := os.ReadFile("../../../docs/bench.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range allGroups() {
		_, rest, found := bytes.Cut(text, []byte(generatedBegin(group)))
		if !found || !bytes.Contains(rest, []byte(generatedEnd(group))) {
			t.Errorf("docs/bench.md has no place for %s", group)
		}
	}
}

// The pictures show the archives of the repository beside made-up items.
func TestIndexGrowthPicture(t *testing.T) {
	dir := t.TempDir()
	if err := sampleReport().Write(dir, "", &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	picture, err := os.ReadFile(filepath.Join(dir, snapshotsPicture))
	if err != nil || !strings.Contains(string(picture), "the same, archives") {
		t.Errorf("%v\n%s", err, picture)
	}
}

// The pictures of growth show each tool that was measured, and what was done.
func TestGrowthPictures(t *testing.T) {
	dir := t.TempDir()
	if err := sampleReport().Write(dir, "", &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{} // drawn for restic
	for _, name := range []string{timePicture, cpuPicture, memoryPicture} {
		picture, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(picture), `class="line s3"`)
		line, _, _ = strings.Cut(line, "/>")
		lines[line] = true
		for _, want := range []string{"s4 btrfs", "s4 plain", Borg, Restic, "first push", "10 files changed", ">1M<"} {
			if !strings.Contains(string(picture), want) {
				t.Errorf("%s does not show %q", name, want)
			}
		}
		for _, none := range []string{Kopia, "nothing changed"} {
			if strings.Contains(string(picture), none) {
				t.Errorf("%s shows %q, which was not measured", name, none)
			}
		}
		// Two sizes, four tools, two things done.
		if points := strings.Count(string(picture), "<circle"); points != 16 {
			t.Errorf("%s has %d points instead of 16", name, points)
		}
	}
	if len(lines) != 3 {
		t.Error("two pictures show the same figures")
	}
}

func TestFillDocumentWithoutPlace(t *testing.T) {
	document := emptyDocument(t, "ssh")
	err := sampleReport().Write(t.TempDir(), filepath.Dir(document), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(generatedBegin("file"))) {
		t.Errorf("error %v", err)
	}
	text, err := os.ReadFile(document)
	if err != nil || !strings.Contains(string(text), "160 MB/s") {
		t.Errorf("what has a place is not there: %v\n%s", err, text)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		v    float64
		u    unit
		want string
	}{
		{0.0000132, seconds, "13.2 µs"}, {0.0123, seconds, "12.3 ms"}, {2.5, seconds, "2.50 s"},
		{12.34, mebi, "12.3 MiB"}, {118.2, octets, "118 B"}, {408.7, speed, "409 MB/s"}, {2034001, entries, "2,034,001"},
	} {
		if got := format(c.v, true, c.u); got != c.want {
			t.Errorf("%v %s is shown as %q instead of %q", c.v, c.u, got, c.want)
		}
	}
	if got := format(0, false, seconds); got != "–" {
		t.Errorf("nothing is shown as %q", got)
	}
}
