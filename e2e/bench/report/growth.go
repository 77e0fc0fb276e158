package report

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/dustin/go-humanize"

	"github.com/s4-storage/s4/e2e/bench/plot"
	"github.com/s4-storage/s4/e2e/bench/probe"
)

// Pictures of the growth of a push, by file name.
const (
	timePicture   = "growth-time.svg"
	cpuPicture    = "growth-cpu.svg"
	memoryPicture = "growth-memory.svg"
)

// growth shows the pictures.
func (r *Report) growth(w io.Writer) {
	fmt.Fprintf(w, "\n![Time of a push against the number of files](bench/%s)\n", timePicture)
	fmt.Fprintf(w, "\n![Processor time of a push against the number of files](bench/%s)\n", cpuPicture)
	fmt.Fprintf(w, "\n![Peak memory of a push against the number of files](bench/%s)\n", memoryPicture)
}

// drawGrowth writes the pictures of the growth of a push into dir.
func (r *Report) drawGrowth(dir string) error {
	for _, picture := range []struct{ name, suffix, y string }{
		{timePicture, "", "s"}, {cpuPicture, "CPU", "s of processor time"}, {memoryPicture, "Peak", "MiB at most"},
	} {
		var charts []plot.Chart
		for _, work := range []struct{ key, title string }{
			{growFirst, "first push"}, {growSame, "nothing changed"}, {growTen, "10 files changed"},
		} {
			c := plot.Chart{Title: work.title, X: "files", Y: picture.y, Log: true}
			for _, tool := range []struct{ name, shown string }{
				{S4, "s4 btrfs"}, {Plain, "s4 plain"}, {Borg, Borg}, {Restic, Restic}, {Kopia, Kopia},
			} {
				s := plot.Series{Name: tool.shown}
				for _, n := range r.Sizes {
					// No processor time at all is none that can be shown.
					if v, ok := r.median(figure{work.key + strconv.Itoa(n) + picture.suffix, tool.name}); ok && v > 0 {
						s.Points = append(s.Points, plot.Point{X: float64(n), Y: v})
					}
				}
				c.Series = append(c.Series, s)
			}
			if slices.ContainsFunc(c.Series, func(s plot.Series) bool { return len(s.Points) > 0 }) {
				charts = append(charts, c)
			}
		}
		if len(charts) == 0 {
			return nil
		}
		if err := drawInto(dir, picture.name, charts...); err != nil {
			return err
		}
	}
	return nil
}

// drawInto writes one picture.
func drawInto(dir, name string, charts ...plot.Chart) error {
	var b bytes.Buffer
	if err := plot.Draw(&b, charts...); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)
}

// indexGrowth is the group that measures the index alone.
const indexGrowth = "index-growth"

// Pictures of the growth of the index, by file name.
const (
	filesPicture     = "index-files.svg"
	snapshotsPicture = "index-snapshots.svg"
)

// indexGrowth is a table of its own: its rows are sizes.
func (r *Report) indexGrowth(w io.Writer) {
	rows := [][]string{{"files", "indexed in", "CPU", "on disk", "find a path"}}
	for _, p := range r.Index.Files {
		rows = append(rows, []string{
			humanize.Comma(int64(p.X)), format(p.Ingest, true, seconds), format(p.CPU, true, seconds),
			format(float64(p.Bytes)/(1<<20), true, mebi), format(p.Find, true, seconds),
		})
	}
	grid(w, rows)
	fmt.Fprintf(w, "\n![Time to index, size on disk and time to find a path against the number of files](bench/%s)\n", filesPicture)
	fmt.Fprintf(w, "\n![The same against the number of snapshots of %s files](bench/%s)\n", humanize.Comma(int64(r.Corpus.Files)), snapshotsPicture)
}

// drawIndexGrowth writes the pictures of the growth of the index into dir.
func (r *Report) drawIndexGrowth(dir string) error {
	g, archives := r.Index, r.Archives
	if g == nil {
		return nil
	}
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
		if err := drawInto(dir, picture.name,
			ingest,
			chart("index on disk", "MB", series("", func(p probe.Point) float64 { return float64(p.Bytes) * mega })),
			chart("find a path, warm", "µs", series("", func(p probe.Point) float64 { return p.Find * micro })),
		); err != nil {
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
