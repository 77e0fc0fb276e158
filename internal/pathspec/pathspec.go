// Package pathspec chooses paths of a tree by what a person types: a path means
// itself and all below it, and so does every path that a pattern matches.
//
// In a pattern * stands for any bytes but '/', ? for one character but '/',
// [a-z] for one of a set and [!a-z] for one outside it; ** stands for any
// bytes, and **/ for any number of directories, also none. A backslash takes
// the meaning from what follows. Names that begin with a dot are like others.
package pathspec

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/s4-storage/s4/snapshot"
)

// Set is a choice of paths. The zero value and nil choose all.
type Set struct {
	literal []string
	globs   []string
}

// New makes a Set of paths and patterns relative to a tree's root; literal
// tells which are taken as they are although they look like patterns. The
// error wraps [snapshot.ErrUsage].
func New(specs []string, literal func(path string) bool) (*Set, error) {
	s := &Set{}
	for _, spec := range specs {
		switch {
		case !IsPattern(spec) || literal != nil && literal(spec):
			s.literal = append(s.literal, spec)
		case !valid(spec):
			return nil, fmt.Errorf("%w: not a pattern: %q", snapshot.ErrUsage, spec)
		default:
			s.globs = append(s.globs, spec)
		}
	}
	return s, nil
}

// Match tells whether path is chosen.
func (s *Set) Match(path string) bool {
	if s.All() {
		return true
	}
	for _, l := range s.literal {
		if within(path, l) {
			return true
		}
	}
	for _, g := range s.globs {
		if len(path) < len(stem(g)) || path[:len(stem(g))] != stem(g) {
			continue
		}
		for end := range len(path) + 1 {
			if (end == len(path) || path[end] == '/') && Match(g, path[:end]) {
				return true
			}
		}
	}
	return false
}

// All tells whether every path is chosen.
func (s *Set) All() bool { return s == nil || len(s.literal)+len(s.globs) == 0 }

// Roots are paths below which, or at which, all lies that can be chosen; none
// mean the whole tree.
func (s *Set) Roots() []string {
	if s == nil {
		return nil
	}
	roots := append([]string(nil), s.literal...)
	for _, g := range s.globs {
		root := stem(g)
		root = root[:max(strings.LastIndexByte(root, '/'), 0)]
		if root == "" {
			return nil
		}
		roots = append(roots, root)
	}
	return roots
}

// Literal are the paths that were given as they are.
func (s *Set) Literal() []string { return s.literal }

// Patterns are those that have to be matched.
func (s *Set) Patterns() []string { return s.globs }

// IsPattern tells whether spec has anything in it but a path.
func IsPattern(spec string) bool { return strings.ContainsAny(spec, `*?[\`) }

// stem is the part before the first special character: all that matches
// begins so.
func stem(glob string) string { return glob[:strings.IndexAny(glob, `*?[\`)] }

func within(path, dir string) bool {
	return dir == "" || strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

func valid(glob string) bool {
	for i := 0; i < len(glob); i++ {
		switch glob[i] {
		case '\\':
			if i++; i == len(glob) {
				return false
			}
		case '[':
			_, n := set(glob[i:], 'x')
			if n == 0 {
				return false
			}
			i += n - 1
		}
	}
	return true
}

// Match tells whether the pattern stands for the whole of path.
func Match(glob, path string) bool {
	m := matcher{glob, path, nil}
	return m.match(0, 0)
}

type matcher struct {
	glob, path string
	failed     []bool // by position in glob and in path: tried, without success
}

func (m *matcher) match(g, p int) bool {
	for g < len(m.glob) {
		rest := m.glob[g:]
		switch {
		case rest[0] == '*':
			return m.star(g, p)
		case p == len(m.path):
			return false
		case rest[0] == '?':
			if m.path[p] == '/' {
				return false
			}
			_, n := utf8.DecodeRuneInString(m.path[p:])
			g, p = g+1, p+n
		case rest[0] == '[':
			r, n := utf8.DecodeRuneInString(m.path[p:])
			ok, used := set(rest, r)
			if !ok || m.path[p] == '/' {
				return false
			}
			g, p = g+used, p+n
		default:
			if rest[0] == '\\' && len(rest) > 1 {
				g++
			}
			if m.glob[g] != m.path[p] {
				return false
			}
			g, p = g+1, p+1
		}
	}
	return p == len(m.path)
}

func (m *matcher) star(g, p int) bool {
	if m.failed == nil {
		m.failed = make([]bool, (len(m.glob)+1)*(len(m.path)+1))
	}
	at := g*(len(m.path)+1) + p
	if m.failed[at] {
		return false
	}
	next, deep := g, false
	for next < len(m.glob) && m.glob[next] == '*' {
		next++
	}
	deep = next-g > 1
	if deep && next < len(m.glob) && m.glob[next] == '/' && (g == 0 || m.glob[g-1] == '/') {
		// **/ ends only where a name begins.
		for i := p; i <= len(m.path); i++ {
			if (i == p || m.path[i-1] == '/') && m.match(next+1, i) {
				return true
			}
		}
		m.failed[at] = true
		return false
	}
	for i := p; ; i++ {
		if m.match(next, i) {
			return true
		}
		if i == len(m.path) || !deep && m.path[i] == '/' {
			m.failed[at] = true
			return false
		}
	}
}

// set tells whether r is in the set that glob begins with, and how long that
// is; 0 when it has no end.
func set(glob string, r rune) (in bool, n int) {
	i := 1
	not := i < len(glob) && (glob[i] == '!' || glob[i] == '^')
	if not {
		i++
	}
	for first := true; ; first = false {
		if i >= len(glob) {
			return false, 0
		}
		if glob[i] == ']' && !first {
			return in != not, i + 1
		}
		lo, w := char(glob[i:])
		hi := lo
		i += w
		if i+1 < len(glob) && glob[i] == '-' && glob[i+1] != ']' {
			hi, w = char(glob[i+1:])
			i += 1 + w
		}
		in = in || lo <= r && r <= hi
	}
}

// char is the next character of a set.
func char(s string) (rune, int) {
	skip := 0
	if s[0] == '\\' && len(s) > 1 {
		skip = 1
	}
	r, n := utf8.DecodeRuneInString(s[skip:])
	return r, skip + n
}
