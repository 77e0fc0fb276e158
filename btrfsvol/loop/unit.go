package loop

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/s4-storage/s4/internal/systemd"
)

// Unit is a systemd unit as text.
type Unit struct {
	Name string // the file's name
	Text string
}

// UnitOptions are what [NewUnit] needs to know. All paths are absolute.
type UnitOptions struct {
	Image, Dir string
	UUID       string // of the file system
	Program    string // run as PROGRAM attach --uuid UUID -- IMAGE DIR, and PROGRAM detach -- DIR
}

// NewUnit returns a service that mounts an image at boot, before Docker starts.
//
// It is a service and not a .mount unit with the option loop, because mount(8)
// takes what it finds: it would mount another file system that has taken the
// image's place, or one that was cut off. A program that ends in [Mount]
// checks both. Neither survives that the image is moved; the service then says
// so, and never mounts another.
//
// systemd makes a .mount unit by itself for what it sees mounted, and would
// unmount it at shutdown while Docker still runs; the service comes after that
// unit when starting, and so before it when stopping. The service must stay
// without a sandbox (ProtectSystem= and the like), for in one its mount would
// be seen by nobody else.
func NewUnit(o UnitOptions) (Unit, error) {
	for _, p := range []string{o.Image, o.Dir, o.Program} {
		if err := checkUnitPath(p); err != nil {
			return Unit{}, fmt.Errorf("systemd unit: path %q %w", p, err)
		}
	}
	if _, err := uuid.Parse(o.UUID); err != nil {
		return Unit{}, fmt.Errorf("systemd unit: %w", err)
	}
	escaped := systemd.EscapePath(o.Dir)
	name := "s4-volume-" + escaped + ".service"
	if len(name) > 255 {
		return Unit{}, errors.New("systemd unit: the path is too long for a unit's name")
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("[Unit]")
	line("Description=s4 volume at %s", systemd.Text(o.Dir))
	line("RequiresMountsFor=%s", systemd.Value(filepath.Dir(o.Image))+" "+systemd.Value(filepath.Dir(filepath.Clean(o.Dir))))
	line("After=%s.mount", escaped)
	line("Before=docker.service")
	line("")
	line("[Service]")
	line("Type=oneshot")
	line("RemainAfterExit=yes")
	line("ExecStart=%s", systemd.Words(o.Program, "attach", "--uuid", o.UUID, "--", o.Image, o.Dir))
	line("ExecStop=%s", systemd.Words(o.Program, "detach", "--", o.Dir))
	line("# Replaying the log of a large volume takes its time.")
	line("TimeoutStartSec=10min")
	line("")
	line("[Install]")
	line("WantedBy=multi-user.target")
	return Unit{Name: name, Text: b.String()}, nil
}

// checkUnitPath refuses what systemd.syntax(7) cannot express in every place
// where a path stands.
func checkUnitPath(p string) error {
	switch {
	case !path.IsAbs(p):
		return errors.New("is not absolute")
	case !utf8.ValidString(p):
		return errors.New("is not UTF-8")
	case strings.IndexFunc(p, unicode.IsControl) >= 0:
		return errors.New("has a control character")
	case strings.ContainsAny(p, `"\`):
		return errors.New(`has a " or \`)
	}
	return nil
}
