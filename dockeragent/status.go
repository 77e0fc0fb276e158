package dockeragent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
)

// maxState bounds the status file of an agent.
const maxState = 16 << 20

// Status is what an agent's container tells.
type Status struct {
	*State
	Container string `json:"container"` // the agent's
	Running   bool   `json:"agent_running"`

	id     string
	detail dockerapi.Container
}

// Statuses tells of the agents of a project, or for "" of all. What an agent
// wrote is read through the engine, so also when it does not run.
func Statuses(ctx context.Context, engine *dockerapi.Client, project string) ([]Status, error) {
	labels := []string{LabelAgent}
	if project != "" {
		labels = append(labels, composeProject+"="+project)
	}
	containers, err := engine.Containers(ctx, labels...)
	if err != nil {
		return nil, err
	}
	all := []Status{}
	for _, c := range containers {
		if strings.EqualFold(c.Labels[composeOneOff], "true") {
			continue // `compose run` of the agent's service: a person looks at something
		}
		s := Status{Container: c.Name(), Running: c.State == "running", id: c.ID, detail: c}
		data, err := engine.ReadFile(ctx, c.ID, AgentDir+"/"+stateFile, maxState)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it never ran
			s.State = &State{}
		case err != nil:
			return nil, err
		default:
			if s.State, err = parseState(data); err != nil {
				return nil, fmt.Errorf("container %s: %w", c.Name(), err)
			}
		}
		s.Project = c.Labels[composeProject]
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmpStrings(a.Project, b.Project, a.Container, b.Container) })
	return all, nil
}

func cmpStrings(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			if pairs[i] < pairs[i+1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// Names are the volumes in order.
func (s *State) Names() []string { return slices.Sorted(maps.Keys(s.Volumes)) }

// lagFactor is how many intervals may pass where nobody says how long.
const lagFactor = 3

// Late tells whether the last good backup is older than maxLag, or for 0 than
// three intervals, which leaves room for retries. A volume that was never
// backed up is late; one that is gone is not.
func (st *VolumeState) Late(maxLag time.Duration, now time.Time) bool {
	if maxLag == 0 {
		maxLag = lagFactor * st.Interval
	}
	return !st.Gone && now.Sub(st.LastGood) > maxLag
}

// Complaints are why the backups of a project are not in order; see Late.
func (s *Status) Complaints(maxLag time.Duration, now time.Time) []string {
	var all []string
	if !s.Running {
		all = append(all, fmt.Sprintf("project %s: the agent %s does not run", s.Project, s.Container))
	}
	for _, p := range s.Problems {
		all = append(all, fmt.Sprintf("project %s: %s", s.Project, p))
	}
	if len(s.Volumes) == 0 {
		all = append(all, fmt.Sprintf("project %s: no volume is backed up", s.Project))
	}
	for _, name := range s.Names() {
		st := s.Volumes[name]
		if !st.Late(maxLag, now) {
			continue
		}
		text := fmt.Sprintf("volume %s: ", name)
		if st.LastGood.IsZero() {
			text += "never backed up"
		} else {
			text += fmt.Sprintf("last good backup %v ago", now.Sub(st.LastGood).Round(time.Second))
		}
		if st.Error != "" {
			text += ": " + st.Error
		}
		all = append(all, text)
	}
	return all
}
