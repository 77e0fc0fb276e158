package report

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/s4-storage/s4/e2e/bench/plot"
	"github.com/s4-storage/s4/e2e/bench/probe"
)

// Pictures of the growth, by file name.
const (
	filesPicture     = "growth-files.svg"
	snapshotsPicture = "growth-snapshots.svg"
)

// drawGrowth writes the pictures into dir.
func drawGrowth(dir string, g *probe.GrowthAnswer, archives []probe.Took) error {
	const mega, micro = 1e-6, 1e6
	for _, picture := range []struct {
		name, x string
		log     bool
		points  []probe.Point
	}{
		{filesPicture, "files", true, g.Files},
		{snapshotsPicture, "snapshots", false, g.Snapshots},
	} {
		chart := func(title, y string, of ...plot.Series) plot.Chart {
			return plot.Chart{Title: title, X: picture.x, Y: y, Log: picture.log, Series: of}
		}
		series := func(name string, of func(p probe.Point) float64) plot.Series {
			s := plot.Series{Name: name}
			for _, p := range picture.points {
				s.Points = append(s.Points, plot.Point{X: float64(p.X), Y: of(p)})
			}
			return s
		}
		ingest := chart("index one snapshot", "s",
			series("wall time", func(p probe.Point) float64 { return p.Ingest }),
			series("processor time", func(p probe.Point) float64 { return p.CPU }))
		if !picture.log {
			ingest.Title = "index one more snapshot"
			if len(archives) > 0 {
				ingest.Series = append(ingest.Series, archivesSeries(archives))
			}
		}
		var b bytes.Buffer
		if err := plot.Draw(&b,
			ingest,
			chart("index on disk", "MB", series("", func(p probe.Point) float64 { return float64(p.Bytes) * mega })),
			chart("find a path, warm", "µs", series("", func(p probe.Point) float64 { return p.Find * micro })),
		); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, picture.name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// archivesSeries is the processor time of the archives of a real repository.
func archivesSeries(archives []probe.Took) plot.Series {
	s := plot.Series{Name: "the same, archives"}
	for i, took := range archives {
		s.Points = append(s.Points, plot.Point{X: float64(i + 1), Y: took.CPU})
	}
	return s
}
