package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestAxes(t *testing.T) {
	for _, c := range []struct {
		name  string
		got   axis
		ticks []float64
	}{
		{"powers of ten", decades(1000, 1e6), []float64{1e3, 1e4, 1e5, 1e6}},
		{"between powers", decades(0.02, 3), []float64{0.01, 0.1, 1, 10}},
		{"one value", decades(100, 100), []float64{100, 1000}},
		{"thirty", fromZero(30), []float64{0, 10, 20, 30}},
		{"small", fromZero(0.023), []float64{0, 0.005, 0.01, 0.015, 0.02, 0.025}},
		{"zero alone", fromZero(0), []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
	} {
		same := slices.EqualFunc(c.got.ticks, c.ticks, func(a, b float64) bool { return a-b < 1e-12 && b-a < 1e-12 })
		if !same {
			t.Errorf("%s: ticks %v, want %v", c.name, c.got.ticks, c.ticks)
		}
		first, last := c.got.ticks[0], c.got.ticks[len(c.got.ticks)-1]
		if a, b := c.got.place(first), c.got.place(last); a < -1e-9 || a > 1e-9 || b < 1-1e-9 || b > 1+1e-9 {
			t.Errorf("%s: the ends are at %v and %v", c.name, a, b)
		}
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.02: "0.02", 15: "15", 1000: "1k", 250_000: "250k", 1e6: "1M", 2.5e9: "2.5G"} {
		if got := Short(v); got != want {
			t.Errorf("%v is shown as %q, want %q", v, got, want)
		}
	}
}

func TestDraw(t *testing.T) {
	points := []Point{{1, 2}, {10, 30}, {100, 400}}
	var b strings.Builder
	err := Draw(&b,
		Chart{Title: "a < b", X: "files", Y: "ms", Log: true, Series: []Series{{"one", points}}},
		Chart{Title: "second", X: "snapshots", Y: "MiB", Series: []Series{{"one", points}, {"two", points[:2]}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	var texts []string
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			count[e.Name.Local]++
		case xml.CharData:
			texts = append(texts, string(e))
		}
	}
	if count["circle"] != 8 {
		t.Errorf("%d points are drawn instead of 8", count["circle"])
	}
	for _, want := range []string{"a < b", "files", "ms", "second", "MiB", "two", "100"} {
		if !slices.Contains(texts, want) {
			t.Errorf("%q is not in the picture", want)
		}
	}
}

func TestDrawRefuses(t *testing.T) {
	for name, c := range map[string]Chart{
		"no points":      {Series: []Series{{"one", nil}}},
		"0 on powers":    {Log: true, Series: []Series{{"one", []Point{{1, 0}}}}},
		"negative value": {Series: []Series{{"one", []Point{{1, -1}}}}},
	} {
		if Draw(io.Discard, c) == nil {
			t.Errorf("%s: drawn without an error", name)
		}
	}
}
