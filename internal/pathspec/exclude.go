package pathspec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// Exclusion leaves paths out of a tree. Its patterns have the signs of a [Set]'s and
// mean what they would in a .gitignore: one without a slash is for the names at any
// depth, one with a slash at its beginning or inside for the path below the tree's
// root, and a slash at the end keeps to directories. Nothing is taken back with "!".
// What is below a path that is left out is left out, too. The zero value and nil
// leave out nothing.
type Exclusion struct {
	patterns []string
	// Those that are no patterns: whether they are for directories alone.
	names, paths map[string]bool
	globs        []glob
}

// glob is a pattern that has to be matched.
type glob struct {
	glob         string
	stem, suffix string // what matches begins with stem, and, with simple set, just ends with suffix
	simple       bool
	whole        bool // is for the path and not for the name
	dirs         bool // is for directories alone
}

// NewExclusion compiles patterns. The error wraps [snapshot.ErrUsage].
func NewExclusion(patterns []string) (*Exclusion, error) {
	e := &Exclusion{names: map[string]bool{}, paths: map[string]bool{}}
	for _, p := range patterns {
		if err := e.add(p); err != nil {
			return nil, err
		}
	}
	e.patterns = slices.Sorted(slices.Values(patterns))
	e.patterns = slices.Compact(e.patterns)
	return e, nil
}

func (e *Exclusion) add(pattern string) error {
	bad := fmt.Errorf("%w: not a pattern for paths to leave out: %q", snapshot.ErrUsage, pattern)
	if strings.HasPrefix(pattern, "!") {
		return hint.With(bad, `nothing is taken back with "!"; a name that begins so is written \!`)
	}
	rest, dirs := strings.CutSuffix(pattern, "/")
	rest, top := strings.CutPrefix(rest, "/")
	for _, name := range strings.Split(rest, "/") {
		if name == "" || name == "." || name == ".." {
			return bad
		}
	}
	if !valid(rest) {
		return bad
	}
	whole := top || strings.Contains(rest, "/")
	if !IsPattern(rest) {
		literal := e.names
		if whole {
			literal = e.paths
		}
		if only, ok := literal[rest]; !ok || only {
			literal[rest] = dirs
		}
		return nil
	}
	g := glob{glob: rest, stem: stem(rest), whole: whole, dirs: dirs}
	if after := rest[len(g.stem):]; !whole && after[0] == '*' && !IsPattern(after[1:]) {
		g.simple, g.suffix = true, after[1:]
	}
	e.globs = append(e.globs, g)
	return nil
}

// Match tells whether the path itself is left out, whatever becomes of the
// directories above it; dir, whether it is a directory.
func (e *Exclusion) Match(path string, dir bool) bool {
	if e == nil {
		return false
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	if only, ok := e.names[name]; ok && (dir || !only) {
		return true
	}
	if only, ok := e.paths[path]; ok && (dir || !only) {
		return true
	}
	for i := range e.globs {
		g := &e.globs[i]
		s := name
		if g.whole {
			s = path
		}
		if (dir || !g.dirs) && g.match(s) {
			return true
		}
	}
	return false
}

func (g *glob) match(s string) bool {
	if !strings.HasPrefix(s, g.stem) {
		return false
	}
	if g.simple {
		return strings.HasSuffix(s[len(g.stem):], g.suffix)
	}
	return Match(g.glob, s)
}

// Hides tells whether the path, or a directory above it, is left out.
func (e *Exclusion) Hides(path string, dir bool) bool {
	if e.Empty() {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && e.Match(path[:i], true) {
			return true
		}
	}
	return e.Match(path, dir)
}

// Empty tells whether nothing is left out.
func (e *Exclusion) Empty() bool { return e == nil || len(e.patterns) == 0 }

// Equal tells whether both have the same patterns.
func (e *Exclusion) Equal(o *Exclusion) bool {
	return e.Empty() && o.Empty() || e != nil && o != nil && slices.Equal(e.patterns, o.patterns)
}
