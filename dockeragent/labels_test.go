package dockeragent

import (
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

func TestParseLabels(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		label, value string
		want         Rules
		wrong        string // in the error; "" for none
	}{
		{"com.example", "s4.", Rules{}, ""},
		{"s4.enable", "true", Rules{Enable: &yes}, ""},
		{"s4.enable", " false ", Rules{Enable: &no}, ""},
		{"s4.enable", "yes", Rules{}, "good: true, false"},
		{"s4.volumes", "data, uploads", Rules{Volumes: []string{"data", "uploads"}}, ""},
		{"s4.volumes", "data,,x", Rules{}, "a name is missing"},
		{"s4.volumes", "", Rules{}, "a name is missing"},
		{"s4.volumes", "/data", Rules{}, "no name of a volume"},
		{"s4.exclude", "cache,data/tmp/*.o", Rules{Exclude: []Exclude{{"cache", ""}, {"data", "tmp/*.o"}}}, ""},
		{"s4.exclude", "data/", Rules{}, "not understood"},
		{"s4.exclude", "data/../x", Rules{}, "not understood"},
		{"s4.exclude", "data/[", Rules{}, "no pattern"},
		{"s4.quiesce", "pause", Rules{Quiesce: QuiescePause}, ""},
		{"s4.quiesce", "stop", Rules{Quiesce: QuiesceStop}, ""},
		{"s4.quiesce", "none", Rules{Quiesce: QuiesceNone}, ""},
		{"s4.quiesce", "Pause", Rules{}, "good: pause, stop, none"},
		{"s4.dump", "postgres", Rules{Dump: DumpPostgres}, ""},
		{"s4.dump", "sqlite", Rules{Dump: DumpSQLite}, ""},
		{"s4.dump", "mysql", Rules{Dump: DumpMySQL}, ""},
		{"s4.dump", "postgers", Rules{}, "good: postgres, mysql, sqlite"},
		{"s4.dump", "influx backup -", Rules{Dump: DumpCommand, Command: "influx backup -"}, ""},
		{"s4.dump", "/dump.sh", Rules{Dump: DumpCommand, Command: "/dump.sh"}, ""},
		{"s4.interval", "30m", Rules{Interval: 30 * time.Minute}, ""},
		{"s4.interval", "1d", Rules{Interval: 24 * time.Hour}, ""},
		{"s4.interval", "2w", Rules{Interval: 14 * 24 * time.Hour}, ""},
		{"s4.interval", "30", Rules{}, "good: 30m, 6h"},
		{"s4.interval", "-1h", Rules{}, "shorter than 1m"},
		{"s4.interval", "99999d", Rules{}, "not understood"},
		{"s4.interval", "900d", Rules{}, "longer than a year"},
		{"s4.keep", "daily=7,within=2d", Rules{Keep: Keep{Daily: 7, Within: 48 * time.Hour}}, ""},
		{"s4.keep", "daily=0", Rules{}, `"daily=0" is not understood`},
		{"s4.keep", "7", Rules{}, "good: last=N"},
		{"s4.remote", "s4@nas:/volumes", Rules{Remote: "s4@nas:/volumes"}, ""},
		{"s4.remote", "nas", Rules{}, "relative path"},
		{"s4.remote", "-oProxyCommand=x:/y", Rules{}, "not understood"},
		{"s4.quiese", "stop", Rules{}, "no such label (good: s4.dump, s4.enable, s4.exclude, s4.interval, s4.keep, s4.quiesce, s4.remote, s4.volumes)"},
		{"S4.Quiesce", "stop", Rules{}, "no such label"},
		{"s4.", "", Rules{}, "no such label"},
		{"s4.agent", "true", Rules{}, ""},
		{"s4.dump", "a b" + strings.Repeat("x", maxLabel), Rules{}, "longer than"},
		{"s4.dump", "a\x00 b", Rules{}, "not text"},
	} {
		got, err := ParseLabels("web-1", map[string]string{tt.label: tt.value})
		if tt.wrong == "" {
			if err != nil {
				t.Errorf("%s=%q: %v", tt.label, tt.value, err)
			}
		} else {
			le, ok := errors.AsType[*LabelError](err)
			if !ok || !errors.Is(err, snapshot.ErrUsage) || le.Container != "web-1" || le.Label != tt.label {
				t.Errorf("%s=%q: error %#v", tt.label, tt.value, err)
			}
			if err == nil || !strings.Contains(err.Error(), tt.wrong) || !strings.Contains(err.Error(), "web-1") {
				t.Errorf("%s=%q: %v lacks %q", tt.label, tt.value, err, tt.wrong)
			}
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s=%q is %+v", tt.label, tt.value, got)
		}
	}
}

// Every wrong label is told of, not only the first.
func TestParseLabelsAll(t *testing.T) {
	_, err := ParseLabels("db", map[string]string{"s4.a": "", "s4.quiesce": "halt", "s4.keep": "x"})
	for _, want := range []string{"s4.a", "s4.quiesce", "s4.keep"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %s", err, want)
		}
	}
}

func FuzzParseLabels(f *testing.F) {
	for _, seed := range [][2]string{
		{"s4.exclude", "cache,data/tmp/*.o"}, {"s4.keep", "daily=7,within=2d"}, {"s4.interval", "1h30m"},
		{"s4.remote", "ssh://s4@[::1]:22/volumes"}, {"s4.dump", "pg_dump x"}, {"s4.volumes", "a,b"}, {"s4.x", "ü"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, label, value string) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := ParseLabels("c", map[string]string{label: value})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+uint64(100*(len(value)+len(label))) {
			t.Errorf("%d bytes for %d", n, len(value))
		}
		if err != nil {
			if r2, ok := errors.AsType[*LabelError](err); !ok || r2.Container != "c" {
				t.Errorf("error %v", err)
			}
			if !reflect.DeepEqual(r, Rules{}) {
				t.Errorf("a wrong label gives %+v", r)
			}
			return
		}
		if r.Interval != 0 && (r.Interval < minInterval || r.Interval > maxInterval) || r.Keep.Within < 0 {
			t.Errorf("%q is %+v", value, r)
		}
		for _, e := range r.Exclude {
			if strings.HasPrefix(e.Pattern, "/") || strings.Contains("/"+e.Pattern+"/", "/../") {
				t.Errorf("%q leads out: %+v", value, e)
			}
		}
	})
}
