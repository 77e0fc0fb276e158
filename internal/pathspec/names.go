package pathspec

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/s4-storage/s4/snapshot"
)

// Names chooses paths one by one: by the name, or where an expression has a
// slash in it by the whole path. What lies below a path is not chosen with it.
type Names struct {
	tests []nameTest
	fold  bool
}

type nameTest struct {
	whole bool // looks at the path, not at the name
	part  string
	match func(string) bool
}

// NamesOptions say how expressions are meant.
type NamesOptions struct {
	Regexp bool // regular expressions that match somewhere; else patterns for the whole
	Fold   bool // upper and lower case are the same
}

// NewNames makes a choice of all that one of the expressions matches. The error
// wraps [snapshot.ErrUsage].
func NewNames(expressions []string, o NamesOptions) (*Names, error) {
	n := &Names{fold: o.Fold}
	for _, e := range expressions {
		t := nameTest{whole: strings.Contains(e, "/")}
		if o.Regexp {
			flags := "(?s)"
			if o.Fold {
				flags = "(?si)"
			}
			re, err := regexp.Compile(flags + e)
			if err != nil {
				return nil, fmt.Errorf("%w: not a regular expression: %q", snapshot.ErrUsage, e)
			}
			t.match = re.MatchString
			if prefix, _ := re.LiteralPrefix(); !t.whole && !o.Fold {
				t.part = prefix
			}
			n.tests = append(n.tests, t)
			continue
		}
		if !valid(e) {
			return nil, fmt.Errorf("%w: not a pattern: %q", snapshot.ErrUsage, e)
		}
		glob := e
		if o.Fold {
			glob = folded(e)
			t.match = func(s string) bool { return Match(glob, folded(s)) }
		} else {
			t.match = func(s string) bool { return Match(glob, s) }
			t.part = part(glob)
		}
		n.tests = append(n.tests, t)
	}
	return n, nil
}

// Match tells whether the path of that name in a directory is chosen.
func (n *Names) Match(dir, name string) bool {
	whole := ""
	for _, t := range n.tests {
		s := name
		if t.whole {
			if whole == "" {
				whole = name
				if dir != "" {
					whole = dir + "/" + name
				}
			}
			s = whole
		}
		if t.match(s) {
			return true
		}
	}
	return false
}

// Parts are bytes of which every name that is chosen has some; none where that
// is not known.
func (n *Names) Parts() (parts []string) {
	for _, t := range n.tests {
		if t.part == "" {
			return nil
		}
		parts = append(parts, t.part)
	}
	return parts
}

// part is the longest run of bytes that stands in the last name of every path
// that a pattern matches.
func part(glob string) string {
	longest, run := "", []byte(nil)
	end := func() {
		if len(run) > len(longest) {
			longest = string(run)
		}
		run = run[:0]
	}
	for i := 0; i < len(glob); i++ {
		switch glob[i] {
		case '\\':
			i++
			run = append(run, glob[i])
		case '*':
			end()
			if i+1 < len(glob) && glob[i+1] == '*' {
				longest = "" // the last name may begin after it
			}
		case '/':
			run, longest = run[:0], ""
		case '?':
			end()
		case '[':
			end()
			_, n := set(glob[i:], 'x')
			i += n - 1
		default:
			run = append(run, glob[i])
		}
	}
	end()
	return longest
}

// Literal is a pattern that matches the very path.
func Literal(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// folded is s with letters of all cases as one. Bytes that are no UTF-8 stay.
func folded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b.WriteByte(s[i])
		} else {
			b.WriteRune(unicode.ToLower(unicode.ToUpper(r)))
		}
		i += n
	}
	return b.String()
}
