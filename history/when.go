package history

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// span is what a typed time means: the moments from start up to, but not
// including, end.
type span struct {
	start, end time.Time
	// reach tells that a snapshot before the span will do when there is none
	// in it: "the newest at or before it". Days, ages and exact moments do,
	// the prefixes of a directory name don't.
	reach bool
}

// instant is a moment that a snapshot is at or before.
func instant(t time.Time) span { return span{t, t.Add(1), true} }

// parseSpan understands everything that names a time without looking at the
// snapshots. What a person types is in loc; what ends in Z, and the form with
// dashes between hours and minutes, which is a directory's name, is UTC.
func parseSpan(s string, now time.Time, loc *time.Location) (span, bool) {
	now = now.In(loc)
	switch strings.ToLower(s) {
	case "now":
		return instant(now), true
	case "today":
		return day(now), true
	case "yesterday":
		return day(now.AddDate(0, 0, -1)), true
	}
	if t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s)); err == nil {
		if strings.Contains(s, ".") {
			return instant(t), true
		}
		return span{t, t.Add(time.Second), true}, true
	}
	if sp, ok := parsePrefix(s, loc); ok {
		return sp, true
	}
	if t, ok := parseAge(s, now); ok {
		return instant(t), true
	}
	return span{}, false
}

func day(t time.Time) span {
	y, m, d := t.Date()
	return span{time.Date(y, m, d, 0, 0, 0, 0, t.Location()), time.Date(y, m, d+1, 0, 0, 0, 0, t.Location()), true}
}

// prefixForm is the beginning of a directory name, with what people put
// instead of its "T" and dashes. A separator left at the end is no harm.
var prefixForm = regexp.MustCompile(`^(\d{4})(?:-(?:(\d\d?)(?:-(?:(\d\d?)(?:[Tt_ ](?:(\d\d?)(?:([-:])(?:(\d\d)(?:[-:](?:(\d\d)?)?)?)?)?)?)?)?)?)?)?([Zz])?$`)

func parsePrefix(s string, loc *time.Location) (span, bool) {
	m := prefixForm.FindStringSubmatch(s)
	if m == nil {
		return span{}, false
	}
	if m[5] == "-" || m[8] != "" {
		loc = time.UTC
	}
	var f [6]int // year, month, day, hour, minute, second
	given := 0
	for i, text := range []string{m[1], m[2], m[3], m[4], m[6], m[7]} {
		if text == "" {
			break
		}
		f[i], _ = strconv.Atoi(text) // the expression leaves digits only
		given++
	}
	for i := given; i < 3; i++ {
		f[i] = 1
	}
	start := time.Date(f[0], time.Month(f[1]), f[2], f[3], f[4], f[5], 0, loc)
	if f[1] < 1 || f[1] > 12 || f[2] < 1 || start.Day() != f[2] && f[3] < 24 || f[3] > 23 || f[4] > 59 || f[5] > 59 {
		return span{}, false
	}
	var end time.Time
	switch given {
	case 1:
		end = start.AddDate(1, 0, 0)
	case 2:
		end = start.AddDate(0, 1, 0)
	case 3:
		end = start.AddDate(0, 0, 1)
	case 4:
		end = start.Add(time.Hour)
	case 5:
		end = start.Add(time.Minute)
	default:
		end = start.Add(time.Second)
	}
	return span{start, end, given == 3 || given == 6 && m[5] == ":"}, true
}

var (
	ageForm = regexp.MustCompile(`^(?:(\d{1,6}|an?|one) ?([a-z]+) ?)`)
	ageWord = regexp.MustCompile(` ?ago$`)
)

// parseAge understands "2h", "1d12h", "2 hours ago", "a week". Days and longer
// are the calendar's: the same time of day.
func parseAge(s string, now time.Time) (time.Time, bool) {
	s = strings.Join(strings.Fields(strings.ToLower(s)), " ")
	s = ageWord.ReplaceAllString(s, "")
	if s == "" {
		return now, false
	}
	t := now
	for s != "" {
		m := ageForm.FindStringSubmatch(s)
		if m == nil {
			return now, false
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			n = 1 // "a", "an", "one"
		}
		unit := m[2]
		if len(unit) > 2 {
			unit = strings.TrimSuffix(unit, "s")
		}
		switch unit {
		case "s", "sec", "second":
			t = t.Add(-time.Duration(n) * time.Second)
		case "m", "min", "minute":
			t = t.Add(-time.Duration(n) * time.Minute)
		case "h", "hr", "hour":
			t = t.Add(-time.Duration(n) * time.Hour)
		case "d", "day":
			t = t.AddDate(0, 0, -n)
		case "w", "wk", "week":
			t = t.AddDate(0, 0, -7*n)
		case "mo", "mon", "month":
			t = t.AddDate(0, -n, 0)
		case "y", "yr", "year":
			t = t.AddDate(-n, 0, 0)
		default:
			return now, false
		}
		s = s[len(m[0]):]
	}
	return t, true
}
