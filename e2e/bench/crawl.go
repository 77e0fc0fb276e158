package main

// A crawl lists so many times as many entries as the corpus has files: two
// million at its full size, in 20 snapshots. Attributes are asked for in the
// first few.
const (
	crawlTimes    = 20
	crawlWithStat = 2
)

// crawl: what is left in memory when very much of the history has been listed.
func (s *session) crawl() error {
	return s.with("history", s.crawlIn)
}

func (s *session) crawlIn(m *mount) error {
	var dirs []string
	var listed, withStat int
	for n, entries := range crawlPlan(s.params) {
		dir, err := m.snapshot(when(n))
		if err != nil {
			return err
		}
		dirs = append(dirs, dir)
		listed += entries
		if n < crawlWithStat {
			withStat += entries
		}
	}
	if err := s.find("crawl", listed, dirs...); err != nil {
		return err
	}
	first := dirs[:min(crawlWithStat, len(dirs))]
	if err := s.find("crawlStat", withStat, append(first, "-newermt", longAgo)...); err != nil {
		return err
	}
	s.samples["crawlEntries"] = float64(listed)
	s.samples["crawlRate"] = float64(listed) / s.samples["crawl"]
	s.samples["crawlStatRate"] = float64(withStat) / s.samples["crawlStat"]
	return s.resident(m, "crawl")
}

// crawlPlan gives the number of entries of each snapshot that is crawled, the
// oldest first.
func crawlPlan(p params) (entries []int) {
	t := newTree(p)
	for n, sum := 0, 0; n < p.Snapshots && sum < crawlTimes*p.Files; n++ {
		if n > 0 {
			t.advance(n - 1)
		}
		entries = append(entries, t.entries())
		sum += entries[n]
	}
	return entries
}
