package fusefs

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"golang.org/x/sys/unix"
)

// transformSymlinks is the mount option, named as sshfs does, that keeps
// absolute symbolic links in a snapshot inside it.
const transformSymlinks = "transform_symlinks"

// debug is the mount option, named as libfuse does, that logs every request.
const debug = "debug"

// mountFlags are the options of mount(8) that are bits of the mount(2) call:
// what they set and what they clear.
var mountFlags = map[string]struct{ set, clear uintptr }{
	"ro":          {set: unix.MS_RDONLY},
	"rw":          {clear: unix.MS_RDONLY},
	"nosuid":      {set: unix.MS_NOSUID},
	"suid":        {clear: unix.MS_NOSUID},
	"nodev":       {set: unix.MS_NODEV},
	"dev":         {clear: unix.MS_NODEV},
	"noexec":      {set: unix.MS_NOEXEC},
	"exec":        {clear: unix.MS_NOEXEC},
	"noatime":     {set: unix.MS_NOATIME},
	"atime":       {clear: unix.MS_NOATIME},
	"sync":        {set: unix.MS_SYNCHRONOUS},
	"async":       {clear: unix.MS_SYNCHRONOUS},
	"dirsync":     {set: unix.MS_DIRSYNC},
	"defaults":    {},
	"allow_other": {},

	transformSymlinks: {},
	debug:             {},

	"default_permissions": {}, // always on
}

// fuseOptions translates the options for go-fuse.
func (o *Options) fuseOptions() (*fuse.MountOptions, error) {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	allowOther := o.AllowOther
	var forHelper []string
	for _, arg := range o.MountOptions {
		for opt := range strings.SplitSeq(arg, ",") {
			if opt == "" {
				continue
			}
			flag, ok := mountFlags[opt]
			if !ok {
				return nil, hint.With(fmt.Errorf("%w: unknown mount option %q", snapshot.ErrUsage, opt),
					"known are allow_other, transform_symlinks, debug, ro, nosuid, nodev, noexec, noatime, sync, dirsync and their opposites")
			}
			flags = flags&^flag.clear | flag.set
			switch opt {
			case "allow_other":
				allowOther = true
			case transformSymlinks:
				o.linksInside = true
			case debug:
				o.Debug = true
			}
			if flag.set|flag.clear != 0 {
				forHelper = append(forHelper, opt)
			}
		}
	}
	if o.Live == nil && flags&unix.MS_RDONLY == 0 {
		flags |= unix.MS_RDONLY
		forHelper = append(forHelper, "ro")
	}
	opts := &fuse.MountOptions{
		AllowOther:    allowOther,
		Options:       []string{"default_permissions"},
		FsName:        o.FSName,
		Name:          fsType,
		MaxBackground: maxBackground,
		MaxWrite:      requestSize,
		MaxReadAhead:  requestSize,
		EnableAcl:     true,

		EnableSymlinkCaching: true, // a link never changes, only what has its name
		Debug:                o.Debug,
		Logger:               slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		MaxStackDepth:        1, // what lies below is no stacked file system itself
		// MS_MGC_VAL is ignored; it keeps go-fuse from taking 0 for unset.
		DirectMountFlags: flags | syscall.MS_MGC_VAL,
	}
	if o.Live != nil {
		// See mux.masked, live_setid.go and mux.clearSetgid.
		opts.ExtraCapabilities |= fuse.CAP_DONT_MASK | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT
	}
	if os.Geteuid() != 0 {
		opts.Options = append(opts.Options, forHelper...)
	}
	if o.NoPassthrough {
		opts.DisabledCapabilities |= fuse.CAP_PASSTHROUGH
	}
	return opts, nil
}
