// Package report holds what a bench measured: which rows its tables have, what
// the project wants of them, and how they are shown.
package report

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/e2e/bench/probe"
)

// Names of the tools, as columns.
const (
	S4     = "s4"
	Plain  = "plain" // s4 on a plain directory, where another column is on btrfs
	Borg   = "borg"
	Restic = "restic"
	Kopia  = "kopia"
	Cat    = "cat" // through ssh

	Loopback = "loopback" // go-fuse's example
	Disk     = "disk"     // the directory below
)

// Tools are in the order of the columns.
var Tools = []string{S4, Plain, Borg, Restic, Kopia, Cat, Loopback, Disk}

// result is a measure with its samples and medians by tool.
type result struct {
	Group string `json:"group"`
	measure
	Samples map[string][]float64 `json:"samples"`
	Median  map[string]float64   `json:"median"`
	Ratio   float64              `json:"ratioToPeer,omitempty"` // above 1, s4 is better
}

// Report is all of a run; it is written as it is.
type Report struct {
	Started    time.Time           `json:"started"`
	Seconds    float64             `json:"seconds"` // the measures took
	Parameters Parameters          `json:"parameters"`
	Runs       int                 `json:"runs"`
	Sizes      []int               `json:"sizes"` // of the trees in the group growth, in files
	Corpus     Corpus              `json:"corpus"`
	Versions   map[string]string   `json:"versions"`
	Missing    map[string][]string `json:"missing,omitempty"` // tools that are not installed, by group that would measure them
	Machine    machine             `json:"machine"`
	Stored     map[string]int64    `json:"repositoryBytes"` // by file name
	Results    []result            `json:"results"`
	Targets    []target            `json:"targets"`
	Failed     map[string]string   `json:"failed,omitempty"`  // why, by group and tool
	Skipped    map[string]string   `json:"skipped,omitempty"` // so
	Once       []string            `json:"once,omitempty"`    // groups with tools of which there is one sample
	Index      *probe.GrowthAnswer `json:"indexGrowth,omitempty"`
	Archives   []probe.Took        `json:"archives,omitempty"` // into the index, one after the other, in the last run
	Notes      []string            `json:"notes"`

	samples map[string]map[string][]float64 // by key and tool
}

// Parameters say what data is made; the same ones always make the same.
type Parameters struct {
	Files     int    `json:"files"`
	Snapshots int    `json:"snapshots"`
	Big       int64  `json:"big"` // bytes
	Seed      uint64 `json:"seed"`
}

// Check refuses what is too little to measure anything.
func (p Parameters) Check() error {
	if p.Files < 100 || p.Snapshots < 2 || p.Big < 1 {
		return errors.New("at least 100 files, 2 snapshots and a byte of the big file are needed")
	}
	return nil
}

// Corpus is how the first snapshot looks.
type Corpus struct {
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
	"Medians. borg/s4 is how many times better s4 is than borg; for MB/s it is s4/borg. Likewise with other peers.",
	"Indexes, the tools' caches and the page cache below are warm where nothing else is said.",
}

// New begins a report: the clock runs from now on.
func New(p Parameters, runs int, sizes []int, c Corpus) *Report {
	return &Report{
		Started: time.Now().UTC(), Parameters: p, Runs: runs, Sizes: sizes, Corpus: c,
		Versions: map[string]string{}, Missing: map[string][]string{}, Machine: thisMachine(), Stored: map[string]int64{},
		Failed: map[string]string{}, Skipped: map[string]string{}, Notes: notes,
		samples: map[string]map[string][]float64{},
	}
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

// Add takes one sample.
func (r *Report) Add(key, tool string, value float64) {
	if r.samples[key] == nil {
		r.samples[key] = map[string][]float64{}
	}
	r.samples[key][tool] = append(r.samples[key][tool], value)
}

// Finish works out medians, ratios and targets.
func (r *Report) Finish() {
	r.Seconds = time.Since(r.Started).Seconds()
	r.Machine.LoadAfter = load()
	for _, b := range blocks(r.Sizes) {
		for _, m := range b.rows {
			if samples := r.samples[m.Key]; samples != nil {
				r.Results = append(r.Results, newResult(b, m, samples))
			}
		}
	}
	r.Targets = r.judge()
}

func newResult(b block, m measure, samples map[string][]float64) result {
	res := result{Group: b.group, measure: m, Samples: samples, Median: map[string]float64{}}
	for tool, s := range samples {
		res.Median[tool] = probe.Median(s)
	}
	s4, peer := res.Median[S4], res.Median[b.comparedWith()]
	if s4 > 0 && peer > 0 {
		res.Ratio = peer / s4
		if m.Unit.moreIsBetter() {
			res.Ratio = s4 / peer
		}
	}
	return res
}

// median gives a figure, if it was measured.
func (r *Report) median(f figure) (float64, bool) {
	for _, res := range r.Results {
		if res.Key == f.key {
			v, ok := res.Median[f.tool]
			return v, ok
		}
	}
	return 0, false
}
