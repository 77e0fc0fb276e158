package snapshots

import (
	"slices"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// at makes snapshots of these times, called by them.
func at(t *testing.T, times ...string) []snapshot.Info {
	t.Helper()
	var infos []snapshot.Info
	for _, text := range times {
		when, err := time.Parse("2006-01-02 15:04", "2026-"+text)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, snapshot.Info{ID: text, Handle: text, Time: when})
	}
	return infos
}

func TestRulesChoose(t *testing.T) {
	times := []string{"01-01 10:00", "01-30 09:00", "02-01 08:00", "02-01 08:30", "02-01 09:00", "02-02 08:00", "02-02 08:10", "02-02 08:20"}
	for _, c := range []struct {
		name  string
		rules Rules
		pin   string
		want  []string
	}{
		{"none", Rules{}, "", nil},
		{"pinned alone", Rules{}, "01-30 09:00", []string{"01-30 09:00"}},
		{"the last ones", Rules{Last: 2}, "", []string{"02-02 08:10", "02-02 08:20"}},
		{"all", Rules{Last: -1}, "", times},
		{"the newest of each hour", Rules{Hourly: 3}, "", []string{"02-01 08:30", "02-01 09:00", "02-02 08:20"}},
		{"the newest of each day", Rules{Daily: 2}, "", []string{"02-01 09:00", "02-02 08:20"}},
		{"days without one are no days", Rules{Daily: 4}, "", []string{"01-01 10:00", "01-30 09:00", "02-01 09:00", "02-02 08:20"}},
		{"weeks begin on Monday", Rules{Weekly: -1}, "", []string{"01-01 10:00", "02-01 09:00", "02-02 08:20"}},
		{"months", Rules{Monthly: 12}, "", []string{"01-30 09:00", "02-02 08:20"}},
		{"years", Rules{Yearly: 1}, "", []string{"02-02 08:20"}},
		{"together", Rules{Last: 1, Hourly: 2, Monthly: 2}, "02-01 08:00", []string{"01-30 09:00", "02-01 08:00", "02-01 09:00", "02-02 08:20"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			infos := at(t, times...)
			keep, drop := c.rules.Choose(infos, func(s snapshot.Info) bool { return s.ID == c.pin }, time.UTC)
			var got []string
			for _, s := range keep {
				got = append(got, s.ID)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("kept %q, want %q", got, c.want)
			}
			if len(keep)+len(drop) != len(infos) {
				t.Errorf("%d kept and %d dropped of %d", len(keep), len(drop), len(infos))
			}
		})
	}
}

func TestRulesDaysAreOfTheZone(t *testing.T) {
	infos := at(t, "02-01 22:30", "02-01 23:30") // one day in UTC, two an hour east of it
	east := time.FixedZone("east", 3600)
	keep, _ := Rules{Daily: -1}.Choose(infos, func(snapshot.Info) bool { return false }, east)
	if len(keep) != 2 {
		t.Errorf("%d kept, want 2", len(keep))
	}
}

func TestRulesReasons(t *testing.T) {
	infos := at(t, "01-01 10:00", "01-30 09:00", "02-01 08:00", "02-01 09:00", "02-02 08:00", "02-02 08:10")
	now := infos[len(infos)-1].Time.Add(time.Hour)
	got := Rules{Last: 1, Daily: 2, Monthly: -1, Within: 25 * time.Hour}.Reasons(infos, now)
	want := []string{"", "monthly", "", "within", "within", "last"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (Rules{Within: time.Hour}).Reasons(infos, now); !slices.Equal(got, make([]string, len(infos))) {
		t.Errorf("what is just as old is kept: %q", got)
	}
}
