package main

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quoteName makes a path fit to be shown on a terminal, as ls does: as it is
// where it is plain, else in Go's double quotes with escapes.
func quoteName(name string) string {
	plain := utf8.ValidString(name) && !strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) })
	if plain {
		return name
	}
	return strconv.Quote(name)
}

// shownName is name for w: quoted on a terminal, raw bytes elsewhere.
func shownName(w io.Writer, name string) string {
	if _, ok := terminal(w); ok {
		return quoteName(name)
	}
	return name
}
