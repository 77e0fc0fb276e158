package probe

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestGrowth(t *testing.T) {
	dir := t.TempDir()
	text, err := json.Marshal(Growth{Dir: dir, Files: []int{100, 2000}, Of: 500, Snapshots: 3})
	if err != nil {
		t.Fatal(err)
	}
	request := filepath.Join(dir, "request.json")
	if err := os.WriteFile(request, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Run(t.Context(), []string{"growth", request}, &out); err != nil {
		t.Fatal(err)
	}
	var a GrowthAnswer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if len(a.Files) != 2 || len(a.Snapshots) != 3 {
		t.Fatalf("%d and %d points instead of 2 and 3", len(a.Files), len(a.Snapshots))
	}
	for _, p := range append(a.Files, a.Snapshots...) {
		if p.X == 0 || p.Ingest <= 0 || p.Find <= 0 || p.Bytes == 0 {
			t.Errorf("nothing measured: %+v", p)
		}
	}
	if a.Files[0].Bytes >= a.Files[1].Bytes {
		t.Errorf("twenty times as many files take %d bytes instead of %d", a.Files[1].Bytes, a.Files[0].Bytes)
	}
	left, err := filepath.Glob(filepath.Join(dir, "growth.db*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestRunRefuses(t *testing.T) {
	for _, args := range [][]string{nil, {"growth"}, {"unknown", os.DevNull}, {"growth", "/nowhere"}} {
		if err := Run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{4, 2}, 3}, {[]float64{9, 1, 2}, 2}} {
		if got := Median(c.of); got != c.want {
			t.Errorf("median of %v is %v instead of %v", c.of, got, c.want)
		}
	}
}
