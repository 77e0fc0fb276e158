package history

import (
	"strings"
	"testing"
	"time"
)

// FuzzSpan: what names a time names one that begins before it ends, in every
// zone the same way, and an exact moment names itself.
func FuzzSpan(f *testing.F) {
	for _, s := range []string{
		"now", "today", "2026-11-22T15-41-42Z", "2026-11-22 16:41", "2026-11-", "2026", "1d12h", "2 weeks ago", "a month",
		"2026-11-22T16:41:42+01:00", "2026-11-22t16:41:42.5z", "999999y", "2026-03-29 02:30", "0000-01-01",
	} {
		f.Add(s, int64(1_700_000_000))
	}
	berlin, err := time.LoadLocation("Europe/Berlin") // has hours that are not, and hours twice
	if err != nil {
		berlin = time.FixedZone("somewhere", 3600)
	}
	f.Fuzz(func(t *testing.T, s string, seconds int64) {
		now := time.Unix(seconds%(1<<36), 0)
		for _, loc := range []*time.Location{time.UTC, berlin, time.FixedZone("far", -11*3600-1800)} {
			sp, ok := parseSpan(s, now, loc)
			if !ok {
				continue
			}
			if !sp.start.Before(sp.end) {
				t.Fatalf("%q is %v to %v in %s", s, sp.start, sp.end, loc)
			}
			if y := sp.start.UTC().Year(); y < 0 || y > 9999 {
				continue
			}
			exact := sp.start.UTC().Format(time.RFC3339Nano)
			again, ok := parseSpan(exact, now, loc)
			if !ok || !again.start.Equal(sp.start) {
				t.Fatalf("%q begins at %s, which is %v, %v", s, exact, again.start, ok)
			}
		}
	})
}

// FuzzComment: what a comment says is what is said of it written again.
func FuzzComment(f *testing.F) {
	f.Add(FormatComment("two\n\nparagraphs\n", "volume", "id", "parent"))
	f.Add(FormatComment("", "volume", "id", ""))
	f.Add("a frozen archive")
	f.Add("x\n\ns4-volume: a\ns4-volume: b")
	f.Add("\n\n\ns4-snapshot: a\n")
	f.Fuzz(func(t *testing.T, comment string) {
		c := ParseComment(comment)
		for _, id := range []string{c.Volume, c.Snapshot, c.Parent} {
			if strings.TrimSpace(id) != id || strings.Contains(id, "\n") {
				t.Fatalf("%q is no id", id)
			}
		}
		written := FormatComment(c.Message, c.Volume, c.Snapshot, c.Parent)
		if again := ParseComment(written); again != c {
			t.Fatalf("%q is %+v, written %q, which is %+v", comment, c, written, again)
		}
	})
}
