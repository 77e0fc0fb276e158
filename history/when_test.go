package history

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// now is a Wednesday; the zone is an hour before UTC.
var (
	testZone = time.FixedZone("CET", 3600)
	testNow  = time.Date(2026, 11, 25, 15, 0, 0, 0, testZone)
)

func testResolver() *resolver {
	var all []snapshot.Info
	for i, s := range []struct{ at, name, handle string }{
		{"2026-10-30T12:00:00Z", "old", "aaaa1111"},
		{"2026-11-20T08:00:00Z", "host-1", "aaaa2222"},
		{"2026-11-21T23:30:00Z", "late", "bbbb3333"}, // the 22nd for the user
		{"2026-11-22T15:41:42Z", "x", "cccc4444"},
		{"2026-11-22T15:41:42.5Z", "y", "cccc5555"},
		{"2026-11-25T13:30:00Z", "2026-11-24", "dddd6666"},
		{"2026-11-25T13:59:00Z", "twin", "2026aaaa"},
		{"2026-11-25T13:59:30Z", "twin", "eeee8888"},
	} {
		at, err := time.Parse(time.RFC3339Nano, s.at)
		if err != nil {
			panic(err)
		}
		all = append(all, snapshot.Info{Num: int64(i + 1), ID: s.handle, Handle: s.handle, Name: s.name, Source: "s", Time: at})
	}
	return &resolver{timeline: merge(all, []snapshot.Source{&fakeSource{id: "s"}}), now: testNow, loc: testZone}
}

func TestResolve(t *testing.T) {
	r := testResolver()
	for when, want := range map[string]string{
		"latest":                        "2026-11-25T13-59-30Z",
		"latest~0":                      "2026-11-25T13-59-30Z",
		"latest~2":                      "2026-11-25T13-30-00Z",
		"latest~7":                      "2026-10-30T12-00-00Z",
		"2026-11-22T15-41-42Z":          "2026-11-22T15-41-42Z",
		"2026-11-22T15-41-42Z_2":        "2026-11-22T15-41-42Z_2",
		"2026-11-22T15-41-42":           "2026-11-22T15-41-42Z_2",
		"2026-11-22T15-41":              "2026-11-22T15-41-42Z_2",
		"2026-11-22T15-":                "2026-11-22T15-41-42Z_2",
		"2026-11-22T16":                 "2026-11-22T15-41-42Z_2",
		"2026-11-22T15Z":                "2026-11-22T15-41-42Z_2",
		"2026-11-22 16:41":              "2026-11-22T15-41-42Z_2",
		"2026-11-22 16:41:42":           "2026-11-22T15-41-42Z_2",
		"2026-11-22 16:50:00":           "2026-11-22T15-41-42Z_2",
		"2026-11-22":                    "2026-11-22T15-41-42Z_2",
		"2026-11-21":                    "2026-11-20T08-00-00Z", // none in it
		"2026-11-21Z":                   "2026-11-21T23-30-00Z",
		"2026-11-22T00":                 "2026-11-21T23-30-00Z",
		"2026-11":                       "2026-11-25T13-59-30Z",
		"2026-10":                       "2026-10-30T12-00-00Z",
		"2026":                          "2026-11-25T13-59-30Z",
		"2026-11-22T16:41:42+01:00":     "2026-11-22T15-41-42Z_2",
		"2026-11-22T15:41:42.1Z":        "2026-11-22T15-41-42Z",
		"2026-11-23T00:00:00Z":          "2026-11-22T15-41-42Z_2",
		"today":                         "2026-11-25T13-59-30Z",
		"yesterday":                     "2026-11-22T15-41-42Z_2",
		"now":                           "2026-11-25T13-59-30Z",
		"30m":                           "2026-11-25T13-30-00Z",
		"2h":                            "2026-11-22T15-41-42Z_2",
		"3d":                            "2026-11-21T23-30-00Z",
		"2w":                            "2026-10-30T12-00-00Z",
		"1d12h":                         "2026-11-22T15-41-42Z_2",
		"2 hours ago":                   "2026-11-22T15-41-42Z_2",
		"an hour ago":                   "2026-11-22T15-41-42Z_2",
		"A Week Ago":                    "2026-10-30T12-00-00Z",
		"5 minutes":                     "2026-11-25T13-30-00Z",
		"before:latest":                 "2026-11-25T13-59-00Z",
		"before:2026-11-22":             "2026-11-20T08-00-00Z",
		"before:2026-11-22T15-41-42Z_2": "2026-11-22T15-41-42Z",
		"after:2026-11-22":              "2026-11-25T13-30-00Z",
		"after:2026-11-22T15-41-42Z":    "2026-11-22T15-41-42Z_2",
		"after:yesterday":               "2026-11-25T13-30-00Z",
		"before:yesterday":              "2026-11-22T15-41-42Z_2",
		"after:old":                     "2026-11-20T08-00-00Z",
		"before:after:2026-11-22":       "2026-11-22T15-41-42Z_2",
		"aaaa1":                         "2026-10-30T12-00-00Z",
		"CCCC4":                         "2026-11-22T15-41-42Z",
		"2026a":                         "2026-11-25T13-59-00Z",
		"host-1":                        "2026-11-20T08-00-00Z",
		"2026-11-24":                    "2026-11-25T13-30-00Z", // an archive's name, nothing that day
	} {
		i, err := r.resolve(when)
		if err != nil {
			t.Errorf("%s: %v", when, err)
		} else if r.infos[i].Dir != want {
			t.Errorf("%s is %s, want %s", when, r.infos[i].Dir, want)
		}
	}
}

func TestResolveUnknown(t *testing.T) {
	r := testResolver()
	for when, part := range map[string]string{
		"":                      "nearest",
		"nonsense":              "2026-11-25T13-59-30Z",
		"latest~8":              "nearest",
		"latest~x":              "nearest",
		"latestest":             "nearest",
		"2026-11-22T17":         "2026-11-25T13-30-00Z",
		"2026-11-22T15-41-43Z":  "2026-11-22T15-41-42Z_2",
		"2026-09":               "2026-10-30T12-00-00Z",
		"2026-13":               "nearest",
		"2026-02-30":            "nearest",
		"1999-01-01":            "2026-10-30T12-00-00Z",
		"60d":                   "2026-10-30T12-00-00Z",
		"before:old":            "2026-10-30T12-00-00Z",
		"after:latest":          "2026-11-25T13-59-30Z",
		"aaa":                   "nearest", // too short for an id
		"aaaa":                  "more than one",
		"twin":                  "more than one",
		"before:":               "nearest",
		"99999999999999999999h": "nearest",
	} {
		i, err := r.resolve(when)
		if err == nil {
			t.Errorf("%q is %s", when, r.infos[i].Dir)
			continue
		}
		te, ok := errors.AsType[*TimeError](err)
		if !ok || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), part) || len(te.Nearest) == 0 {
			t.Errorf("%q: %v", when, err)
		}
	}
	empty := &resolver{timeline: &timeline{}, now: testNow, loc: testZone}
	if _, err := empty.resolve("latest"); err == nil || !strings.Contains(err.Error(), "none yet") {
		t.Errorf("empty time line: %v", err)
	}
}

func TestResolveHints(t *testing.T) {
	h, _ := newHistory(t)
	_, err := h.Resolve(t.Context(), "2001")
	if hint.Of(err) == "" || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v, hint %q", err, hint.Of(err))
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{
		"latest~2", "2026-11-22T15-41-42Z_2", "2026-11-22 16:41", "1d12h", "2 weeks ago", "before:after:yesterday", "2026-11-22T16:41:42+01:00", "aaaa",
	} {
		f.Add(s)
	}
	r := testResolver()
	f.Fuzz(func(t *testing.T, when string) {
		i, err := r.resolve(when)
		switch {
		case err == nil && (i < 0 || i >= len(r.infos)):
			t.Fatalf("place %d", i)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		}
		from, errFrom := r.edge(when, false)
		to, errTo := r.edge(when, true)
		switch {
		case (errFrom == nil) != (errTo == nil):
			t.Fatalf("as a beginning: %v, as an end: %v", errFrom, errTo)
		case errFrom == nil && (from < 0 || from > to || to > len(r.infos)):
			t.Fatalf("from %d to %d", from, to)
		}
	})
}
