package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/s4-storage/s4/e2e/bench/probe"
)

// ingest: archives into s4's index, one by one, and all at one go. borg lists
// the same first archive.
func (s *session) ingest() error {
	newest := s.Snapshots - 1
	if s.tool.name == nameBorg {
		return s.listItems("history", when(newest), s.view.newestCount, "ingestFirst")
	}
	if err := s.ingestHistory("history", s.Snapshots, s.Files, "ingest"); err != nil {
		return err
	}
	if err := s.ingestHistory("clustered", clusteredSnapshots, s.Files, "clustered"); err != nil {
		return err
	}
	return s.fillAll("history", "fill")
}

// db is where the index of that kind of repository is made.
func (b *bench) db(kind string) string { return filepath.Join(b.dir, "home", kind+".db") }

func (s *session) ingestHistory(kind string, snapshots, files int, key string) error {
	var a probe.IngestAnswer
	took, err := s.probe("ingest", probe.Ingest{Repository: s.repository(s.tool, kind), Index: s.db(kind)}, &a)
	if err == nil && len(a.Next) != snapshots-1 {
		err = fmt.Errorf("%d archives are indexed instead of %d", len(a.Next)+1, snapshots)
	}
	if err != nil {
		return err
	}
	if kind == "history" {
		s.report.Archives = append([]probe.Took{a.First}, a.Next...)
	}
	var wall, cpu []float64
	all := a.First
	for _, n := range a.Next {
		wall, cpu = append(wall, n.Wall), append(cpu, n.CPU)
		all.Wall += n.Wall
		all.CPU += n.CPU
	}
	for k, v := range map[string]float64{
		"First": a.First.Wall, "FirstCPU": a.First.CPU,
		"Next": probe.Median(wall), "NextCPU": probe.Median(cpu),
		"All": all.Wall, "AllCPU": all.CPU, "AllPeak": took.Peak,
		"Size": float64(a.FirstBytes) / (1 << 20), "SizeAll": float64(a.Bytes) / (1 << 20),
		"PerFile": float64(a.FirstBytes) / float64(files),
	} {
		s.samples[key+k] = v
	}
	return nil
}

func (s *session) fillAll(kind, key string) error {
	var a probe.Took
	db := s.db(kind) + ".fill"
	took, err := s.probe("fill", probe.Ingest{Repository: s.repository(s.tool, kind), Index: db}, &a)
	if err != nil {
		return err
	}
	s.samples[key], s.samples[key+"CPU"], s.samples[key+"Peak"] = a.Wall, a.CPU, took.Peak
	return nil
}

// look: single questions to the packages, in a process that has asked them
// before. The indexes are ingest's.
func (s *session) look() error {
	story := s.view.story
	a, _, err := s.lookInto("history", story, s.Snapshots)
	if err != nil {
		return err
	}
	s.samples["resolve"], s.samples["versionsIn"], s.samples["changesIn"] = a.Resolve, a.Versions, a.Changes
	var wide probe.LookAnswer
	if _, err := s.lookProbe("clustered", probe.Look{Directory: wideDir, Entries: wideIn(s.params)}, &wide); err != nil {
		return err
	}
	s.samples["wide"] = wide.Directory
	return nil
}

func (s *session) lookInto(kind string, story story, snapshots int) (a probe.LookAnswer, took spent, err error) {
	q := probe.Look{Paths: story.stay, Path: story.path, Versions: story.versions}
	for n := range snapshots {
		q.Moments = append(q.Moments, s4Time(when(n)), when(n).Format(time.DateOnly))
	}
	for _, paths := range story.changed {
		q.Changed = append(q.Changed, len(paths))
	}
	took, err = s.lookProbe(kind, q, &a)
	return a, took, err
}

// lookProbe makes the index where no ingest went before.
func (s *session) lookProbe(kind string, q probe.Look, a *probe.LookAnswer) (spent, error) {
	q.Repository, q.Index = s.repository(s.tool, kind), s.db(kind)
	if !exists(q.Index) {
		var took probe.Took
		if _, err := s.probe("fill", probe.Ingest{Repository: q.Repository, Index: q.Index}, &took); err != nil {
			return spent{}, err
		}
	}
	return s.probe("look", q, a)
}

// million: memory, and what else grows, with very many files.
func (s *session) million() error {
	const kind = "million"
	t := newTiny(s.params, s.Million)
	last := newTiny(s.params, s.Million)
	for n := range millionSnapshots - 1 {
		last.advance(n)
	}
	newest := when(millionSnapshots - 1)
	entries := last.entries()
	if s.tool.name == nameBorg {
		if err := s.listItems(kind, newest, entries, "millionItems"); err != nil {
			return err
		}
		for _, suffix := range []string{"", "CPU"} { // what s4's indexing is compared with
			s.samples["millionFirst"+suffix] = s.samples["millionItems"+suffix]
		}
		return s.millionFile(last)
	}
	if err := s.ingestHistory(kind, millionSnapshots, s.Million, "million"); err != nil {
		return err
	}
	if err := s.fillAll(kind, "millionFill"); err != nil {
		return err
	}
	if err := s.listItems(kind, newest, entries, "millionItems"); err != nil {
		return err
	}
	if err := s.millionFile(last); err != nil {
		return err
	}
	story := tell(t, millionSnapshots, t.advance)
	a, took, err := s.lookInto(kind, story, millionSnapshots)
	if err != nil {
		return err
	}
	s.samples["millionResolve"], s.samples["millionLookPeak"] = a.Resolve, took.Peak
	s.samples["millionVersionsIn"], s.samples["millionChangesIn"] = a.Versions, a.Changes
	if err := s.s4Versions(kind, story, "millionLog"); err != nil {
		return err
	}
	if err := s.softly(s.diffOf(kind, story, "millionDiff")); err != nil {
		return err
	}
	return s.softly(s.findIn(kind, story, "millionName"))
}

// millionFile reads one file of the newest snapshot.
func (s *session) millionFile(last *tree) error {
	f := last.pick(1, 1, sizeMax)[0]
	args, err := s.tool.dump(s.ctx, s.bench, s.repository(s.tool, "million"), when(millionSnapshots-1), f.path)
	if err != nil {
		return err
	}
	out, took, err := s.output(s.ctx, s.tool.command("", args...))
	if err == nil && string(out) != string(last.content(f)) {
		err = fmt.Errorf("%s: wrong content", f.path)
	}
	if err == nil {
		s.record("millionFile", took)
	}
	return err
}

// indexGrowth: how s4's index grows with files and with snapshots. Its items are
// made up, so that a million of them need no repository.
func (s *session) indexGrowth() error {
	q := probe.Growth{Dir: filepath.Join(s.dir, "home"), Of: s.Files, Snapshots: 30}
	for n := 1000; n <= 10*s.Files && n <= 1_000_000; n *= 10 {
		q.Files = append(q.Files, n)
	}
	s.report.Index = &probe.GrowthAnswer{}
	_, err := s.probe("growth", q, s.report.Index)
	if err != nil {
		s.report.Index = nil
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
