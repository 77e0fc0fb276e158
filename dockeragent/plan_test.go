package dockeragent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/snapshot"
)

// service is a container of the project "app"; mounts are NAME:PATH[:ro], a
// bind mount where NAME is a path.
func service(name string, created int64, labels map[string]string, mounts ...string) dockerapi.Container {
	c := dockerapi.Container{ID: "id-" + name, Names: []string{"/" + name}, State: "running", Created: created,
		Labels: map[string]string{composeProject: "app", composeService: name}}
	for k, v := range labels {
		c.Labels[k] = v
	}
	for _, m := range mounts {
		f := strings.Split(m, ":")
		one := dockerapi.Mount{Type: "volume", Name: f[0], Destination: f[1], RW: len(f) == 2}
		if strings.HasPrefix(f[0], "/") {
			one.Type, one.Name, one.Source = "bind", "", f[0]
		}
		c.Mounts = append(c.Mounts, one)
	}
	return c
}

func testVolumes() []dockerapi.Volume {
	var all []dockerapi.Volume
	for _, key := range []string{"data", "cache", "old", StateVolume} {
		all = append(all, dockerapi.Volume{Name: "app_" + key, Driver: "local", Mountpoint: "/m/app_" + key,
			Labels: map[string]string{composeProject: "app", composeVolume: key}})
	}
	return append(all, dockerapi.Volume{Name: "shared", Driver: "local", Mountpoint: "/m/shared"},
		dockerapi.Volume{Name: anonymous, Driver: "local", Mountpoint: "/m/x"})
}

var anonymous = strings.Repeat("ab", 32)

func TestPlan(t *testing.T) {
	type labels = map[string]string
	agent := service("agent", 9, labels{LabelAgent: "true"}, "app_data:/volumes/data", "app_"+StateVolume+":/var/lib/s4/agent")
	outside := service("other", 1, labels{"s4.quiesce": "stop"}, "app_data:/x")
	outside.Labels[composeProject] = "elsewhere"
	for _, tt := range []struct {
		name       string
		containers []dockerapi.Container
		self       string
		volumes    string // NAME of each, with "!" where it has an error
		problems   []string
		left       []string
		check      func(t *testing.T, p *Plan)
	}{
		{name: "every named volume by default",
			containers: []dockerapi.Container{service("db", 1, nil, "app_data:/data", anonymous+":/tmp", "/srv/conf:/etc/conf:ro", "/run/x.sock:/x.sock")},
			volumes:    "app_data", left: []string{"without a name, at /tmp of db", "the host's /srv/conf", "the volume app_cache: no container mounts it", "the volume app_old"},
			check: func(t *testing.T, p *Plan) {
				if v := p.Volumes[0]; v.Path != "/m/app_data" || v.Remote != "/place" || v.Interval != time.Hour || v.Users[0].Quiesce != QuiesceNone {
					t.Errorf("%+v", v)
				}
			}},
		{name: "only those named", volumes: "app_data shared",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.volumes": "data,shared"}, "app_data:/data", "app_cache:/c", "shared:/s")},
			left:       []string{"the volume app_cache: labels"}},
		{name: "all but", volumes: "app_data",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.exclude": "cache,data/tmp"}, "app_data:/data", "app_cache:/c")},
			check: func(t *testing.T, p *Plan) {
				if !slices.Equal(p.Volumes[0].Exclude, []string{"/tmp"}) {
					t.Errorf("%+v", p.Volumes[0])
				}
			}},
		{name: "mistyped name", volumes: "",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.volumes": "dtaa"}, "app_data:/data")},
			problems:   []string{`container db: label s4.volumes="dtaa": the container mounts no such volume (good: data)`},
			left:       []string{"the volume app_data: labels"}},
		{name: "mistyped exclusion", volumes: "app_cache! app_data!",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.exclude": "cahce"}, "app_data:/data", "app_cache:/c")},
			problems:   []string{`container db: label s4.exclude="cahce": the container mounts no such volume (good: cache, data)`}},
		{name: "mistyped label", volumes: "app_data!",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.quiese": "stop"}, "app_data:/data")},
			problems:   []string{`label s4.quiese="stop": no such label`}},
		{name: "switched off", volumes: "",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.enable": "false"}, "app_data:/data")},
			left:       []string{"the volume app_data: labels"}},
		{name: "shared by two", volumes: "app_data",
			containers: []dockerapi.Container{
				service("db", 1, labels{"s4.quiesce": "pause", "s4.interval": "2h", "s4.keep": "daily=3"}, "app_data:/data"),
				service("web", 2, labels{"s4.quiesce": "stop", "s4.interval": "30m", "s4.keep": "daily=1,weekly=2"}, "app_data:/w"),
				service("off", 3, labels{"s4.enable": "false", "s4.interval": "1m"}, "app_data:/w:ro"),
			},
			check: func(t *testing.T, p *Plan) {
				v := p.Volumes[0]
				if v.Interval != 30*time.Minute || v.Keep != (Keep{Daily: 3, Weekly: 2}) {
					t.Errorf("%+v", v)
				}
				var held []string
				for _, u := range v.Users {
					held = append(held, u.Name+" "+string(u.Quiesce))
				}
				if got := strings.Join(held, ", "); got != "off none, web stop, db pause" {
					t.Errorf("users: %s", got)
				}
			}},
		{name: "one names it, one leaves it out", volumes: "app_data!",
			containers: []dockerapi.Container{service("a", 1, labels{"s4.volumes": "data"}, "app_data:/d"), service("b", 1, labels{"s4.exclude": "data"}, "app_data:/d")},
			problems:   []string{"s4.volumes of a names it and s4.exclude of b leaves it out"}},
		{name: "two remotes", volumes: "app_data!",
			containers: []dockerapi.Container{service("a", 1, labels{"s4.remote": "/x"}, "app_data:/d"), service("b", 1, labels{"s4.remote": "/y"}, "app_data:/d")},
			problems:   []string{"different remotes: /x, /y"}},
		{name: "agent in the project", self: "id-agent", volumes: "app_cache! app_data",
			containers: []dockerapi.Container{agent, service("db", 1, nil, "app_data:/data", "app_cache:/c")},
			problems:   []string{"volume app_cache: the agent does not mount it"},
			check: func(t *testing.T, p *Plan) {
				if p.Volumes[1].Path != "/volumes/data" || len(p.Volumes[1].Users) != 1 {
					t.Errorf("%+v", p.Volumes[1])
				}
			}},
		{name: "only the agent mounts it", self: "id-agent", volumes: "app_cache!",
			containers: []dockerapi.Container{agent, service("db", 1, nil, "app_cache:/c")},
			problems:   []string{"volume app_cache: the agent does not mount it", "volume app_data: only the agent mounts it"}},
		{name: "a user of another project", volumes: "app_data",
			containers: []dockerapi.Container{service("db", 1, nil, "app_data:/data"), outside},
			left:       []string{"what other writes into the volume app_data meanwhile"},
			check: func(t *testing.T, p *Plan) {
				for _, u := range p.Volumes[0].Users {
					if u.Quiesce != QuiesceNone {
						t.Errorf("%+v", u)
					}
				}
			}},
		{name: "dump goes where the database is", volumes: "app_cache app_data",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.dump": "postgres"}, "app_cache:/c", "app_data:/var/lib/postgresql/data")},
			check: func(t *testing.T, p *Plan) {
				if p.Volumes[0].Users[0].Dump != DumpNone || p.Volumes[1].Users[0].Dump != DumpPostgres {
					t.Errorf("%+v", p.Volumes)
				}
			}},
		{name: "dump goes nowhere", volumes: "app_data",
			containers: []dockerapi.Container{service("db", 1, labels{"s4.dump": "mysql"}, "app_data:/d:ro")},
			problems:   []string{"no volume that the container can write to"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlan("app", tt.self, Defaults{Remote: "/place", Interval: time.Hour}, tt.containers, testVolumes())
			var names []string
			for _, v := range p.Volumes {
				name := v.Name
				if v.Err != nil {
					name += "!"
				}
				names = append(names, name)
			}
			if got := strings.Join(names, " "); got != tt.volumes {
				t.Errorf("volumes %q, want %q", got, tt.volumes)
			}
			if len(p.Problems) != len(tt.problems) {
				t.Errorf("problems: %q", p.Problems)
			}
			for _, want := range tt.problems {
				if !slices.ContainsFunc(p.Problems, func(s string) bool { return strings.Contains(s, want) }) {
					t.Errorf("%q lacks %q", p.Problems, want)
				}
			}
			for _, want := range tt.left {
				if !slices.ContainsFunc(p.Left, func(s string) bool { return strings.Contains(s, want) }) {
					t.Errorf("%q lacks %q", p.Left, want)
				}
			}
			if slices.ContainsFunc(p.Left, func(s string) bool { return strings.Contains(s, ".sock") || strings.Contains(s, StateVolume) }) {
				t.Errorf("%q tells of what holds no data", p.Left)
			}
			if tt.check != nil {
				tt.check(t, p)
			}
		})
	}
}

func TestHoldOrder(t *testing.T) {
	user := func(name string, created int64, on ...string) User {
		u := User{ID: name, Name: name, Service: name, Created: created}
		for _, d := range on {
			u.DependsOn = append(u.DependsOn, Dependency{Service: d})
		}
		return u
	}
	for _, tt := range []struct {
		users []User
		want  string
	}{
		{[]User{user("db", 1), user("app", 2)}, "app db"},
		{[]User{user("db", 9), user("app", 2, "db")}, "app db"},
		{[]User{user("db", 9), user("app", 8, "db", "queue"), user("queue", 7, "db"), user("web", 1, "app")}, "web app queue db"},
		{[]User{user("a", 1, "b"), user("b", 2, "a")}, "b a"},
		{[]User{user("app", 1), user("db", 1)}, "app db"},
		{[]User{user("db", 1), user("app", 1)}, "db app"},
	} {
		var got []string
		for _, u := range holdOrder(tt.users) {
			got = append(got, u.Name)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("order %q, want %q", got, tt.want)
		}
	}
	got := parseDependsOn("db:service_healthy:false,cache:service_started:true,")
	if !slices.Equal(got, []Dependency{{"db", true}, {"cache", false}}) {
		t.Errorf("depends on %+v", got)
	}
}

func TestSelf(t *testing.T) {
	id := strings.Repeat("0f", 32)
	for in, want := range map[string]string{
		"717 700 8:1 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n": id,
		"717 700 8:1 /docker/containers/" + id + "/hostname /etc/hostname rw - ext4 /dev/sda1 rw":           id,
		// a host that runs an engine
		"717 700 0:5 / /var/lib/docker/containers/" + id + "/mounts/shm rw - tmpfs shm rw\n": "",
		"717 700 8:1 /srv/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n":                   "",
		"717\n\n": "",
	} {
		if got := selfIn(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestNext(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	refused := errors.New("no")
	for _, tt := range []struct {
		name     string
		failures int
		held     bool
		err      error
		min, max time.Duration // until the next
	}{
		{"good", 3, true, nil, 57 * time.Minute, time.Hour},
		{"first failure", 0, false, refused, 30 * time.Second, 30 * time.Second},
		{"third failure", 2, false, refused, 2 * time.Minute, 2 * time.Minute},
		{"failure with services held", 0, true, refused, 5 * time.Minute, 5 * time.Minute},
		{"many failures", 1000, false, refused, time.Hour, time.Hour},
	} {
		st := &VolumeState{Interval: time.Hour, Failures: tt.failures}
		st.begin(now)
		st.end("v", Result{Files: 1}, tt.held, tt.err, now)
		if d := st.Next.Sub(now); d < tt.min || d > tt.max {
			t.Errorf("%s: next after %v", tt.name, d)
		}
		if (tt.err == nil) != (st.Failures == 0 && st.Error == "" && st.LastGood.Equal(now)) {
			t.Errorf("%s: %+v", tt.name, st)
		}
	}
	a, b := &VolumeState{Interval: time.Hour}, &VolumeState{Interval: time.Hour}
	for st, name := range map[*VolumeState]string{a: "one", b: "two"} {
		st.begin(now)
		st.end(name, Result{}, false, nil, now)
	}
	if a.Next.Equal(b.Next) {
		t.Error("two volumes are due at the same time")
	}
}

// prunes is a backup that also prunes.
type prunes struct {
	pushFunc
	err    error
	pruned []string
}

func (p *prunes) Prune(_ context.Context, v Volume) (Pruned, error) {
	p.pruned = append(p.pruned, v.Name)
	if p.err == nil && v.Name == "panics" {
		panic("no")
	}
	return Pruned{Snapshots: 1}, p.err
}

// TestPruneOnceADay: a remote is pruned after a good backup, by whoever asks for it,
// not again for a day, but soon again where that failed.
func TestPruneOnceADay(t *testing.T) {
	refused := errors.New("no")
	var failing error
	p := &prunes{pushFunc: func(context.Context, Volume) (Result, error) { return Result{}, failing }}
	a := &Agent{dir: t.TempDir(), backup: p, maxHold: time.Minute, log: slog.New(slog.DiscardHandler),
		holder: &holder{journal: &journal{}}, state: &State{Volumes: map[string]*VolumeState{}}, running: map[string]Volume{}}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	backUp := func(name string, keep Keep) *VolumeState {
		t.Helper()
		v := Volume{Name: name, Path: dir, Keep: keep, Interval: time.Hour}
		if a.state.Volumes[name] == nil {
			a.state.Volumes[name] = &VolumeState{Interval: time.Hour}
		}
		p.pruned = nil
		a.note(a.run(t.Context(), v, a.begin(v)))
		return a.state.Volumes[name]
	}
	some := Keep{Daily: 7}
	if backUp("all", Keep{}); len(p.pruned) > 0 {
		t.Error("pruned without rules")
	}
	failing = refused
	if backUp("v", some); len(p.pruned) > 0 {
		t.Error("pruned after a backup that failed")
	}
	failing, p.err = nil, refused
	if st := backUp("v", some); len(p.pruned) != 1 || st.PruneError != "no" || st.Error != "" || st.LastGood.IsZero() {
		t.Errorf("pruned %q, and noted %+v", p.pruned, st)
	}
	p.err = nil
	if st := backUp("v", some); len(p.pruned) != 1 || st.PruneError != "" || st.LastPrune.IsZero() {
		t.Errorf("pruned %q, and noted %+v", p.pruned, st)
	}
	if backUp("v", some); len(p.pruned) > 0 {
		t.Error("pruned twice within a day")
	}
	a.state.Volumes["v"].LastPrune = time.Now().Add(-pruneInterval)
	if backUp("v", some); len(p.pruned) != 1 {
		t.Error("not pruned after a day")
	}
	if st := backUp("panics", some); st.PruneError == "" || st.Error != "" {
		t.Errorf("after a panic: %+v", st)
	}
	a.backup = p.pushFunc
	if st := backUp("w", some); !strings.Contains(st.PruneError, LabelKeep) {
		t.Errorf("who cannot prune: %+v", st)
	}
}

// A backup that the agent's end cuts short is no failure, and stays due.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	push := func(ctx context.Context, _ Volume) (Result, error) {
		cancel()
		return Result{}, ctx.Err()
	}
	before := VolumeState{Interval: time.Hour, Next: time.Now().Add(-time.Minute), LastGood: time.Now().Add(-time.Hour)}
	st := before
	a := &Agent{dir: t.TempDir(), backup: pushFunc(push), maxHold: time.Minute, log: slog.New(slog.DiscardHandler),
		holder: &holder{journal: &journal{}}, state: &State{Volumes: map[string]*VolumeState{"v": &st}}, running: map[string]Volume{}}
	v := Volume{Name: "v", Path: t.TempDir(), Interval: time.Hour}
	if err := os.WriteFile(filepath.Join(v.Path, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.note(a.run(ctx, v, a.begin(v)))
	if st.LastTry.IsZero() {
		t.Error("it was not tried")
	}
	if st.LastTry = before.LastTry; st != before {
		t.Errorf("noted %+v", st)
	}
}

func TestFollow(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := &State{Volumes: map[string]*VolumeState{
		"was": {LastGood: now.Add(-time.Hour)}, "never": {}, "late": {Next: now.Add(90 * 24 * time.Hour), LastGood: now},
	}}
	s.follow(&Plan{Volumes: []Volume{{Name: "late", Interval: time.Hour}, {Name: "new", Interval: time.Hour, Err: snapshot.ErrUsage}}}, now)
	if !s.Volumes["was"].Gone || s.Volumes["never"] != nil {
		t.Error("a volume that was backed up stays known, another not")
	}
	if d := s.Volumes["late"].Next.Sub(now); d != time.Hour {
		t.Errorf("after the clock was set, next in %v", d)
	}
	if s.Volumes["new"].Error == "" || !s.Volumes["new"].Next.Equal(now) {
		t.Errorf("%+v", s.Volumes["new"])
	}
}

// What failed is tried again at once by an agent that is started anew.
func TestStartedAnew(t *testing.T) {
	dir, next := t.TempDir(), time.Now().Add(time.Hour)
	before := &State{Volumes: map[string]*VolumeState{"failed": {Failures: 3, Next: next}, "good": {Next: next, LastGood: time.Now()}}}
	if err := before.save(dir); err != nil {
		t.Fatal(err)
	}
	s, err := loadState(dir, "app")
	if err != nil {
		t.Fatal(err)
	}
	if !s.Volumes["failed"].Next.Before(time.Now()) || !s.Volumes["good"].Next.Equal(next) {
		t.Errorf("due at %v and %v", s.Volumes["failed"].Next, s.Volumes["good"].Next)
	}
}
