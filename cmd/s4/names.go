package main

import (
	"io"

	"github.com/s4-storage/s4/internal/quote"
)

// nameFlags are the options of every command that lists paths.
type nameFlags struct {
	Null bool `short:"z" name:"null" help:"End names with NUL bytes and never quote them."`
}

// show is name as it goes to w: quoted as ls does on a terminal, raw bytes
// elsewhere and with --null.
func (f nameFlags) show(w io.Writer, name string) string {
	if f.Null {
		return name
	}
	return shownName(w, name)
}

// end is what comes after a name.
func (f nameFlags) end() string {
	if f.Null {
		return "\x00"
	}
	return "\n"
}

// shownName is name for w: quoted on a terminal, raw bytes elsewhere.
func shownName(w io.Writer, name string) string {
	if _, ok := terminal(w); ok {
		return quote.Shell(name)
	}
	return name
}
