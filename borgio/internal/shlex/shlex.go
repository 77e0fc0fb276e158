// Package shlex splits a command line into words exactly as Python's
// shlex.split does, since that is what borg makes of BORG_PASSCOMMAND and
// BORG_RSH. It differs from a shell, and from Go's packages of that name: "#"
// begins no comment, and within double quotes a backslash stays unless a
// double quote or another backslash follows.
package shlex

import (
	"errors"
	"strings"
)

// What a line that is not whole lacks.
var (
	ErrQuote  = errors.New("no closing quotation mark")
	ErrEscape = errors.New("nothing follows the last backslash")
)

// Split gives the words of a line. It allocates at most 40 bytes for each of
// the line's.
func Split(line string) (words []string, err error) {
	var word strings.Builder
	var quote byte // that we are within, 0: none
	begun := false // a word, which may still be empty
	escaped := false
	for i := range len(line) {
		c := line[i]
		switch {
		case escaped:
			if quote != 0 && c != quote && c != '\\' {
				word.WriteByte('\\')
			}
			word.WriteByte(c)
			escaped = false
		case c == '\\' && quote != '\'':
			begun, escaped = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			begun, quote = true, c
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			begun = true
			word.WriteByte(c)
		}
	}
	switch {
	case escaped:
		return nil, ErrEscape
	case quote != 0:
		return nil, ErrQuote
	case begun:
		words = append(words, word.String())
	}
	return words, nil
}
