package main

import (
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/s4-storage/s4/internal/hint"
)

// forMount are options of mount(8) and systemd that are no business of a file
// system; "x-" and "comment=" begin more of them.
var forMount = []string{"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "rw"}

// mountHelper turns a call as mount(8) makes it of /sbin/mount.s4 (or
// mount.fuse.s4), "NAME SOURCE TARGET [-sfnv] [-o OPTIONS]", into a command
// line of s4. ok is false under any other name.
//
// SOURCE is a repository's URL, with ::ARCHIVE or the option at=TIME, or the
// directory of a volume, which is mounted over itself where TARGET is the same.
func mountHelper(argv []string) (args []string, ok bool, err error) {
	if name := filepath.Base(argv[0]); name != "mount.s4" && name != "mount.fuse.s4" {
		return nil, false, nil
	}
	var places, options, flags []string
	for i := 1; i < len(argv); i++ {
		switch arg := argv[i]; {
		case arg == "-o" && i+1 < len(argv):
			i++
			options = append(options, strings.Split(argv[i], ",")...)
		case arg == "-t" || arg == "-N":
			i++
		case arg == "-f": // a dry run
			return []string{"version"}, true, nil
		case strings.HasPrefix(arg, "-"):
		default:
			places = append(places, arg)
		}
	}
	if len(places) != 2 {
		return nil, true, hint.With(usage("a source and a mountpoint are needed"), "mount.s4 SOURCE MOUNTPOINT [-o OPTIONS]")
	}
	for _, o := range options {
		switch {
		case o == "allow_other":
			flags = append(flags, "--allow-other")
		case strings.HasPrefix(o, "at="):
			flags = append(flags, "--at", strings.TrimPrefix(o, "at="))
		case o == "" || slices.Contains(forMount, o) || strings.HasPrefix(o, "x-") || strings.HasPrefix(o, "comment="):
		default:
			flags = append(flags, "-o", o)
		}
	}
	source, target := places[0], places[1]
	switch _, err := os.Stat(filepath.Join(source, ".s4", "config")); {
	case err != nil:
		args = []string{"mount", source, target}
	case filepath.Clean(source) == filepath.Clean(target):
		args = []string{"-C", source, "mount"}
	default:
		args = []string{"-C", source, "mount", target}
	}
	return append(args, flags...), true, nil
}

// homeForHelper sets HOME where there is none, as at boot.
func homeForHelper() {
	if os.Getenv("HOME") != "" {
		return
	}
	if u, err := user.Current(); err == nil {
		_ = os.Setenv("HOME", u.HomeDir) // fails for malformed names only
	}
}
