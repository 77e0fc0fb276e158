package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// measure is one row of the table.
type measure struct {
	Key   string `json:"key"`
	Title string `json:"title"`
	Unit  unit   `json:"unit"`
}

type unit string

const (
	seconds unit = "s"
	mebi    unit = "MiB"
	speed   unit = "MB/s" // the only one of which more is better
)

// measures are the rows in the order they are shown.
var measures = []measure{
	{"list", "mount → list of snapshots", seconds},
	{"first", "mount → first byte in an old snapshot", seconds},
	{"second", "  then: first byte of a second file", seconds},
	{"find", "find over the old snapshot, first", seconds},
	{"again", "find over it again", seconds},
	{"another", "find over another snapshot", seconds},
	{"size", "find -size +1M (stat of all)", seconds},
	{"small", "1,000 random small files, cold", seconds},
	{"rss", "memory after these (VmRSS)", mebi},
	{"peak", "  its peak (VmHWM)", mebi},
	{"cpu", "  CPU of the mount's process", seconds},
	{"bigMount", "big file in sequence, mount", speed},
	{"bigStream", "big file, stream to a pipe", speed},
	{"rssBig", "memory after the big file (VmRSS)", mebi},
	{"peakBig", "  its peak (VmHWM)", mebi},
	{"cpuBig", "  CPU of the mount's process", seconds},
	{"indexFirst", "first sight → newest snapshot shown", seconds},
	{"indexCPUFirst", "  CPU", seconds},
	{"indexSizeFirst", "  index on disk", mebi},
	{"indexAll", "first sight → all snapshots indexed", seconds},
	{"indexCPUAll", "  CPU", seconds},
	{"indexSizeAll", "  index on disk", mebi},
	{"indexPeak", "  peak memory (VmHWM)", mebi},
}

// result is a measure with its samples and medians by tool.
type result struct {
	measure
	Samples map[string][]float64 `json:"samples"`
	Median  map[string]float64   `json:"median"`
	Ratio   float64              `json:"ratioToBorg,omitempty"` // above 1, s4 is better
}

// report is all of a run; it is written as it is.
type report struct {
	Started    time.Time         `json:"started"`
	Seconds    float64           `json:"seconds"` // the measures took
	Parameters params            `json:"parameters"`
	Runs       int               `json:"runs"`
	Corpus     corpus            `json:"corpus"`
	Versions   map[string]string `json:"versions"`
	Machine    machine           `json:"machine"`
	Stored     map[string]int64  `json:"repositoryBytes"` // by file name
	Results    []result          `json:"results"`
	Targets    []target          `json:"targets"`
	Failed     map[string]string `json:"failed,omitempty"` // why, by tool
	Notes      []string          `json:"notes"`

	tools   []string
	samples map[string]map[string][]float64 // by key and tool
}

// corpus is how the first snapshot looks.
type corpus struct {
	Files   int   `json:"files"`
	Entries int   `json:"entries"`
	Bytes   int64 `json:"bytes"`
}

type machine struct {
	Cores      int        `json:"cores"`
	CPU        string     `json:"cpu"`
	Kernel     string     `json:"kernel"`
	Memory     uint64     `json:"memory"` // bytes
	LoadBefore [3]float64 `json:"loadBefore"`
	LoadAfter  [3]float64 `json:"loadAfter"`
}

var notes = []string{
	"Medians. borg/s4 is how many times better s4 is than borg; for MB/s it is s4/borg.",
	"Each sample has a fresh mount. Indexes, the tools' caches and the page cache below are warm.",
	"s4 and borg read the same repository, unencrypted; restic and kopia always encrypt.",
}

func (b *bench) newReport(ctx context.Context) *report {
	t := newTree(b.params)
	r := &report{
		Started: time.Now().UTC(), Parameters: b.params, Runs: b.Runs,
		Corpus:   corpus{len(t.files), t.entries(), t.bytes()},
		Versions: map[string]string{}, Machine: thisMachine(), Stored: map[string]int64{},
		Failed: map[string]string{}, Notes: notes,
		samples: map[string]map[string][]float64{},
	}
	for _, t := range b.tools {
		r.tools = append(r.tools, t.name)
		out, err := b.run(ctx, t, b.dir, t.version...)
		if err != nil {
			out = []byte(err.Error())
		}
		r.Versions[t.name], _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
		for _, kind := range []string{"history", "big"} {
			repo := b.repository(t, kind)
			if size, err := treeSize(repo); err == nil {
				r.Stored[filepath.Base(repo)] = size
			}
		}
	}
	return r
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), LoadBefore: load()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = uint64(s.Totalram) * uint64(s.Unit) //nolint:unconvert // 32 bits wide on some machines
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(text), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.Trim(line, " \t:")
	}
	return m
}

func load() (l [3]float64) {
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &l[0], &l[1], &l[2])
	}
	return l
}

func (r *report) add(key, tool string, value float64) {
	if r.samples[key] == nil {
		r.samples[key] = map[string][]float64{}
	}
	r.samples[key][tool] = append(r.samples[key][tool], value)
}

// finish works out medians, ratios and targets.
func (r *report) finish() {
	r.Seconds = time.Since(r.Started).Seconds()
	r.Machine.LoadAfter = load()
	for _, m := range measures {
		samples := r.samples[m.Key]
		if samples == nil {
			continue
		}
		res := result{measure: m, Samples: samples, Median: map[string]float64{}}
		for tool, s := range samples {
			res.Median[tool] = median(s)
		}
		s4, borg := res.Median[nameS4], res.Median[nameBorg]
		if s4 > 0 && borg > 0 {
			res.Ratio = borg / s4
			if m.Unit == speed {
				res.Ratio = s4 / borg
			}
		}
		r.Results = append(r.Results, res)
	}
	r.Targets = r.judge()
}

func median(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// write saves results.json in dir and prints the table.
func (r *report) write(dir string, w io.Writer) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "results.json")
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return err
	}
	p := r.Parameters
	fmt.Fprintf(w, "\n%s files (%s), %d snapshots, a file of %s, %d runs, %d cores (%s), load %.1f before and %.1f after\n",
		humanize.Comma(int64(r.Corpus.Files)), humanize.Bytes(uint64(r.Corpus.Bytes)), p.Snapshots, humanize.Bytes(uint64(p.Big)),
		r.Runs, r.Machine.Cores, r.Machine.CPU, r.Machine.LoadBefore[0], r.Machine.LoadAfter[0])
	for _, name := range r.tools {
		fmt.Fprintf(w, "%s: %s\n", name, r.Versions[name])
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	// Titles stand to the left, though the table is set to the right.
	title := func(s string) { fmt.Fprintf(t, "%-38s\t", s) }
	title("measure")
	fmt.Fprintf(t, "%s\tborg/s4\t\n", strings.Join(toolNames, "\t"))
	for _, res := range r.Results {
		title(res.Title)
		for _, name := range toolNames {
			v, ok := res.Median[name]
			fmt.Fprint(t, format(v, ok, res.Unit), "\t")
		}
		ratio := "–"
		if res.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f ×", res.Ratio)
		}
		fmt.Fprintf(t, "%s\t\n", ratio)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, n)
	}
	for name, why := range r.Failed {
		fmt.Fprintf(w, "%s failed: %s\n", name, why)
	}
	fmt.Fprintln(w)
	for _, t := range r.Targets {
		fmt.Fprintln(w, t)
	}
	fmt.Fprintln(w, "all samples:", file)
	return nil
}

func format(v float64, ok bool, u unit) string {
	switch {
	case !ok:
		return "–"
	case u == seconds && v < 0.1:
		return fmt.Sprintf("%.1f ms", v*1000)
	case u == seconds:
		return fmt.Sprintf("%.2f s", v)
	case u == speed:
		return fmt.Sprintf("%.0f MB/s", v)
	}
	return fmt.Sprintf("%.1f MiB", v)
}
