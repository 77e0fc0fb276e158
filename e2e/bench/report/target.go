package report

import (
	"fmt"
	"slices"
)

// figure is one tool's median of a measure.
type figure struct{ key, tool string }

// target is a bound for a figure, or for a figure divided by another one.
type target struct {
	Title string  `json:"title"`
	Bound string  `json:"bound"` // as a person reads it
	Value float64 `json:"value"`
	Holds bool    `json:"holds"`

	unit  unit
	group string
}

// goal is a target before it is measured.
type goal struct {
	title string
	of    figure
	by    figure // divides, where it is set
	least float64
	most  float64 // the bound is one of the two
	unit  unit    // "" for a quotient
}

// sooner wants a measure in so many times less than another tool's.
func sooner(title, key, than string, least float64) goal {
	return goal{title: title, of: figure{key, than}, by: figure{key, S4}, least: least}
}

// quicker wants it in so many times less than borg's.
func quicker(title, key string, least float64) goal { return sooner(title, key, Borg, least) }

// faster wants more MB/s.
func faster(title, key, than string, least float64) goal {
	return goal{title: title, of: figure{key, S4}, by: figure{key, than}, least: least}
}

// within wants a bound kept.
func within(title, key string, most float64, u unit) goal {
	return goal{title: title, of: figure{key, S4}, most: most, unit: u}
}

// share wants one of s4's figures at most so many times another one.
func share(title, key, of string, most float64) goal {
	return goal{title: title, of: figure{key, S4}, by: figure{of, S4}, most: most}
}

const (
	listingMemory   = 64  // MiB
	streamingMemory = 128 // MiB
	mountMemory     = 100 // MiB, of a mount's process
	crawlMemory     = 150 // MiB, after two million entries
	pushMemory      = 200 // MiB, of a push
)

func goals() []goal {
	return []goal{
		within("mount → list of snapshots", "list", 0.1, seconds),
		quicker("  to borg", "list", 5),
		within("mount → first byte in an old snapshot", "first", 0.15, seconds),
		quicker("  to borg", "first", 10),
		quicker("find over a snapshot, first", "find", 3),
		sooner("  to kopia", "find", Kopia, 3),
		quicker("find over it again", "again", 3),
		sooner("  to kopia", "again", Kopia, 3),
		quicker("find over another snapshot", "another", 3),
		sooner("  to kopia", "another", Kopia, 3),
		quicker("1,000 random small files, cold", "small", 3),
		within("memory after browsing", "rss", mountMemory, mebi),
		quicker("  its peak, to borg", "peak", 1),
		faster("big file through the mount", "bigMount", Borg, 2),
		{title: "  of s4's own stream", of: figure{"bigMount", S4}, by: figure{"stream", S4}, least: 0.9},
		within("memory after the big file", "rssBig", mountMemory, mebi),
		quicker("  its peak, to borg", "peakBig", 1),
		within("memory after a crawl of the history", "crawlRss", crawlMemory, mebi),

		sooner("live find", "liveFind", Loopback, 2.5),
		sooner("live stat of all", "liveStat", Loopback, 1),
		sooner("10,000 live files made", "liveMake", Loopback, 1),
		sooner("10,000 live files removed", "liveRemove", Loopback, 1),
		faster("live big file written", "liveWrite", Disk, 0.95),
		faster("live big file read", "liveRead", Disk, 0.95),

		quicker("4 KB file, with index", "file", 10),
		quicker("4 KB file, without", "fileFresh", 3),
		quicker("all items parsed", "items", 6),
		faster("big file, none/lz4", "stream", Borg, 2),
		faster("big file, repokey-blake2/lz4", "sealed", Borg, 2),
		faster("big file through ssh, none/lz4", "ssh", Borg, 1.5),
		{title: "  of what ssh cat gives", of: figure{"ssh", S4}, by: figure{"ssh", Cat}, least: 0.9},
		faster("big file through ssh, repokey-blake2/lz4", "sshSealed", Borg, 1.5),
		{title: "  of what ssh cat gives", of: figure{"sshSealed", S4}, by: figure{"ssh", Cat}, least: 0.9},
		within("memory: 4 KB file, with index", "filePeak", listingMemory, mebi),
		within("memory: 4 KB file, without", "fileFreshPeak", listingMemory, mebi),
		within("memory: all items", "itemsPeak", listingMemory, mebi),
		within("memory: big file, none/lz4", "streamPeak", streamingMemory, mebi),
		within("memory: big file, repokey-blake2/lz4", "sealedPeak", streamingMemory, mebi),
		within("memory: big file through ssh, none/lz4", "sshPeak", streamingMemory, mebi),
		within("memory: big file through ssh, repokey-blake2/lz4", "sshSealedPeak", streamingMemory, mebi),

		within("first archive indexed, CPU", "ingestFirstCPU", 2.5, seconds),
		quicker("first archive indexed, to borg list", "ingestFirst", 3),
		share("each further one, to the first: scattered, CPU", "ingestNextCPU", "ingestFirstCPU", 0.1),
		share("each further one, to the first: clustered, CPU", "clusteredNextCPU", "clusteredFirstCPU", 0.1),
		share("all archives, to the first", "ingestAll", "ingestFirst", 3),
		share("all archives at one go, to the first", "fill", "ingestFirst", 3),
		share("index on disk: all archives, to one", "ingestSizeAll", "ingestSize", 1.5),
		within("index on disk for each file", "ingestPerFile", 150, octets),
		within("TIME:PATH → metadata", "resolve", 0.001, seconds),
		within("list of 1,000 entries", "wide", 0.001, seconds),
		within("all versions of a file, within a process", "versionsIn", 0.005, seconds),
		within("diff of neighbours", "diff", 0.05, seconds),
		within("find by name over all time", "name", 0.3, seconds),

		quicker("first push, none", "pushFirst", 2.5),
		quicker("first push, repokey-blake2", "pushSealed", 3),
		sooner("  to restic", "pushSealed", Restic, 1),
		sooner("  to kopia", "pushSealed", Kopia, 1),
		quicker("push of nothing changed, plain directory", "pushSame", 10),
		within("push of nothing changed, btrfs", "pushSameBtrfs", 0.05, seconds),
		{title: "  through ssh, to a login alone", of: figure{"pushFarSame", S4}, by: figure{"pushLogin", Cat}, most: 1.2},
		within("push of 10 files changed, btrfs", "pushTen", 0.3, seconds),
		within("push of a page in 1 GiB, btrfs", "pushPage", 0.3, seconds),
		within("memory: first push", "pushFirstPeak", pushMemory, mebi),
		within("memory: first push of 1 GiB", "pushBigPeak", pushMemory, mebi),

		share("10 changed files: of 1,000,000, to 100,000", growTen+"1000000", growTen+"100000", 1.5),
		within("memory: first push of 1,000,000 files", growFirst+"1000000Peak", pushMemory, mebi),
		within("  nothing changed", growSame+"1000000Peak", pushMemory, mebi),
		within("  10 files changed", growTen+"1000000Peak", pushMemory, mebi),
		{title: "  first push, plain directory", of: figure{growFirst + "1000000Peak", Plain}, most: pushMemory, unit: mebi},
		{title: "  nothing changed, plain directory", of: figure{growSame + "1000000Peak", Plain}, most: pushMemory, unit: mebi},
		{title: "  10 files changed, plain directory", of: figure{growTen + "1000000Peak", Plain}, most: pushMemory, unit: mebi},

		within("very many snapshots: mount → list", "manyList", 0.1, seconds),
		quicker("  to borg", "manyList", 5),
		within("memory, very many snapshots", "manyRss", mountMemory, mebi),

		within("replication, behind: light writer", "replicateLight", 1, seconds),
		within("replication, behind: light writer, through ssh", "replicateFar", 1, seconds),
		within("replication, behind: heavy writer", "replicateHeavy", 1, seconds),
		within("replication, idle", "replicateIdle", 0.5, percent),
		within("snapshot of 100,000 files", "change100000Snapshot", 0.05, seconds),
		within("difference of 10 in 10,000 files", "change10000Difference", 0.05, seconds),
		within("difference of 10 in 100,000 files", "change100000Difference", 0.05, seconds),
		within("difference of 10 in 1,000,000 files", "change1000000Difference", 0.05, seconds),

		within("memory, very many files: indexing", "millionAllPeak", 128, mebi),
		within("memory, very many files: indexing at one go", "millionFillPeak", 128, mebi),
		within("memory, very many files: all items", "millionItemsPeak", 128, mebi),
		within("memory, very many files: one file", "millionFilePeak", 128, mebi),
		within("memory, very many files: questions", "millionLookPeak", 128, mebi),
		within("memory, very many files: versions", "millionLogPeak", 128, mebi),
		within("memory, very many files: diff", "millionDiffPeak", 128, mebi),
		within("memory, very many files: find by name", "millionNamePeak", 128, mebi),
	}
}

// judge compares the results with the project's targets, as far as they were
// measured.
func (r *Report) judge() (all []target) {
	for _, g := range goals() {
		value, ok := r.median(g.of)
		if g.by != (figure{}) {
			by, found := r.median(g.by)
			value, ok = value/by, ok && found && by > 0
		}
		if !ok {
			continue
		}
		t := target{Title: g.title, Value: value, unit: g.unit, group: r.groupOf(g.of), Holds: value >= g.least}
		t.Bound = "at least " + bound(g.least, g.unit)
		if g.most > 0 {
			t.Bound, t.Holds = "at most "+bound(g.most, g.unit), value <= g.most
		}
		all = append(all, t)
	}
	return all
}

// groupOf tells which group has measured a figure.
func (r *Report) groupOf(f figure) string {
	i := slices.IndexFunc(r.Results, func(res result) bool { return res.Key == f.key })
	return r.Results[i].Group
}

// bound writes a limit or a quotient.
func bound(v float64, u unit) string {
	switch u {
	case "":
		return fmt.Sprintf("%.4g ×", v)
	case seconds:
		if v < 0.1 {
			return fmt.Sprintf("%.4g ms", v*1000)
		}
	}
	return fmt.Sprintf("%.4g %s", v, u)
}

func (t target) row() []string {
	verdict, value := "MISSED", format(t.Value, true, t.unit)
	if t.Holds {
		verdict = "holds"
	}
	if t.unit == "" {
		value = fmt.Sprintf("%.2f ×", t.Value)
	}
	return []string{t.Bound, value, verdict}
}
