package dockeragent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Compose is the program that reads and runs compose files on this host.
type Compose struct{ args []string }

// FindCompose finds `docker compose`, or else docker-compose.
func FindCompose(ctx context.Context) (Compose, error) {
	if exec.CommandContext(ctx, "docker", "compose", "version").Run() == nil {
		return Compose{[]string{"docker", "compose"}}, nil
	}
	if _, err := exec.LookPath("docker-compose"); err == nil {
		return Compose{[]string{"docker-compose"}}, nil
	}
	return Compose{}, hint.With(fmt.Errorf("neither docker compose nor docker-compose is installed: %w", fs.ErrNotExist),
		"install docker-compose-plugin or docker-compose")
}

// ComposeError is a run of compose that failed.
type ComposeError struct {
	Args    []string
	Message string // the last lines it printed
	Err     error
}

func (e *ComposeError) Error() string {
	return fmt.Sprintf("%s: %s", strings.Join(e.Args, " "), cmp.Or(e.Message, e.Err.Error()))
}

func (e *ComposeError) Unwrap() error { return e.Err }

// run works in the directory of the compose file.
func (c Compose) run(ctx context.Context, dir string, args ...string) ([]byte, error) {
	all := append(slices.Clone(c.args), args...)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return nil, &ComposeError{all, strings.Join(lines[max(0, len(lines)-3):], "; "), err}
	}
	return stdout.Bytes(), nil
}

// composeFiles are what compose looks for, in its order of preference.
var composeFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}

// findComposeFile gives the name of the compose file in dir.
// Errors: fs.ErrNotExist.
func findComposeFile(dir string) (string, error) {
	for _, name := range composeFiles {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("no compose file (%s) in %s: %w", strings.Join(composeFiles, ", "), dir, fs.ErrNotExist)
}

// checkOverrides refuses an override that is not ours, of any name that
// compose would read.
func checkOverrides(dir, ours string) error {
	for _, name := range composeFiles {
		other := overrideOf(name)
		text, err := os.ReadFile(filepath.Join(dir, other))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("read the override: %w", err)
		case other != ours || !bytes.HasPrefix(text, []byte(overrideMark)):
			return hint.With(fmt.Errorf("%w: there is %s already, which is not of s4", snapshot.ErrRefused, other),
				"print the agent's service with --print, and put it into your files yourself")
		}
	}
	return nil
}

func overrideOf(file string) string {
	ext := filepath.Ext(file)
	return strings.TrimSuffix(file, ext) + ".override" + ext
}

// composeConfig is the part of what `config` prints that matters here; it is
// the Compose Specification with everything merged and made whole.
type composeConfig struct {
	Name     string
	Services map[string]struct {
		Labels  composeLabels
		Volumes []composeMount
	}
	Volumes map[string]struct {
		Name     string
		External yaml.Node // true, or in old files a map with a name
	}
}

// composeLabels are a map, or a list of KEY=VALUE.
type composeLabels map[string]string

// UnmarshalYAML takes either.
func (l *composeLabels) UnmarshalYAML(n *yaml.Node) error {
	var list []string
	if n.Kind != yaml.SequenceNode {
		return n.Decode((*map[string]string)(l))
	}
	if err := n.Decode(&list); err != nil {
		return err
	}
	*l = composeLabels{}
	for _, one := range list {
		key, value, _ := strings.Cut(one, "=")
		(*l)[key] = value
	}
	return nil
}

// composeMount is SOURCE:TARGET[:MODE], or a map.
type composeMount struct {
	Type, Source, Target string
	ReadOnly             bool `yaml:"read_only"`
}

// UnmarshalYAML takes either.
func (m *composeMount) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		type plain composeMount
		return n.Decode((*plain)(m))
	}
	var s string
	if err := n.Decode(&s); err != nil {
		return err
	}
	parts := strings.Split(s, ":")
	m.Type, m.Target = "volume", parts[0]
	if len(parts) > 1 {
		m.Source, m.Target = parts[0], parts[1]
	}
	m.ReadOnly = len(parts) > 2 && slices.Contains(strings.Split(parts[2], ","), "ro")
	if strings.ContainsAny(m.Source, "/.~") && !volumeName.MatchString(m.Source) {
		m.Type = "bind"
	}
	return nil
}

var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// RepositoryPath is where a target keeps a volume's repository. Errors:
// snapshot.ErrUsage for a name that is no docker volume's.
func RepositoryPath(place, volume string) (string, error) {
	if !volumeName.MatchString(volume) || len(volume) > 128 {
		return "", fmt.Errorf("%w: %q cannot be a volume's name", snapshot.ErrUsage, shorten(volume))
	}
	return path.Join(place, volume), nil
}

// project is a compose project as its file describes it.
type project struct {
	name    string
	plan    *Plan
	keys    map[string]string // the compose file's name of a volume by the engine's
	service map[string]bool
}

// parseProject reads what `config` printed. The plan is that of containers
// which the file would make now, seen from the host.
func parseProject(config []byte, fallbackName, remote string) (*project, error) {
	var c composeConfig
	if err := yaml.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("read compose's configuration: %w", err)
	}
	p := &project{name: cmp.Or(c.Name, fallbackName), keys: map[string]string{}, service: map[string]bool{}}
	names := map[string]string{} // the engine's by the compose file's
	var volumes []dockerapi.Volume
	for _, key := range slices.Sorted(maps.Keys(c.Volumes)) {
		v := c.Volumes[key]
		var old struct{ Name string }
		external := v.External.Value == "true"
		if v.External.Kind == yaml.MappingNode {
			external = v.External.Decode(&old) == nil
		}
		name := cmp.Or(v.Name, old.Name)
		if name == "" && external {
			name = key
		}
		name = cmp.Or(name, p.name+"_"+key)
		names[key], p.keys[name] = name, key
		volumes = append(volumes, dockerapi.Volume{Name: name, Mountpoint: "/", Labels: map[string]string{composeVolume: key}})
	}
	var containers []dockerapi.Container
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		p.service[name] = true
		if name == agentService {
			continue
		}
		s := c.Services[name]
		one := dockerapi.Container{ID: name, Names: []string{"/" + name}, Labels: map[string]string{composeProject: p.name, composeService: name}}
		maps.Copy(one.Labels, s.Labels)
		for _, m := range s.Volumes {
			mount := dockerapi.Mount{Type: m.Type, Name: names[m.Source], Source: m.Source, Destination: m.Target, RW: !m.ReadOnly}
			if m.Type == "volume" && mount.Name == "" {
				mount.Name = strings.Repeat("0", 64) // one without a name, as the engine would call it
			}
			one.Mounts = append(one.Mounts, mount)
		}
		containers = append(containers, one)
	}
	p.plan = newPlan(p.name, "", Defaults{Remote: remote, Interval: DefaultInterval}, containers, volumes)
	return p, nil
}

// projectName is what docker-compose calls a project in dir; `docker compose`
// tells it itself.
func projectName(dir string) string {
	name := os.Getenv("COMPOSE_PROJECT_NAME")
	if data, err := os.ReadFile(filepath.Join(dir, ".env")); err == nil && name == "" {
		for line := range strings.Lines(string(data)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "COMPOSE_PROJECT_NAME="); ok {
				name = strings.Trim(value, `"'`)
			}
		}
	}
	name = strings.ToLower(cmp.Or(name, filepath.Base(dir)))
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, name)
}

// Project is the name of the compose project in dir. Errors: fs.ErrNotExist.
func Project(ctx context.Context, dir string) (string, error) {
	file, err := findComposeFile(dir)
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	compose, err := FindCompose(ctx)
	if err != nil {
		return projectName(abs), nil //nolint:nilerr // the usual name will do
	}
	config, err := compose.run(ctx, abs, "-f", file, "config")
	if err != nil {
		return "", err
	}
	p, err := parseProject(config, projectName(abs), "/")
	if err != nil {
		return "", err
	}
	return p.name, nil
}
