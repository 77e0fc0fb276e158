package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/sshkeys"
)

// Verdict is how a check ended.
type Verdict string

// The verdicts.
const (
	OK   Verdict = "ok"
	Note Verdict = "note" // good to know
	Bad  Verdict = "bad"  // backups fail, or soon will
)

// Check is one thing that the doctor looked at.
type Check struct {
	Verdict Verdict `json:"verdict"`
	What    string  `json:"what"`
	Text    string  `json:"text"`
	Hint    string  `json:"hint,omitempty"`
}

// doctor collects checks.
type doctor struct {
	engine *dockerapi.Client
	checks []Check
}

func (d *doctor) say(v Verdict, what, format string, args ...any) {
	d.checks = append(d.checks, Check{Verdict: v, What: what, Text: fmt.Sprintf(format, args...)})
}

func (d *doctor) bad(what string, err error) {
	d.checks = append(d.checks, Check{Bad, what, err.Error(), hint.Of(err)})
}

// Doctor looks at everything that backups of a project, or for "" of all
// projects with an agent, depend on.
func Doctor(ctx context.Context, engine *dockerapi.Client, project string, maxLag time.Duration) []Check {
	d := &doctor{engine: engine}
	v, err := engine.Version(ctx)
	if err != nil {
		d.bad("engine", err)
		return d.checks
	}
	d.say(OK, "engine", "docker %s, API %s", v.Version, v.APIVersion)
	agents, err := Statuses(ctx, engine, project)
	if err != nil {
		d.bad("agent", err)
		return d.checks
	}
	if len(agents) == 0 {
		d.checks = append(d.checks, Check{Bad, "agent", "no container is an agent", "beside the compose file: s4 docker add --remote URL"})
	}
	for _, s := range agents {
		d.agent(s)
		d.plan(ctx, s)
		d.volumes(s, maxLag)
		d.held(ctx, s)
		d.remotes(ctx, s)
	}
	return d.checks
}

func (d *doctor) agent(s Status) {
	if s.Running {
		d.say(OK, "agent", "%s runs for the project %s", s.Container, s.Project)
		return
	}
	d.checks = append(d.checks, Check{Bad, "agent", fmt.Sprintf("%s is %s", s.Container, s.detail.State), "docker logs " + s.Container})
}

func (d *doctor) plan(ctx context.Context, s Status) {
	plan, err := Discover(ctx, d.engine, s.Project, s.id, Defaults{Remote: "/", Interval: DefaultInterval})
	if err != nil {
		d.bad("labels", err)
		return
	}
	for _, p := range plan.Problems {
		d.say(Bad, "labels", "%s", p)
	}
	for _, l := range plan.Left {
		d.say(Note, "not backed up", "%s", l)
	}
	for _, v := range plan.Volumes {
		for _, u := range v.Users {
			if u.Writable && !u.touched() {
				d.say(Note, "quiesce", "%s writes to the volume %s while it is copied; %s=pause or stop holds it", u.Name, v.Name, LabelQuiesce)
			}
		}
	}
	if len(plan.Problems) == 0 {
		d.say(OK, "labels", "%d volumes of the project %s are to be backed up", len(plan.Volumes), s.Project)
	}
}

func (d *doctor) volumes(s Status, maxLag time.Duration) {
	now := time.Now()
	for _, name := range s.Names() {
		st := s.Volumes[name]
		switch {
		case st.Gone:
			d.say(Note, "backups", "the volume %s is no longer backed up; last good %v ago", name, now.Sub(st.LastGood).Round(time.Second))
		case st.Empty && st.Late(maxLag, now):
			d.say(Bad, "backups", "the volume %s is empty: does its service write elsewhere? %s", name, st.Error)
		case st.Late(maxLag, now):
			d.say(Bad, "backups", "the volume %s: last good %s%s", name, ago(st.LastGood, now), because(st.Error))
		case st.Error != "":
			d.say(Note, "backups", "the volume %s: last good %s, but the last try failed%s", name, ago(st.LastGood, now), because(st.Error))
		default:
			d.say(OK, "backups", "the volume %s: last good %s", name, ago(st.LastGood, now))
		}
		if st.PruneError != "" && !st.Gone {
			d.say(Bad, "keep", "the volume %s: old snapshots stay%s", name, because(st.PruneError))
		}
	}
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}

func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// held looks for services that are down though no agent will bring them back.
func (d *doctor) held(ctx context.Context, s Status) {
	if s.Running {
		return
	}
	for _, h := range s.Held {
		c, err := d.engine.Inspect(ctx, h.ID)
		if err == nil && (c.State.Paused || !c.State.Running) {
			verb := map[bool]string{true: "unpause", false: "start"}[c.State.Paused]
			d.checks = append(d.checks, Check{Bad, "held", fmt.Sprintf("%s is down since a backup at %s", h.Name, h.Since.Format(time.RFC3339)),
				"start the agent, or: docker " + verb + " " + h.Name})
		}
	}
}

// remotes compares what the agent has to reach its remotes with what is there.
func (d *doctor) remotes(ctx context.Context, s Status) {
	env := map[string]string{}
	details, err := d.engine.Inspect(ctx, s.id)
	if err != nil {
		d.bad("remote", err)
		return
	}
	for _, e := range details.Config.Env {
		key, value, _ := strings.Cut(e, "=")
		env[key] = value
	}
	places := map[string]bool{}
	if r := env["S4_REMOTE"]; r != "" {
		places[r] = true
	}
	for _, v := range s.Volumes {
		places[v.Remote] = true
	}
	keyChecked := false
	for place := range places {
		loc, err := borgio.ParseLocation(place)
		if err != nil || loc.Host == "" {
			continue
		}
		if path := env["S4_PRIV_KEY_FILE"]; path != "" && !keyChecked {
			keyChecked = true
			d.key(ctx, s, path)
		}
		d.hostKey(ctx, s, sshkeys.Address(loc))
	}
}

const maxSecret = 1 << 20

func (d *doctor) key(ctx context.Context, s Status, path string) {
	data, err := d.engine.ReadFile(ctx, s.id, path, maxSecret)
	if err != nil {
		d.bad("key", err)
		return
	}
	key, err := sshkeys.Public(path, data)
	if err != nil {
		d.bad("key", err)
		return
	}
	for _, st := range s.Volumes {
		if strings.Contains(st.Error, "Permission denied (publickey") {
			d.checks = append(d.checks, Check{Bad, "key", ssh.FingerprintSHA256(key) + " is not let in at " + st.Remote,
				"`s4 docker add`, given again, prints its line for authorized_keys there; then: docker restart " + s.Container})
			return
		}
	}
	d.say(OK, "key", "%s", ssh.FingerprintSHA256(key))
}

func (d *doctor) hostKey(ctx context.Context, s Status, address string) {
	key, err := sshkeys.HostKey(ctx, address)
	if err != nil {
		d.bad("host key", err)
		return
	}
	data, err := d.engine.ReadFile(ctx, s.id, secretsDir+secretHosts, maxSecret)
	if err != nil {
		d.bad("host key", err)
		return
	}
	dir, err := os.MkdirTemp("", "s4-doctor-")
	if err != nil {
		d.bad("host key", err)
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only a copy
	file := filepath.Join(dir, knownHostsFile)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		d.bad("host key", err)
		return
	}
	host, _, _ := net.SplitHostPort(address)
	switch err := sshkeys.CheckPinned(file, address, key); {
	case errors.Is(err, sshkeys.ErrNotPinned):
		d.say(Bad, "host key", "%s has none that the agent knows", host)
	case err != nil:
		d.checks = append(d.checks, Check{Bad, "host key", err.Error(), "if that is right, delete s4-agent/known_hosts beside the compose file and run: s4 docker add"})
	default:
		d.say(OK, "host key", "%s has the one that is pinned", host)
	}
}
