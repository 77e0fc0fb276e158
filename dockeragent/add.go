package dockeragent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/sshkeys"
	"github.com/s4-storage/s4/snapshot"
)

// What the agent's service is made of.
const (
	agentService = "s4-agent"
	// AgentImage is the image of an agent.
	AgentImage = "s4-agent:latest"
	// AgentDir is the agent's own directory in its container; see Config.Dir.
	AgentDir = "/var/lib/s4/agent"

	keyFile        = "id_ed25519"
	knownHostsFile = "known_hosts"
	secretsDir     = "/run/secrets/"
	secretKey      = "s4_key"
	secretHosts    = "s4_known_hosts"
	secretPhrase   = "s4_passphrase"
)

// overrideMark begins an override that is ours, and may be written anew.
const overrideMark = "# Made by `s4 docker add`."

// AddOptions say how backups are added to a compose project.
type AddOptions struct {
	Dir        string // with the compose file
	Remote     string // the place for volumes
	Image      string // "" is AgentImage
	Socket     string // of the engine, on this host
	Passphrase string // file with the repositories' passphrase; "" makes them unencrypted
	// AcceptHost is shown the fingerprint of a host key that is not pinned yet
	// and tells whether it is the right one.
	AcceptHost func(ctx context.Context, address, fingerprint string) error
}

// Added is what was added.
type Added struct {
	Project     string   `json:"project"`
	Override    string   `json:"override"`                 // path of the file
	Updated     bool     `json:"updated"`                  // it was there before
	Volumes     []string `json:"volumes"`                  // that will be backed up, as the engine calls them
	Left        []string `json:"left"`                     // see Plan
	Key         string   `json:"key,omitempty"`            // path of the ssh key
	Authorized  string   `json:"authorized_key,omitempty"` // the target's line for it
	Fingerprint string   `json:"fingerprint,omitempty"`    // of the host key that is pinned

	compose Compose
	dir     string
}

// Override is what Add would write, without writing anything; also beside an
// override that is not ours.
func Override(ctx context.Context, o AddOptions) ([]byte, error) {
	a, err := prepare(ctx, &o)
	if err != nil {
		return nil, err
	}
	return a.override()
}

// Add writes an override beside a compose file, with one more service: the
// agent. An ssh key is made for it, and the remote's host key pinned.
//
// Errors: fs.ErrNotExist without a compose file; snapshot.ErrRefused for an
// override that is not ours, and for a host key that is not accepted;
// snapshot.ErrUsage for labels that are wrong; *ComposeError.
func Add(ctx context.Context, o AddOptions) (*Added, error) {
	a, err := prepare(ctx, &o)
	if err != nil {
		return nil, err
	}
	if err := checkOverrides(a.dir, a.overrideFile); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(a.own(), 0o700); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	// The key is a secret, and the directory of a compose file often in git.
	if err := atomicfile.Write(filepath.Join(a.own(), ".gitignore"), []byte("*\n"), 0o644); err != nil {
		return nil, err
	}
	r := &Added{Project: a.project.name, Override: filepath.Join(a.dir, a.overrideFile), Left: a.project.plan.Left, compose: a.compose, dir: a.dir}
	for _, v := range a.project.plan.Volumes {
		r.Volumes = append(r.Volumes, v.Name)
	}
	if a.remote.Host != "" {
		if err := a.ssh(ctx, r); err != nil {
			return nil, err
		}
	}
	text, err := a.override()
	if err != nil {
		return nil, err
	}
	before, err := os.ReadFile(r.Override)
	r.Updated = err == nil
	if err := atomicfile.Write(r.Override, text, 0o644); err != nil {
		return nil, err
	}
	if err := a.verify(ctx); err != nil {
		undo := os.Remove
		if r.Updated {
			undo = func(name string) error { return atomicfile.Write(name, before, 0o644) }
		}
		return nil, errors.Join(err, undo(r.Override))
	}
	return r, nil
}

// Command is what a person types to have compose do something.
func (r *Added) Command(args string) string { return strings.Join(r.compose.args, " ") + " " + args }

// Start starts the agent.
func (r *Added) Start(ctx context.Context) error {
	_, err := r.compose.run(ctx, r.dir, "up", "-d", agentService)
	return err
}

// adding is an Add under way.
type adding struct {
	AddOptions
	compose      Compose
	dir          string // absolute
	overrideFile string
	project      *project
	remote       borgio.Location
}

// own is where the agent's files are on the host.
func (a *adding) own() string { return filepath.Join(a.dir, agentService) }

// prepare looks at all there is and changes nothing.
func prepare(ctx context.Context, o *AddOptions) (*adding, error) {
	var r Rules
	if good, err := parseRemote(&r, o.Remote); err != nil {
		return nil, hint.With(fmt.Errorf("%w: remote %q: %w", snapshot.ErrUsage, o.Remote, err), "it is "+good)
	}
	o.Image = cmp.Or(o.Image, AgentImage)
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	a := &adding{AddOptions: *o, dir: dir}
	if a.remote, err = borgio.ParseLocation(o.Remote); err != nil {
		return nil, err
	}
	if o.Passphrase != "" {
		if a.Passphrase, err = filepath.Abs(o.Passphrase); err != nil {
			return nil, err
		}
		if _, err := os.Stat(a.Passphrase); err != nil {
			return nil, fmt.Errorf("the passphrase's file: %w", err)
		}
	}
	file, err := findComposeFile(dir)
	if err != nil {
		return nil, err
	}
	a.overrideFile = overrideOf(file)
	if a.compose, err = FindCompose(ctx); err != nil {
		return nil, err
	}
	config, err := a.compose.run(ctx, dir, "-f", file, "config")
	if err != nil {
		return nil, err
	}
	if a.project, err = parseProject(config, projectName(dir), o.Remote); err != nil {
		return nil, err
	}
	switch plan := a.project.plan; {
	case a.project.service[agentService]:
		return nil, fmt.Errorf("%w: %s has a service %s of its own", snapshot.ErrRefused, file, agentService)
	case len(plan.Problems) > 0:
		return nil, fmt.Errorf("%w: %s", snapshot.ErrUsage, strings.Join(plan.Problems, "; "))
	case len(plan.Volumes) == 0:
		text := "no service has a docker volume with a name"
		if len(plan.Left) > 0 {
			text += "; left out: " + strings.Join(plan.Left, "; ")
		}
		return nil, fmt.Errorf("%w: nothing to back up: %s", snapshot.ErrRefused, text)
	}
	return a, nil
}

// ssh makes the key, pins the host's, and writes the target's line.
func (a *adding) ssh(ctx context.Context, r *Added) error {
	r.Key = filepath.Join(a.own(), keyFile)
	comment := agentService + " of " + a.project.name
	key, err := sshkeys.Ensure(r.Key, comment)
	if err != nil {
		return err
	}
	g := sshkeys.Grant{Key: key, Comment: comment, AppendOnly: true}
	for _, name := range r.Volumes {
		g.Paths = append(g.Paths, path.Join(a.remote.Path, name))
	}
	r.Authorized = g.Line()

	address := sshkeys.Address(a.remote)
	host, err := sshkeys.HostKey(ctx, address)
	if err != nil {
		return err
	}
	r.Fingerprint = ssh.FingerprintSHA256(host)
	hosts := filepath.Join(a.own(), knownHostsFile)
	err = sshkeys.CheckPinned(hosts, address, host)
	if !errors.Is(err, sshkeys.ErrNotPinned) {
		return err
	}
	if err := a.AcceptHost(ctx, address, r.Fingerprint); err != nil {
		return err
	}
	return sshkeys.Pin(hosts, address, host)
}

// verify asks compose whether it reads the override: COMPOSE_FILE may say
// otherwise.
func (a *adding) verify(ctx context.Context) error {
	config, err := a.compose.run(ctx, a.dir, "config")
	if err != nil {
		return err
	}
	p, err := parseProject(config, projectName(a.dir), a.Remote)
	if err != nil {
		return err
	}
	if !p.service[agentService] {
		return hint.With(fmt.Errorf("%w: compose does not read %s", snapshot.ErrRefused, a.overrideFile), "is COMPOSE_FILE set, here or in .env?")
	}
	return nil
}

// The override's own shape; see the Compose Specification.
type (
	overrideFile struct {
		Services map[string]overrideService `yaml:"services"`
		Volumes  map[string]struct{}        `yaml:"volumes"`
		Secrets  map[string]overrideSecret  `yaml:"secrets,omitempty"`
	}
	overrideService struct {
		Image       string            `yaml:"image"`
		Command     []string          `yaml:"command,flow"`
		Restart     string            `yaml:"restart"`
		StopGrace   string            `yaml:"stop_grace_period"`
		Labels      map[string]string `yaml:"labels"`
		Environment map[string]string `yaml:"environment"`
		Secrets     []string          `yaml:"secrets,omitempty,flow"`
		Volumes     []overrideMount   `yaml:"volumes"`
		ReadOnly    bool              `yaml:"read_only"`
		Tmpfs       []string          `yaml:"tmpfs,flow"`
		CapDrop     []string          `yaml:"cap_drop,flow"`
		CapAdd      []string          `yaml:"cap_add,flow"`
		SecurityOpt []string          `yaml:"security_opt,flow"`
		Health      overrideHealth    `yaml:"healthcheck"`
	}
	overrideMount struct {
		Type   string `yaml:"type"`
		Source string `yaml:"source"`
		Target string `yaml:"target"`
	}
	overrideHealth struct {
		Test        []string `yaml:"test,flow"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		StartPeriod string   `yaml:"start_period"`
	}
	overrideSecret struct {
		File string `yaml:"file"`
	}
)

// override is the text of the override.
func (a *adding) override() ([]byte, error) {
	s := overrideService{
		Image: a.Image, Command: []string{"docker", "agent", "run"}, Restart: "unless-stopped",
		StopGrace: "3m", // what is held is let go within this
		Labels:    map[string]string{LabelAgent: "true"},
		Environment: map[string]string{
			"S4_REMOTE": a.Remote,
			"HOME":      AgentDir + "/home", // of borg's and s4's caches, too
		},
		Volumes: []overrideMount{
			{"bind", a.Socket, "/var/run/docker.sock"},
			{"volume", StateVolume, AgentDir},
		},
		ReadOnly: true, Tmpfs: []string{"/tmp"}, CapDrop: []string{"ALL"},
		// Whoever owns the files of a volume, and whatever their modes; and to give
		// them back to their owners, when it is run to bring them back.
		CapAdd:      []string{"DAC_OVERRIDE", "FOWNER", "CHOWN", "FSETID"},
		SecurityOpt: []string{"no-new-privileges:true"},
		Health: overrideHealth{Test: []string{"CMD", "s4", "docker", "status", "--quiet", "--health"},
			Interval: "1m", Timeout: "30s", StartPeriod: "30m"},
	}
	for _, v := range a.project.plan.Volumes {
		s.Volumes = append(s.Volumes, overrideMount{"volume", a.project.keys[v.Name], VolumesDir + "/" + v.Name})
	}
	f := overrideFile{Volumes: map[string]struct{}{StateVolume: {}}, Secrets: map[string]overrideSecret{}}
	if a.remote.Host == "" {
		s.Volumes = append(s.Volumes, overrideMount{"bind", a.remote.Path, a.remote.Path})
	} else {
		f.Secrets[secretKey] = overrideSecret{"./" + agentService + "/" + keyFile}
		f.Secrets[secretHosts] = overrideSecret{"./" + agentService + "/" + knownHostsFile}
		s.Environment["S4_PRIV_KEY_FILE"] = secretsDir + secretKey
		s.Environment["BORG_RSH"] = "ssh -i " + secretsDir + secretKey + " -o IdentitiesOnly=yes -o BatchMode=yes" +
			" -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + secretsDir + secretHosts
	}
	if a.Passphrase != "" {
		f.Secrets[secretPhrase] = overrideSecret{a.Passphrase}
		s.Environment["BORG_PASSCOMMAND"] = "cat " + secretsDir + secretPhrase
	}
	for name := range f.Secrets {
		s.Secrets = append(s.Secrets, name)
	}
	slices.Sort(s.Secrets)
	for k, v := range s.Environment { // compose would replace variables
		s.Environment[k] = strings.ReplaceAll(v, "$", "$$")
	}
	f.Services = map[string]overrideService{agentService: s}
	var b bytes.Buffer
	b.WriteString(overrideMark + " Run it again when volumes, labels or the remote change;\n# it overwrites what you change here.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := errors.Join(e.Encode(f), e.Close()); err != nil {
		return nil, fmt.Errorf("write the override: %w", err)
	}
	return b.Bytes(), nil
}
