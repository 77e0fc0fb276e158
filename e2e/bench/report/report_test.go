package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/s4-storage/s4/e2e/bench/probe"
)

func sampleReport() *Report {
	r := &Report{
		Versions: map[string]string{S4: "s4 version 1"},
		Failed:   map[string]string{"diff with restic": "exit status 1"}, Skipped: map[string]string{},
		samples: map[string]map[string][]float64{},
		Growth: &probe.GrowthAnswer{
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
		"4 KB file, with index":               true,  // 50 times
		"big file through ssh, none/lz4":      false, // 1.07 times
		"  of what ssh cat gives":             true,  // 0.94
		"  to kopia":                          true,  // 4 times
		"  of s4's own stream":                false, // 0.7 times
		"memory after a crawl of the history": false,
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
	for _, table := range tables() {
		for _, m := range table.rows {
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

func TestWrite(t *testing.T) {
	out, docs := t.TempDir(), t.TempDir()
	document := filepath.Join(docs, "bench.md")
	old := "before\n" + generatedBegin + "\nstale\n" + generatedEnd + "\nafter\n"
	if err := os.WriteFile(document, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
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
	for _, want := range []string{"before\n", "\nafter\n", "20.0 ms", "50.00 ×", "160 MB/s", "2,034,001", "812,345/s", "MISSED", "Failed: diff with restic"} {
		if strings.Count(string(text), want) < 1 {
			t.Errorf("%q is not in the document:\n%s", want, text)
		}
		if want != "before\n" && want != "\nafter\n" && !strings.Contains(printed.String(), want) {
			t.Errorf("%q is not printed", want)
		}
	}
	if strings.Contains(string(text), "stale") || strings.Count(string(text), generatedBegin) != 1 {
		t.Errorf("the old results are still there:\n%s", text)
	}
	for _, name := range []string{filepath.Join(out, "results.json"), filepath.Join(docs, "bench", filesPicture), filepath.Join(out, snapshotsPicture)} {
		if info, err := os.Stat(name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The pictures show the archives of the repository beside made-up items.
func TestGrowthPicture(t *testing.T) {
	dir := t.TempDir()
	if err := sampleReport().Write(dir, "", &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	picture, err := os.ReadFile(filepath.Join(dir, snapshotsPicture))
	if err != nil || !strings.Contains(string(picture), "the same, archives") {
		t.Errorf("%v\n%s", err, picture)
	}
}

func TestFillDocumentWithoutPlace(t *testing.T) {
	document := filepath.Join(t.TempDir(), "bench.md")
	if err := os.WriteFile(document, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fillDocument(document, []byte("new")); err == nil {
		t.Error("no error")
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
