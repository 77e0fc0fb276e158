package report

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

// table is what is shown together.
type table struct {
	title string
	notes []string
	rows  []measure
	peer  string // whom s4 is compared with; "" is borg
}

func (t *table) comparedWith() string {
	if t.peer == "" {
		return Borg
	}
	return t.peer
}

// using adds processor time and memory to a measure of a whole command.
func using(m measure) []measure {
	return []measure{m, {m.Key + "CPU", "  CPU", seconds}, {m.Key + "Peak", "  peak memory", mebi}}
}

// remote adds what the server spent.
func remote(m measure) []measure {
	return append(using(m), measure{m.Key + "Far", "  CPU of sshd and what it runs", seconds})
}

func tables() []table {
	return []table{
		{title: "Mounts", notes: []string{
			"Each sample has a fresh mount.",
			"s4 and borg read the same repository, unencrypted; restic and kopia always encrypt.",
		}, rows: []measure{
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
			{"bigMount", "big file in sequence", speed},
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
		}},
		{title: "A crawl of the history", notes: []string{
			"One find over snapshot after snapshot of a fresh mount, and one with attributes over the first two. Measured once.",
		}, rows: []measure{
			{"crawlEntries", "entries listed", entries},
			{"crawl", "  in", seconds},
			{"crawlRate", "  in a second", rate},
			{"crawlStatRate", "find -newermt (stat of all)", rate},
			{"crawlRss", "memory after these (VmRSS)", mebi},
			{"crawlPeak", "  its peak (VmHWM)", mebi},
		}},
		{title: "The live tree", peer: Loopback, notes: []string{
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
		{title: "One file, all items, one stream", notes: []string{
			"From the start of the program to its end. Memory is the peak of the largest process here; what is mapped counts.",
			"The big file is half text that lz4 halves, half random bytes, in stretches of 4 MiB.",
			"Through ssh to this machine; cat is ssh cat of the file itself.",
			"All items parsed: borgio in a small program beside borg list --json-lines.",
			"restic and kopia always encrypt, so they stand beside the encrypted repository.",
		}, rows: join(
			using(measure{"file", "4 KB file out of all, with index", seconds}),
			using(measure{"fileFresh", "4 KB file out of all, without", seconds}),
			using(measure{"items", "all items parsed", seconds}),
			using(measure{"stream", "big file to a pipe, none/lz4", speed}),
			using(measure{"sealed", "big file, repokey-blake2/lz4", speed}),
			remote(measure{"ssh", "big file through ssh, none/lz4", speed}),
			remote(measure{"sshSealed", "big file through ssh, repokey-blake2/lz4", speed}),
		)},
		{title: "The index", notes: []string{
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
		{title: "Questions", notes: []string{
			"Within a process: medians of many calls, warm. As a command: from start to end.",
			"borg can only be asked for one archive after the other: borg list of the path in each.",
		}, rows: join(
			[]measure{
				{"resolve", "TIME:PATH → metadata, within a process", seconds},
				{"wide", "list of 1,000 entries, within a process", seconds},
				{"versionsIn", "all versions of a file, within a process", seconds},
				{"changesIn", "changes between neighbours, within a process", seconds},
			},
			using(measure{"versions", "all versions of a file", seconds}),
			using(measure{"diff", "diff of neighbours", seconds}),
			using(measure{"name", "find by name over all time", seconds}),
		)},
		{title: "Pushes", notes: []string{
			"The corpus into a repository of its own, lz4, from memory; memory is the peak of the process.",
			"On btrfs: a subvolume over a loop device. Ten files are appended to; the page is in the middle of 1 GiB.",
			"restic always encrypts, so it stands beside the encrypted repository.",
		}, rows: join(
			using(measure{"pushFirst", "first, none", seconds}),
			using(measure{"pushSealed", "first, repokey-blake2", seconds}),
			using(measure{"pushSame", "nothing changed, plain directory", seconds}),
			using(measure{"pushSameBtrfs", "nothing changed, btrfs", seconds}),
			using(measure{"pushTen", "10 files changed, btrfs", seconds}),
			using(measure{"pushBig", "one file of 1 GiB, first", seconds}),
			using(measure{"pushPage", "one 4 KiB page of it changed, btrfs", seconds}),
		)},
		{title: "Very many snapshots", notes: []string{
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
		{title: "Replication", notes: []string{
			"s4 replicate of a volume on btrfs, on a loop device, to a remote on the same disk. Measured once.",
			"Behind: from write() until the remote's manifest lists an archive that has it, of 10,000 files.",
			"10 files changed: medians of seven; the snapshot with writing out what it needs, the push from the start of s4 to its end.",
		}, rows: join(
			[]measure{
				{"replicateLight", "behind, a file of 4 KB every second: median", seconds},
				{"replicateLight99", "  99 of 100 within", seconds},
				{"replicateHeavy", "behind, 200 files of 4 KB a second: median", seconds},
				{"replicateHeavy99", "  99 of 100 within", seconds},
				{"replicateIdle", "CPU while nothing changes, of a core", percent},
			},
			changed("10000", "10,000"), changed("100000", "100,000"), changed("1000000", "1,000,000"),
		)},
		{title: "Very many files", notes: []string{
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
