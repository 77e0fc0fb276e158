package dockeragent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Labels that compose gives to what it makes.
const (
	composeProject   = "com.docker.compose.project"
	composeService   = "com.docker.compose.service"
	composeVolume    = "com.docker.compose.volume"
	composeOneOff    = "com.docker.compose.oneoff"     // True for a container of `compose run`
	composeDependsOn = "com.docker.compose.depends_on" // by compose v2 only
)

// VolumesDir is where the agent's container has the project's volumes.
const VolumesDir = "/volumes"

// Volume is a docker volume that is to be backed up.
type Volume struct {
	Name     string        // the engine's; the s4 volume has the same
	Path     string        // of its root, for the agent
	Remote   string        // the place for volumes
	Interval time.Duration // from one backup to the next
	Keep     Keep          // at the remote
	Exclude  []string      // patterns of what stays out, from the root on: /tmp/*
	Users    []User        // in the order in which they are held

	// Err is why the volume cannot be backed up as asked for.
	Err error

	// Captured may be called by a [Backup] as soon as what it will store can
	// no longer change, such as after a btrfs snapshot: what is held is let
	// go. Else that is done when Push returns. Never nil in a call of Push.
	Captured func()
}

// User is a container that mounts a volume.
type User struct {
	ID, Name, Service string
	State             string // as in dockerapi.Container
	Writable          bool   // it can write to the volume
	Destination       string // where it has the volume
	Quiesce           Quiesce
	Dump              DumpKind
	Command           string
	Created           int64
	DependsOn         []Dependency
}

// Dependency is a service that has to be there before its dependent.
type Dependency struct {
	Service string
	Healthy bool // it has to be healthy, too
}

// Plan is what is to be backed up in a project, and what is not.
type Plan struct {
	Project  string
	Agent    string   // name of the agent's container; "" where it runs on the host
	Volumes  []Volume // by name
	Problems []string // what is asked for and cannot be
	Left     []string // what is not backed up though it may hold data, and why
}

// Defaults are for what no label says.
type Defaults struct {
	Remote   string
	Interval time.Duration
}

// candidate is a container of the project and what its labels say.
type candidate struct {
	dockerapi.Container
	rules Rules
	err   error // in its labels
}

// planner joins what the engine tells into a plan.
type planner struct {
	plan     *Plan
	defaults Defaults
	known    map[string]dockerapi.Volume // by name
	self     *dockerapi.Container
	inside   []candidate           // users of the project, the agent not among them
	outside  []dockerapi.Container // every other container but agents
}

// Discover asks the engine for the plan of a project. selfID is the agent's
// own container, "" where it runs on the host.
func Discover(ctx context.Context, engine *dockerapi.Client, project, selfID string, d Defaults) (*Plan, error) {
	containers, err := engine.Containers(ctx)
	if err != nil {
		return nil, err
	}
	volumes, err := engine.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	return newPlan(project, selfID, d, containers, volumes), nil
}

// newPlan makes the plan from all that the engine has.
func newPlan(project, selfID string, d Defaults, containers []dockerapi.Container, volumes []dockerapi.Volume) *Plan {
	p := planner{plan: &Plan{Project: project}, defaults: d, known: map[string]dockerapi.Volume{}}
	for _, v := range volumes {
		p.known[v.Name] = v
	}
	for _, c := range containers {
		_, agent := c.Labels[LabelAgent]
		switch {
		case c.ID == selfID:
			p.self, p.plan.Agent = &c, c.Name()
		case agent:
		case c.Labels[composeProject] != project:
			p.outside = append(p.outside, c)
		default:
			one := candidate{Container: c}
			one.rules, one.err = ParseLabels(c.Name(), c.Labels)
			p.inside = append(p.inside, one)
		}
	}
	p.all()
	return p.plan
}

func (p *planner) all() {
	mounted := map[string]bool{}
	for i, c := range p.inside {
		c.err = errors.Join(c.err, p.checkNames(c))
		p.inside[i].err = c.err
		if c.err != nil {
			p.problem("%v", c.err)
		}
		for _, m := range c.Mounts {
			switch {
			case m.Type == "volume" && p.anonymous(m.Name):
				p.left("a volume without a name, at %s of %s: give it a name in the compose file", m.Destination, c.Name())
			case m.Type == "volume":
				mounted[m.Name] = true
			case m.Type == "bind" && !strings.HasSuffix(m.Source, ".sock"):
				p.left("the host's %s, at %s of %s: only docker volumes are backed up", m.Source, m.Destination, c.Name())
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mounted)) {
		p.volume(name)
	}
	p.dumps()
	p.unused(mounted)
	for i := range p.plan.Volumes {
		v := &p.plan.Volumes[i]
		v.Users = holdOrder(v.Users)
	}
}

func (p *planner) problem(format string, args ...any) {
	p.plan.Problems = append(p.plan.Problems, fmt.Sprintf(format, args...))
}

func (p *planner) left(format string, args ...any) {
	p.plan.Left = append(p.plan.Left, fmt.Sprintf(format, args...))
}

// anonymousName is how the engine calls a volume that nobody named; newer
// engines label it, too.
var anonymousName = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (p *planner) anonymous(name string) bool {
	_, labelled := p.known[name].Labels["com.docker.volume.anonymous"]
	return labelled || anonymousName.MatchString(name)
}

// called tells whether a label means the volume by name: as the compose file
// calls it, or as the engine does.
func (p *planner) called(volume, name string) bool {
	return name == volume || name == p.known[volume].Labels[composeVolume]
}

// checkNames gives an error for the volumes that the labels of c name and c does
// not mount: a mistyped name would else back up nothing, silently.
func (p *planner) checkNames(c candidate) error {
	var good []string
	var errs []error
	has := func(name string) bool {
		return slices.ContainsFunc(c.Mounts, func(m dockerapi.Mount) bool { return m.Type == "volume" && p.called(m.Name, name) })
	}
	for _, m := range c.Mounts {
		if m.Type == "volume" && !p.anonymous(m.Name) {
			good = append(good, cmp.Or(p.known[m.Name].Labels[composeVolume], m.Name))
		}
	}
	slices.Sort(good)
	what := "it mounts no volume that has a name"
	if len(good) > 0 {
		what = strings.Join(slices.Compact(good), ", ")
	}
	check := func(label, name string) {
		if !has(name) {
			errs = append(errs, &LabelError{c.Name(), label, name, "the container mounts no such volume", what})
		}
	}
	for _, name := range c.rules.Volumes {
		check(LabelVolumes, name)
	}
	for _, e := range c.rules.Exclude {
		check(LabelExclude, e.Volume)
	}
	return errors.Join(errs...)
}

// volume puts one into the plan, or tells why not.
func (p *planner) volume(name string) {
	v := Volume{Name: name, Remote: p.defaults.Remote}
	wanted, byName, excluded := false, "", ""
	remotes := map[string]string{} // by container
	keeps := []Keep{}
	for _, c := range p.inside {
		u := userOf(c.Container, name)
		if u == nil {
			continue
		}
		if c.err != nil {
			v.Err = fmt.Errorf("%w: %w", errLabels, c.err)
		}
		u.Quiesce, u.Dump, u.Command = cmp.Or(c.rules.Quiesce, QuiesceNone), c.rules.Dump, c.rules.Command
		v.Users = append(v.Users, *u)
		for _, e := range c.rules.Exclude {
			switch {
			case !p.called(name, e.Volume):
			case e.Pattern == "":
				excluded = c.Name()
			default:
				v.Exclude = append(v.Exclude, "/"+e.Pattern)
			}
		}
		if c.rules.Enable != nil && !*c.rules.Enable {
			continue // it has no say in what is backed up, but may be held
		}
		if c.rules.Volumes == nil {
			wanted = true
		} else if slices.ContainsFunc(c.rules.Volumes, func(n string) bool { return p.called(name, n) }) {
			byName = c.Name()
		}
		if c.rules.Interval != 0 && (v.Interval == 0 || c.rules.Interval < v.Interval) {
			v.Interval = c.rules.Interval
		}
		if !c.rules.Keep.IsZero() {
			keeps = append(keeps, c.rules.Keep)
		}
		if c.rules.Remote != "" {
			remotes[c.Name()] = c.rules.Remote
			v.Remote = c.rules.Remote
		}
	}
	switch {
	case excluded != "" && byName != "":
		v.Err = fmt.Errorf("%w: %s of %s names it and %s of %s leaves it out", errLabels, LabelVolumes, byName, LabelExclude, excluded)
		p.problem("volume %s: %v", name, v.Err)
	case byName == "" && (!wanted || excluded != ""):
		p.left("the volume %s: labels of its containers leave it out", name)
		return
	}
	for i, k := range keeps {
		if i == 0 {
			v.Keep = k
		}
		v.Keep = v.Keep.more(k)
	}
	slices.Sort(v.Exclude)
	v.Exclude = slices.Compact(v.Exclude)
	v.Interval = cmp.Or(v.Interval, p.defaults.Interval)
	if places := slices.Compact(slices.Sorted(maps.Values(remotes))); len(places) > 1 {
		v.Err = fmt.Errorf("%w: its containers name different remotes: %s", errLabels, strings.Join(places, ", "))
		p.problem("volume %s: %v", name, v.Err)
	}
	p.outsiders(&v)
	p.locate(&v)
	p.plan.Volumes = append(p.plan.Volumes, v)
}

var errLabels = fmt.Errorf("%w: labels", snapshot.ErrUsage)

// outsiders adds the users that are not of the project: no label of theirs
// counts, but it is good to know of them.
func (p *planner) outsiders(v *Volume) {
	for _, c := range p.outside {
		if u := userOf(c, v.Name); u != nil {
			u.Quiesce = QuiesceNone
			v.Users = append(v.Users, *u)
			if u.Writable && u.State == "running" {
				p.left("what %s writes into the volume %s meanwhile: it is not of the project and never held", u.Name, v.Name)
			}
		}
	}
}

// locate finds where the agent has the volume.
func (p *planner) locate(v *Volume) {
	fail := func(err error) {
		if v.Err == nil {
			v.Err = err
		}
		p.problem("volume %s: %v", v.Name, err)
	}
	if v.Remote == "" {
		fail(hint.With(fmt.Errorf("%w: no remote", snapshot.ErrUsage), "name one with the label "+LabelRemote+" or S4_REMOTE"))
	}
	if p.self == nil {
		if v.Path = p.known[v.Name].Mountpoint; v.Path == "" {
			fail(fmt.Errorf("its driver %s does not tell where it is on the host", p.known[v.Name].Driver))
		}
		return
	}
	for _, m := range p.self.Mounts {
		if m.Type == "volume" && m.Name == v.Name {
			v.Path = m.Destination
			return
		}
	}
	fail(hint.With(errors.New("the agent does not mount it"), "beside the compose file, run again: s4 docker add"))
}

// dumps leaves each dump to one volume: that where the database is by default,
// or else the container's first; sqlite's databases are where they are found.
func (p *planner) dumps() {
	usual := map[DumpKind]string{DumpPostgres: "/var/lib/postgresql", DumpMySQL: "/var/lib/mysql"}
	for _, c := range p.inside {
		kind := c.rules.Dump
		if kind == DumpNone {
			continue
		}
		var chosen *User
		for i := range p.plan.Volumes {
			for j := range p.plan.Volumes[i].Users {
				u := &p.plan.Volumes[i].Users[j]
				if u.ID != c.ID {
					continue
				}
				if !u.Writable {
					u.Dump = DumpNone
				} else if chosen == nil {
					chosen = u
				} else if kind != DumpSQLite {
					loser := u
					if at := usual[kind]; at != "" && within(u.Destination, at) && !within(chosen.Destination, at) {
						chosen, loser = u, chosen
					}
					loser.Dump = DumpNone
				}
			}
		}
		if chosen == nil {
			p.problem("%v", &LabelError{c.Name(), LabelDump, string(kind), "no volume that the container can write to is backed up", ""})
		}
	}
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// unused tells of the project's volumes that no service has: those that only
// the agent mounts, and those that were left behind.
func (p *planner) unused(mounted map[string]bool) {
	if p.self != nil {
		for _, m := range p.self.Mounts {
			if m.Type == "volume" && within(m.Destination, VolumesDir) && !mounted[m.Name] {
				p.problem("volume %s: only the agent mounts it: is the project down, or a service's volume called otherwise?", m.Name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.known)) {
		v := p.known[name]
		ownState := p.self != nil && slices.ContainsFunc(p.self.Mounts, func(m dockerapi.Mount) bool { return m.Name == name })
		if v.Labels[composeProject] == p.plan.Project && !mounted[name] && !ownState && v.Labels[composeVolume] != StateVolume {
			p.left("the volume %s: no container mounts it", name)
		}
	}
}

// userOf is c as a user of the volume, where it can write if it can anywhere;
// nil when it does not mount it.
func userOf(c dockerapi.Container, volume string) *User {
	var user *User
	for _, m := range c.Mounts {
		if m.Type == "volume" && m.Name == volume && (user == nil || m.RW && !user.Writable) {
			user = &User{ID: c.ID, Name: c.Name(), Service: c.Labels[composeService], State: c.State, Writable: m.RW,
				Destination: m.Destination, Created: c.Created, DependsOn: parseDependsOn(c.Labels[composeDependsOn])}
		}
	}
	return user
}

// parseDependsOn reads compose's "db:service_healthy:false,cache:service_started:true".
func parseDependsOn(label string) []Dependency {
	var all []Dependency
	for _, one := range strings.Split(label, ",") {
		service, rest, _ := strings.Cut(one, ":")
		condition, _, _ := strings.Cut(rest, ":")
		if service != "" {
			all = append(all, Dependency{service, condition == "service_healthy"})
		}
	}
	return all
}

// holdOrder puts dependents before what they depend on: an application is
// stopped before its database. Where nothing is known of that, the container
// that was made last is first, since compose makes them in the order of their
// dependencies. Of those made in the same second the order stays: the engine
// lists the newest first.
func holdOrder(users []User) []User {
	rest := slices.Clone(users)
	slices.SortStableFunc(rest, func(a, b User) int { return cmp.Compare(b.Created, a.Created) })
	var order []User
	for len(rest) > 0 {
		next := slices.IndexFunc(rest, func(u User) bool {
			return !slices.ContainsFunc(rest, func(o User) bool {
				return o.ID != u.ID && slices.ContainsFunc(o.DependsOn, func(d Dependency) bool { return d.Service == u.Service })
			})
		})
		next = max(next, 0) // in a circle any is as good
		order = append(order, rest[next])
		rest = slices.Delete(rest, next, next+1)
	}
	return order
}

// StateVolume is what the compose file calls the agent's own volume.
const StateVolume = "s4-agent-state"
