package main

import (
	"io"
	"os"
	"path/filepath"

	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/volume"
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

// shownPath is a path below a root as a person may name it.
func shownPath(path string) string {
	if path == "" {
		return "."
	}
	return path
}

// dashed splits a command's arguments where -- stood; kong hands them to its
// fields in order, whatever side they came from.
func (a *app) dashed(first, second string, rest []string) (before, after []string) {
	var args []string
	for _, arg := range append([]string{first, second}, rest...) {
		if arg != "" {
			args = append(args, arg)
		}
	}
	at := len(args) - min(max(a.after, 0), len(args))
	return args[:at], args[at:]
}

// isHere tells whether there is something in the volume at path as a person
// types it.
func (a *app) isHere(v *volume.Volume, path string) bool {
	if v == nil {
		return false
	}
	rel, err := a.inVolume(v, path)
	if err != nil {
		return false
	}
	_, err = os.Lstat(filepath.Join(v.Root, rel))
	return err == nil
}

// shownName is name for w: quoted on a terminal, raw bytes elsewhere.
func shownName(w io.Writer, name string) string {
	if _, ok := terminal(w); ok {
		return quote.Shell(name)
	}
	return name
}
