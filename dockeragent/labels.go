package dockeragent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/internal/timespan"
	"github.com/s4-storage/s4/snapshot"
)

// The labels of a service.
const (
	LabelEnable   = "s4.enable"
	LabelVolumes  = "s4.volumes"
	LabelExclude  = "s4.exclude"
	LabelQuiesce  = "s4.quiesce"
	LabelDump     = "s4.dump"
	LabelInterval = "s4.interval"
	LabelKeep     = "s4.keep"
	LabelRemote   = "s4.remote"

	// LabelAgent marks the agent's own service, which is no user of volumes.
	LabelAgent = "s4.agent"
)

// labelPrefix begins every label that is ours; what begins so and is unknown
// was mistyped.
const labelPrefix = "s4."

// maxLabel bounds a value in bytes.
const maxLabel = 4096

// Quiesce is what is done to a container while its volume is copied.
type Quiesce string

// The ways to quiesce, the gentlest first.
const (
	QuiesceNone  Quiesce = "none"
	QuiescePause Quiesce = "pause"
	QuiesceStop  Quiesce = "stop"
)

// DumpKind is how a database is brought into a file before a backup.
type DumpKind string

// The kinds of dump.
const (
	DumpNone     DumpKind = ""
	DumpPostgres DumpKind = "postgres"
	DumpMySQL    DumpKind = "mysql"
	DumpSQLite   DumpKind = "sqlite"
	DumpCommand  DumpKind = "command"
)

// Rules are what the labels of one container ask for. The zero value of a
// field means that its label is not there.
type Rules struct {
	Enable   *bool
	Volumes  []string  // names, as in the compose file or the engine's
	Exclude  []Exclude // of this container's volumes
	Quiesce  Quiesce
	Dump     DumpKind
	Command  string // of DumpCommand
	Interval time.Duration
	Keep     Keep
	Remote   string // the place for volumes
}

// Exclude leaves out a volume, or paths in one.
type Exclude struct {
	Volume  string // as in Rules.Volumes
	Pattern string // below the volume's root; "" for all of it
}

// Keep says which snapshots stay; the zero value keeps all.
type Keep struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	Within                                       time.Duration // all that are younger
}

// IsZero tells whether all are kept.
func (k Keep) IsZero() bool { return k == Keep{} }

// more keeps what either keeps.
func (k Keep) more(o Keep) Keep {
	if k.IsZero() || o.IsZero() {
		return Keep{}
	}
	return Keep{max(k.Last, o.Last), max(k.Hourly, o.Hourly), max(k.Daily, o.Daily), max(k.Weekly, o.Weekly),
		max(k.Monthly, o.Monthly), max(k.Yearly, o.Yearly), max(k.Within, o.Within)}
}

// LabelError is a label that cannot be meant as it is. It wraps
// snapshot.ErrUsage.
type LabelError struct {
	Container, Label, Value string
	Problem                 string
	Good                    string // what it may be
}

func (e *LabelError) Error() string {
	text := fmt.Sprintf("container %s: label %s=%q: %s", e.Container, e.Label, shorten(e.Value), e.Problem)
	if e.Good != "" {
		text += " (good: " + e.Good + ")"
	}
	return text
}

// Unwrap makes it a wrong use.
func (e *LabelError) Unwrap() error { return snapshot.ErrUsage }

func shorten(s string) string {
	const longest = 80
	if len(s) <= longest {
		return s
	}
	for n := longest; ; n-- {
		if utf8.RuneStart(s[n]) {
			return s[:n] + "…"
		}
	}
}

// labelParsers has one parser a label; each gives what is good when the value
// is not.
func labelParsers() map[string]func(r *Rules, value string) (good string, err error) {
	return map[string]func(*Rules, string) (string, error){
		LabelEnable:   parseEnable,
		LabelVolumes:  parseVolumes,
		LabelExclude:  parseExclude,
		LabelQuiesce:  parseQuiesce,
		LabelDump:     parseDump,
		LabelInterval: parseInterval,
		LabelKeep:     parseKeep,
		LabelRemote:   parseRemote,
	}
}

// ParseLabels reads the rules from a container's labels; those that do not
// begin with "s4." are not ours. Errors: *LabelError, one for each label that
// is wrong or unknown, joined.
func ParseLabels(container string, labels map[string]string) (Rules, error) {
	var r Rules
	var errs []error
	parsers := labelParsers()
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		value := labels[label]
		if !strings.HasPrefix(strings.ToLower(label), labelPrefix) || label == LabelAgent {
			continue
		}
		parse, ok := parsers[label]
		if !ok {
			errs = append(errs, &LabelError{container, shorten(label), value, "no such label", strings.Join(slices.Sorted(maps.Keys(parsers)), ", ")})
			continue
		}
		var good string
		err := error(nil)
		switch {
		case len(value) > maxLabel:
			err = fmt.Errorf("longer than %d bytes", maxLabel)
		case !utf8.ValidString(value) || strings.ContainsAny(value, "\x00"):
			err = errors.New("not text")
		default:
			good, err = parse(&r, strings.TrimSpace(value))
		}
		if err != nil {
			errs = append(errs, &LabelError{container, label, value, err.Error(), good})
		}
	}
	return r, errors.Join(errs...)
}

var errUnknown = errors.New("not understood")

func parseEnable(r *Rules, value string) (string, error) {
	on := value == "true"
	if !on && value != "false" {
		return "true, false", errUnknown
	}
	r.Enable = &on
	return "", nil
}

func parseQuiesce(r *Rules, value string) (string, error) {
	switch q := Quiesce(value); q {
	case QuiesceNone, QuiescePause, QuiesceStop:
		r.Quiesce = q
		return "", nil
	}
	return "pause, stop, none", errUnknown
}

// parseDump takes a single word only where it is one of ours or a path: else
// "postgers" would be a command.
func parseDump(r *Rules, value string) (string, error) {
	switch kind := DumpKind(value); kind {
	case DumpPostgres, DumpMySQL, DumpSQLite:
		r.Dump = kind
		return "", nil
	}
	if !strings.ContainsAny(value, " /") {
		return "postgres, mysql, sqlite, or a command with its arguments or path, whose output is kept", errUnknown
	}
	r.Dump, r.Command = DumpCommand, value
	return "", nil
}

// words splits a list at commas.
func words(value string) ([]string, error) {
	var list []string
	for _, w := range strings.Split(value, ",") {
		if w = strings.TrimSpace(w); w == "" {
			return nil, errors.New("a name is missing")
		}
		list = append(list, w)
	}
	return list, nil
}

const goodVolumes = "names of volumes with commas between them, such as data,uploads"

func parseVolumes(r *Rules, value string) (string, error) {
	list, err := words(value)
	if err != nil {
		return goodVolumes, err
	}
	for _, name := range list {
		if strings.Contains(name, "/") {
			return goodVolumes, fmt.Errorf("%q is no name of a volume", shorten(name))
		}
	}
	r.Volumes = list
	return "", nil
}

func parseExclude(r *Rules, value string) (string, error) {
	const good = "names of volumes, or VOLUME/PATTERN for paths in one, with commas between them, such as cache,data/tmp/*"
	list, err := words(value)
	if err != nil {
		return good, err
	}
	var all []Exclude
	for _, w := range list {
		name, pattern, inside := strings.Cut(w, "/")
		pattern = strings.TrimRight(pattern, "/")
		if name == "" || inside && pattern == "" || strings.HasPrefix(pattern, "/") || slices.Contains(strings.Split(pattern, "/"), "..") {
			return good, fmt.Errorf("%q is not understood", shorten(w))
		}
		if _, err := pathspec.NewExclusion([]string{"/" + pattern}); inside && err != nil {
			return good, fmt.Errorf("%q is no pattern", shorten(pattern))
		}
		all = append(all, Exclude{name, pattern})
	}
	r.Exclude = all
	return "", nil
}

// The bounds of an interval.
const (
	minInterval = time.Minute
	maxInterval = 366 * 24 * time.Hour
)

func parseInterval(r *Rules, value string) (string, error) {
	d, err := timespan.Parse(value)
	switch {
	case err != nil:
		err = errUnknown
	case d < minInterval:
		err = fmt.Errorf("shorter than %v", minInterval)
	case d > maxInterval:
		err = errors.New("longer than a year")
	default:
		r.Interval = d
		return "", nil
	}
	return "30m, 6h, 1d, 1w", err
}

func parseKeep(r *Rules, value string) (string, error) {
	const good = "last=N, hourly=N, daily=N, weekly=N, monthly=N, yearly=N, within=TIME, with commas between them, such as daily=7,weekly=4"
	list, err := words(value)
	if err != nil {
		return good, err
	}
	var k Keep
	counts := map[string]*int{"last": &k.Last, "hourly": &k.Hourly, "daily": &k.Daily, "weekly": &k.Weekly, "monthly": &k.Monthly, "yearly": &k.Yearly}
	for _, w := range list {
		name, number, _ := strings.Cut(w, "=")
		n, err := strconv.ParseUint(number, 10, 16)
		switch count := counts[name]; {
		case name == "within":
			if k.Within, err = timespan.Parse(number); err != nil || k.Within <= 0 {
				return good, fmt.Errorf("%q is not understood", shorten(w))
			}
		case count == nil || err != nil || n == 0: // to keep none is never meant
			return good, fmt.Errorf("%q is not understood", shorten(w))
		default:
			*count = int(n)
		}
	}
	r.Keep = k
	return "", nil
}

func parseRemote(r *Rules, value string) (string, error) {
	const good = "a place for volumes, such as s4@nas:/volumes"
	loc, err := borgio.ParseLocation(value)
	switch {
	case err != nil:
		return good, errUnknown
	case loc.Archive != "":
		return good, errors.New("it names an archive")
	case loc.Host == "" && !strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "file:///"):
		return good, errors.New("a relative path means another place for everybody")
	}
	r.Remote = value
	return "", nil
}
