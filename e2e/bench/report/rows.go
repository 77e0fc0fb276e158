package report

import (
	"fmt"
	"io"
	"strconv"

	"github.com/dustin/go-humanize"
)

// measure is one row of a table.
type measure struct {
	Key   string `json:"key"`
	Title string `json:"title"`
	Unit  unit   `json:"unit"`
}

type unit string

const (
	seconds unit = "s"
	mebi    unit = "MiB"
	octets  unit = "B"
	speed   unit = "MB/s"
	entries unit = "entries"
	rate    unit = "entries/s"
	percent unit = "%"
)

// moreIsBetter holds for what is there in a second, and for nothing else.
func (u unit) moreIsBetter() bool { return u == speed || u == rate }

// block is what one group of measures shows. It is generated as a whole, and
// replaced in a document as a whole, so that what other groups measured at some
// other time stays beside it.
type block struct {
	group string
	title string
	notes []string
	rows  []measure
	peer  string // whom s4 is compared with; "" is borg
	own   bool   // has data of its own, which the notes tell of

	more func(r *Report, w io.Writer) // writes what comes after the rows
}

func (b *block) comparedWith() string {
	if b.peer == "" {
		return Borg
	}
	return b.peer
}

// using adds processor time and memory to a measure of a whole command.
func using(m measure) []measure {
	return []measure{m, {m.Key + "CPU", "  CPU", seconds}, {m.Key + "Peak", "  peak memory", mebi}}
}

// remote adds what the server spent.
func remote(m measure) []measure {
	return append(using(m), measure{m.Key + "Far", "  CPU of sshd and what it runs", seconds})
}

const (
	freshMount  = "Each sample has a fresh mount."
	sameReading = "s4 and borg read the same repository, unencrypted; restic and kopia always encrypt."
	whole       = "From the start of the program to its end. Memory is the peak of the largest process here; what is mapped counts."
	bigContent  = "The big file is half text that lz4 halves, half random bytes, in stretches of 4 MiB."
	throughSSH  = "Through ssh to this machine."
)

// blocks are in the order of a report; sizes are those of the group growth.
func blocks(sizes []int) []block {
	return []block{
		{group: "index", title: "First sight of a repository", notes: []string{
			"s4 mount of a repository that it has never seen.",
		}, rows: []measure{
			{"indexFirst", "newest snapshot shown", seconds},
			{"indexCPUFirst", "  CPU", seconds},
			{"indexSizeFirst", "  index on disk", mebi},
			{"indexAll", "all snapshots indexed", seconds},
			{"indexCPUAll", "  CPU", seconds},
			{"indexSizeAll", "  index on disk", mebi},
			{"indexPeak", "  peak memory (VmHWM)", mebi},
		}},
		{group: "list", title: "Mounts: list of snapshots", notes: []string{freshMount, sameReading}, rows: []measure{
			{"list", "mount → list of snapshots", seconds},
		}},
		{group: "first", title: "Mounts: first byte", notes: []string{freshMount, sameReading}, rows: []measure{
			{"first", "mount → first byte in an old snapshot", seconds},
			{"second", "  then: first byte of a second file", seconds},
		}},
		{group: "browse", title: "Mounts: browsing", notes: []string{freshMount, sameReading}, rows: []measure{
			{"find", "find over the old snapshot, first", seconds},
			{"again", "find over it again", seconds},
			{"another", "find over another snapshot", seconds},
			{"size", "find -size +1M (stat of all)", seconds},
			{"small", "1,000 random small files, cold", seconds},
			{"rss", "memory after these (VmRSS)", mebi},
			{"peak", "  its peak (VmHWM)", mebi},
			{"cpu", "  CPU of the mount's process", seconds},
		}},
		{group: "big", title: "Mounts: the big file", notes: []string{freshMount, sameReading, bigContent}, rows: []measure{
			{"bigMount", "big file in sequence", speed},
			{"rssBig", "memory after the big file (VmRSS)", mebi},
			{"peakBig", "  its peak (VmHWM)", mebi},
			{"cpuBig", "  CPU of the mount's process", seconds},
		}},
		{group: "crawl", title: "A crawl of the history", notes: []string{
			"One find over snapshot after snapshot of a fresh mount, and one with attributes over the first two. Measured once.",
		}, rows: []measure{
			{"crawlEntries", "entries listed", entries},
			{"crawl", "  in", seconds},
			{"crawlRate", "  in a second", rate},
			{"crawlStatRate", "find -newermt (stat of all)", rate},
			{"crawlRss", "memory after these (VmRSS)", mebi},
			{"crawlPeak", "  its peak (VmHWM)", mebi},
		}},
		{group: "live", title: "The live tree", peer: Loopback, notes: []string{
			"The corpus through a fresh mount, by those who mount with all permissions checked; disk is the directory below.",
			"loopback is the example that go-fuse, the library that s4 uses too, comes with.",
			"What is not listed before has a mount of its own; the directory below is in memory as always.",
		}, rows: []measure{
			{"liveFind", "find", seconds},
			{"liveAgain", "find again", seconds},
			{"liveStat", "find -newermt (stat of all)", seconds},
			{"liveStatFirst", "  over directories not listed before", seconds},
			{"liveMake", "10,000 small files made", seconds},
			{"liveRemove", "  and removed with rm -r", seconds},
			{"liveRemoveFirst", "10,000 in directories not listed before, rm -r", seconds},
			{"liveWrite", "big file written in sequence", speed},
			{"liveRead", "big file read in sequence", speed},
			{"liveRss", "memory after these (VmRSS)", mebi},
		}},
		{group: "file", title: "One file", notes: []string{whole, sameReading}, rows: join(
			using(measure{"file", "4 KB file out of all, with index", seconds}),
			using(measure{"fileFresh", "4 KB file out of all, without", seconds}),
		)},
		{group: "items", title: "All items", notes: []string{whole, "borgio in a small program beside borg list --json-lines."}, rows: join(
			using(measure{"items", "all items parsed", seconds}),
		)},
		{group: "stream", title: "A stream", notes: []string{whole, bigContent}, rows: join(
			using(measure{"stream", "big file to a pipe, none/lz4", speed}),
		)},
		{group: "sealed", title: "A stream, decrypted", notes: []string{
			whole, bigContent, "restic and kopia always encrypt, so they stand beside the encrypted repository.",
		}, rows: join(
			using(measure{"sealed", "big file, repokey-blake2/lz4", speed}),
		)},
		{group: "ssh", title: "A stream through ssh", notes: []string{whole, bigContent, throughSSH + " cat is ssh cat of the file itself."}, rows: join(
			remote(measure{"ssh", "big file through ssh, none/lz4", speed}),
		)},
		{group: "ssh-sealed", title: "A stream through ssh, decrypted", notes: []string{whole, bigContent, throughSSH}, rows: join(
			remote(measure{"sshSealed", "big file through ssh, repokey-blake2/lz4", speed}),
		)},
		{group: "ingest", title: "The index", notes: []string{
			"Archives are indexed one by one, newest first, in a process of their own; borg lists the first with --json-lines.",
			"Scattered and clustered: 0.5 % of the files changed all over, or in neighbouring directories.",
		}, rows: join(
			[]measure{
				{"ingestFirst", "first archive indexed", seconds},
				{"ingestFirstCPU", "  CPU", seconds},
				{"ingestNext", "each further one, scattered changes", seconds},
				{"ingestNextCPU", "  CPU", seconds},
				{"clusteredFirst", "first archive of tiny files", seconds},
				{"clusteredFirstCPU", "  CPU", seconds},
				{"clusteredNext", "each further one, clustered changes", seconds},
				{"clusteredNextCPU", "  CPU", seconds},
				{"ingestAll", "all archives, one by one", seconds},
				{"ingestAllCPU", "  CPU", seconds},
				{"ingestAllPeak", "  peak memory", mebi},
			},
			using(measure{"fill", "all archives at one go", seconds}),
			[]measure{
				{"ingestSize", "index on disk, one archive", mebi},
				{"ingestSizeAll", "  all archives", mebi},
				{"ingestPerFile", "  for each file of one archive", octets},
			},
		)},
		{group: "look", title: "Questions within a process", notes: []string{"Medians of many calls, warm."}, rows: []measure{
			{"resolve", "TIME:PATH → metadata", seconds},
			{"wide", "list of 1,000 entries", seconds},
			{"versionsIn", "all versions of a file", seconds},
			{"changesIn", "changes between neighbours", seconds},
		}},
		{group: "versions", title: "All versions of a file", notes: []string{
			whole, "borg can only be asked for one archive after the other: borg list of the path in each.",
		}, rows: using(measure{"versions", "all versions of a file", seconds})},
		{group: "diff", title: "Differences", notes: []string{whole}, rows: using(measure{"diff", "diff of neighbours", seconds})},
		{group: "find", title: "A name", notes: []string{whole}, rows: using(measure{"name", "find by name over all time", seconds})},
		{group: "index-growth", title: "Growth of the index", own: true, more: (*Report).indexGrowth, notes: []string{
			"Items are made up and go straight into the index; no repository is read.",
			"Medians of three, the largest once. In the picture, archives are those of the history, newest first.",
		}},
		{group: "push", title: "Pushes", notes: []string{
			"The corpus into a repository of its own, lz4, from memory; memory is the peak of the process.",
			"On btrfs: a subvolume over a loop device. Ten files are appended to; the page is in the middle of 1 GiB.",
			"restic and kopia always encrypt, so they stand beside the encrypted repository, and do in all else.",
			throughSSH + " cat is a login alone: ssh HOST true.",
		}, rows: join(
			using(measure{"pushFirst", "first, none", seconds}),
			using(measure{"pushSealed", "first, repokey-blake2", seconds}),
			using(measure{"pushSame", "nothing changed, plain directory", seconds}),
			using(measure{"pushTenPlain", "10 files changed, plain directory", seconds}),
			using(measure{"pushSameBtrfs", "nothing changed, btrfs", seconds}),
			using(measure{"pushTen", "10 files changed, btrfs", seconds}),
			using(measure{"pushBig", "one file of 1 GiB, first", seconds}),
			using(measure{"pushPage", "one 4 KiB page of it changed, btrfs", seconds}),
			using(measure{"pushFarFirst", "through ssh: first, none, btrfs", seconds}),
			using(measure{"pushFarSame", "  nothing changed", seconds}),
			using(measure{"pushFarTen", "  10 files changed", seconds}),
			[]measure{{"pushLogin", "  a login alone", seconds}},
		)},
		{group: "growth", title: "Growth of a push", own: true, more: (*Report).growth, notes: []string{
			"Files of 100 to 400 bytes, 60 in a directory, into a repository of their own, from memory.",
			"s4 is on btrfs, over a loop device; plain is s4 on a plain directory, as the others are. restic and kopia encrypt, s4 and borg do not.",
			"Medians of three where that takes seconds, else measured once; ten files are written anew. Memory is the peak of the process.",
		}, rows: growing(sizes)},
		{group: "many", title: "Very many snapshots", own: true, notes: []string{
			"A mount of a history of 2,000 tiny files, a few changed between any two snapshots. Measured once, in this order.",
		}, rows: []measure{
			{"manyList", "mount → list of snapshots", seconds},
			{"manyLs", "ls of the history", seconds},
			{"manyShelf", "find -maxdepth 1 of it", seconds},
			{"manyFirst", "first byte in the oldest snapshot", seconds},
			{"manyFind", "find over three snapshots", seconds},
			{"manySmall", "200 small files", seconds},
			{"manyVersions", "all versions of a file, as a directory", seconds},
			{"manyRss", "memory after these (VmRSS)", mebi},
			{"manyPeak", "  its peak (VmHWM)", mebi},
		}},
		{group: "replicate", title: "Replication", own: true, notes: []string{
			"s4 replicate of a volume on btrfs, on a loop device, to a remote on the same disk. Measured once.",
			"Behind: from write() until the repository's manifest lists an archive that has it, of 10,000 files.",
			"A change that comes after a pause waits for the next look, an eighth of a second on average, others up to a second; and then for a push.",
			"10 files changed: medians of seven; the snapshot with writing out what it needs, the push from the start of s4 to its end.",
		}, rows: join(
			[]measure{
				{"replicateLight", "behind, a file of 4 KB every second: median", seconds},
				{"replicateLight99", "  99 of 100 within", seconds},
				{"replicateFar", "  through ssh: median", seconds},
				{"replicateFar99", "  99 of 100 within", seconds},
				{"replicateHeavy", "behind, 200 files of 4 KB a second: median", seconds},
				{"replicateHeavy99", "  99 of 100 within", seconds},
				{"replicateIdle", "CPU while nothing changes, of a core", percent},
			},
			changed("10000", "10,000"), changed("100000", "100,000"), changed("1000000", "1,000,000"),
		)},
		{group: "million", title: "Very many files", own: true, notes: []string{
			"Tiny files, 10 snapshots, 0.5 % changed between. Measured once. borg lists the first archive with --json-lines.",
		}, rows: join(
			[]measure{
				{"millionFirst", "first archive indexed", seconds},
				{"millionFirstCPU", "  CPU", seconds},
				{"millionNext", "each further one", seconds},
				{"millionNextCPU", "  CPU", seconds},
				{"millionAllPeak", "  peak memory of all these", mebi},
			},
			using(measure{"millionFill", "all archives at one go", seconds}),
			[]measure{
				{"millionSize", "index on disk, one archive", mebi},
				{"millionSizeAll", "  all archives", mebi},
				{"millionPerFile", "  for each file of one archive", octets},
			},
			using(measure{"millionItems", "all items parsed", seconds}),
			using(measure{"millionFile", "one file", seconds}),
			[]measure{
				{"millionResolve", "TIME:PATH → metadata, within a process", seconds},
				{"millionVersionsIn", "all versions of a file, within a process", seconds},
				{"millionChangesIn", "changes between neighbours, within a process", seconds},
				{"millionLookPeak", "  peak memory of these", mebi},
			},
			using(measure{"millionLog", "all versions of a file", seconds}),
			using(measure{"millionDiff", "diff of neighbours", seconds}),
			using(measure{"millionName", "find by name over all time", seconds}),
		)},
	}
}

// What is done to trees of growing size: the beginnings of keys.
const (
	growFirst = "growFirst"
	growSame  = "growSame"
	growTen   = "growTen"
)

// growing are the rows of the group growth.
func growing(sizes []int) (rows []measure) {
	for _, work := range []struct{ key, title string }{
		{growFirst, "first push of %s files"}, {growSame, "nothing changed of %s"}, {growTen, "10 changed of %s"},
	} {
		for _, n := range sizes {
			rows = append(rows, using(measure{work.key + strconv.Itoa(n), fmt.Sprintf(work.title, humanize.Comma(int64(n))), seconds})...)
		}
	}
	return rows
}

// changed is what 10 changed files cost, among so many.
func changed(files, shown string) []measure {
	key := "change" + files
	return []measure{
		{key + "Snapshot", "10 of " + shown + " files changed: snapshot", seconds},
		{key + "Difference", "  difference", seconds},
		{key + "Push", "  s4 push, all in all", seconds},
		{key + "PushCPU", "    CPU", seconds},
	}
}

func join(all ...[]measure) (rows []measure) {
	for _, some := range all {
		rows = append(rows, some...)
	}
	return rows
}
