// Package quote makes text from a file system fit to be shown.
//
// A file's name may be any bytes but NUL and '/': a newline that forges a
// second line, an escape sequence that commands the terminal, bytes that are
// no UTF-8, letters that turn the direction of what follows. None of them
// reaches a terminal raw.
//
// [Shell] writes a name as GNU ls does on a terminal (--quoting-style=shell-escape):
// as it is where that is one plain word of a shell, else so that bash, ksh, zsh
// and busybox's sh read the same bytes from it. [Text] is for sentences.
package quote

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Shell returns name as a word for the shell.
func Shell(name string) string {
	kind := plain
	if name == "" {
		kind = quoted
	}
	apostrophe, doubled := false, true // doubled: the same between double quotes
	for i, r := range name {
		k := kindOf(name, i, r)
		kind = max(kind, k)
		apostrophe = apostrophe || r == '\''
		doubled = doubled && k != escaped && !strings.ContainsRune("!\"$&()*;<=>[^`|?\\#~{}", r) ||
			doubled && i == 0 && (r == '#' || r == '~')
	}
	switch {
	case kind == plain:
		return name
	case apostrophe && doubled:
		return `"` + name + `"`
	}
	return single(name)
}

// single is name between single quotes, with $'…' around what cannot be shown.
func single(name string) string {
	var b strings.Builder
	b.WriteByte('\'')
	inEscape := false
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		part := name[i : i+n]
		switch {
		case r == '\'':
			b.WriteString(`'\''`)
			inEscape = false
		case shown(r, n):
			if inEscape {
				b.WriteString(`''`)
				inEscape = false
			}
			b.WriteString(part)
		default:
			if !inEscape {
				b.WriteString(`'$'`)
				inEscape = true
			}
			writeEscape(&b, part)
		}
		i += n
	}
	b.WriteByte('\'')
	return b.String()
}

// Text returns a sentence, in which names may stand, as one line that does
// nothing to a terminal: what cannot be shown is escaped as in C.
func Text(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if shown(r, n) {
			b.WriteString(s[i : i+n])
		} else {
			writeEscape(&b, s[i:i+n])
		}
		i += n
	}
	return b.String()
}

// What a character asks for, in rising order.
const (
	plain   = iota
	quoted  // something else to a shell
	escaped // not to be shown
)

// kindOf is what the character r at s[i] asks for.
func kindOf(s string, i int, r rune) int {
	_, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case !shown(r, n):
		return escaped
	case r > unicode.MaxASCII:
		if unicode.Is(unicode.Zs, r) { // or nobody sees where a name ends
			return quoted
		}
		return plain
	case strings.ContainsRune(" '!\"$&()*;<=>[^`|?\\", r), i == 0 && (r == '#' || r == '~'), s == "{", s == "}":
		return quoted
	}
	return plain
}

// shown tells whether a terminal may get r, which was decoded from n bytes.
// Of the format characters those that join letters may pass; the rest hides
// or reorders text.
func shown(r rune, n int) bool {
	if r == utf8.RuneError && n == 1 {
		return false
	}
	const nonJoiner, joiner = '\u200c', '\u200d'
	return unicode.IsPrint(r) || unicode.Is(unicode.Zs, r) || r == nonJoiner || r == joiner
}

func writeEscape(b *strings.Builder, s string) {
	for i := range len(s) {
		if at := strings.IndexByte("\a\b\t\n\v\f\r", s[i]); at >= 0 {
			b.WriteByte('\\')
			b.WriteByte("abtnvfr"[at])
			continue
		}
		fmt.Fprintf(b, `\%03o`, s[i])
	}
}
